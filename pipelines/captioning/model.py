"""Captions by a vision-language model of `transformers`, whichever `AutoModelForImageTextToText` knows.

Shape letters: B clips, L tokens.
"""

import tempfile
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines.captioning.spec import VisionModel
from rayramid.pipelines.frames import Frames


class ModelCaptioner:
    """Shows a clip's frames as the pictures of one question; several clips at once."""

    def __init__(self, model: VisionModel) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokens = model.tokens
        with tempfile.TemporaryDirectory(prefix="rayramid-") as copy:
            folder = model.folder
            if "://" in folder:
                storage.sync_down(folder, copy)
                folder = copy
            # A hub is asked only where the spec allows it: a model that changes there changes captions.
            local = {"local_files_only": not model.hub}
            kind = torch.bfloat16 if self._device == "cuda" else torch.float32
            try:
                self._processor = AutoProcessor.from_pretrained(folder, **local)
                self._model = AutoModelForImageTextToText.from_pretrained(folder, dtype=kind, **local)
            except OSError:
                raise UserError(
                    f"caption.model: {model.folder}: not on this machine; give a folder or URL, or `hub: true`"
                ) from None
        self._model.to(self._device).eval()
        # Answers of a batch begin at one place.
        self._processor.tokenizer.padding_side = "left"

    @torch.inference_mode()
    def captions(self, clips: Sequence[Frames], prompt: str) -> list[str]:
        """One answer per clip [T, H, W, 3]."""
        pictures = [[Image.fromarray(frame) for frame in clip] for clip in clips]
        texts = [self._question(len(clip), prompt) for clip in clips]
        inputs = self._processor(text=texts, images=pictures, padding=True, return_tensors="pt").to(self._device)
        written_BL = self._model.generate(**inputs, max_new_tokens=self._tokens, do_sample=False)
        answers_BL = written_BL[:, inputs["input_ids"].shape[1] :]
        return [str(text) for text in self._processor.batch_decode(answers_BL, skip_special_tokens=True)]

    def _question(self, frames: int, prompt: str) -> str:
        content = [*({"type": "image"} for _ in range(frames)), {"type": "text", "text": prompt}]
        return str(
            self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        )
