"""Prompts to embeddings: T5 gives one vector per token, CLIP one pooled vector per prompt.

A text folder holds ordinary `transformers` folders: `t5` and `t5_tokenizer`, `clip_l` and `clip_l_tokenizer`, and for
SD3 also `clip_g` and `clip_g_tokenizer`. Pooled vectors are concatenated in this order: SD3 CLIP-L, CLIP-G; miniFLUX
CLIP-L. A CLIP folder whose `config.json` names CLIPTextModelWithProjection gives its projected vector, as SD3 wants;
CLIPTextModel gives its pooler's output, as miniFLUX wants.
Shapes: B prompts, L tokens, D values of a token embedding, P of the pooled one.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.errors import UserError

log = logging.getLogger(__name__)

MAX_TOKENS = 128
"""Tokens of a prompt that T5 reads, its end mark included."""
CLIP_TOKENS = 77
CLIPS = ("clip_l", "clip_g")
BLOCK = 1 << 26


@dataclass(frozen=True)
class TextEmbedding:
    """One prompt for the DiT: float32, `tokens_LD` of the real tokens alone (1 to 128, end mark included)."""

    tokens_LD: Tensor
    pooled_P: Tensor


class TextEncoder:
    """T5 and one or two CLIPs of one folder; made by `load_text`."""

    def __init__(self, url: str, t5: "TextModel", clips: Sequence["TextModel"]):
        self.url, self.t5, self.clips = url, t5, tuple(clips)

    @property
    def text_dim(self) -> int:
        """Values of a token embedding."""
        return self.t5.model.config.d_model

    @property
    def pooled_dim(self) -> int:
        """Values of a pooled embedding."""
        return sum(clip.pooled_dim for clip in self.clips)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the folder's files; reads all of them once."""
        return text_fingerprint(self.url)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        """Embed prompts, in one batch; any length, also empty.

        What goes beyond T5's 128 tokens is lost, with a warning. CLIP's vector is that of its first 77 tokens.
        """
        if not prompts:
            return []
        for prompt in dict.fromkeys(prompts):
            self._warn_if_cut(prompt)
        tokens = self.t5.tokenize(prompts, MAX_TOKENS)
        tokens_BLD = self.t5.model(**tokens).last_hidden_state.float()
        pooled_BP = torch.cat([clip.pooled(prompts).float() for clip in self.clips], dim=1)
        lengths = tokens["attention_mask"].sum(1).tolist()
        # Copies out of inference mode: the embeddings may meet autograd, and a view would keep the whole batch.
        return [
            TextEmbedding(_detached(tokens_LD[:length]), _detached(pooled_P))
            for tokens_LD, length, pooled_P in zip(tokens_BLD, lengths, pooled_BP, strict=True)
        ]

    def _warn_if_cut(self, prompt: str) -> None:
        count = len(self.t5.tokenizer(prompt, verbose=False).input_ids)
        if count > MAX_TOKENS:
            log.warning(
                "prompt of %d tokens is cut to %d; %d tokens are lost, its beginning is %r",
                count,
                MAX_TOKENS,
                count - MAX_TOKENS,
                prompt[:40],
            )


class TextModel:
    """A `transformers` text model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer

    @property
    def pooled_dim(self) -> int:
        """Values of the pooled vector of a CLIP."""
        config = self.model.config
        return config.projection_dim if hasattr(self.model, "text_projection") else config.hidden_size

    def tokenize(self, prompts: Sequence[str], limit: int) -> dict[str, Tensor]:
        """Ids and mask [B, L], padded to the longest prompt, on the model's device."""
        batch = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt", verbose=False
        )
        return {key: batch[key].to(self.model.device) for key in ("input_ids", "attention_mask")}

    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """Pooled vectors [B, P] of a CLIP, from the first 77 tokens."""
        out = self.model(**self.tokenize(prompts, CLIP_TOKENS))
        return out.text_embeds if hasattr(self.model, "text_projection") else out.pooler_output


def load_text(url: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> TextEncoder:
    """Load the text folder `url`, without asking any hub.

    Args:
        url: folder, laid out as this module says; a remote one is copied to a temporary folder first.
        device: where the models run.
        dtype: of the models' weights; as stored when None.

    Raises:
        UserError: a part of the folder is missing or damaged.
    """
    url = storage.absolute(url)
    local = storage.local_path(url)
    if local is not None:
        return _load(url, local, device, dtype)
    with tempfile.TemporaryDirectory(prefix="rayramid-text-") as folder:
        storage.sync_down(url, folder)
        return _load(url, Path(folder), device, dtype)


def cast_text(url: str, folder: str | Path, dtype: torch.dtype) -> None:
    """Copy the text folder `url` to a local one, with all weights in `dtype`."""
    text = load_text(url, dtype=dtype)
    with no_progress_bars():
        for name, part in (("t5", text.t5), *zip(CLIPS, text.clips, strict=False)):
            part.model.save_pretrained(Path(folder) / name)
            part.tokenizer.save_pretrained(Path(folder) / f"{name}_tokenizer")


def text_fingerprint(url: str) -> str:
    """16 hex digits of the names and bytes of all files in the parts of the text folder `url`."""
    digest = hashlib.sha256()
    files = [file for file in storage.list_files(url) if storage.relative(url, file).startswith(("t5", "clip_"))]
    if not files:
        raise UserError(f"{url}: not a text folder, it has no t5")
    for file in sorted(files):
        size = storage.size(file)
        digest.update(f"{storage.relative(url, file)} {size}\n".encode())
        for start in range(0, size, BLOCK):
            digest.update(storage.read_range(file, start, min(BLOCK, size - start)))
    return digest.hexdigest()[:16]


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars, which mix with ours."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _load(url: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> TextEncoder:
    # transformers takes seconds to import, and most of this floor does without.
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

    def load(part: str, kind: Any) -> TextModel:
        return _load_part(url, folder, part, kind, device, dtype)

    clips = []
    for part in CLIPS:
        if part == "clip_l" or (folder / part).exists():
            projects = "CLIPTextModelWithProjection" in _architectures(url, folder, part)
            clips.append(load(part, CLIPTextModelWithProjection if projects else CLIPTextModel))
    return TextEncoder(url, load("t5", T5EncoderModel), clips)


def _load_part(
    url: str, folder: Path, part: str, kind: Any, device: str | torch.device, dtype: torch.dtype | None
) -> TextModel:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    for name in (part, f"{part}_tokenizer"):
        if not (folder / name).is_dir():
            raise UserError(f"{url}: the text folder has no {name}")
    try:
        with no_progress_bars():
            model, found = kind.from_pretrained(
                folder / part, dtype=dtype or "auto", local_files_only=True, output_loading_info=True
            )
        tokenizer = AutoTokenizer.from_pretrained(folder / f"{part}_tokenizer", local_files_only=True)
    # transformers reports weights of another shape as RuntimeError.
    except (OSError, ValueError, RuntimeError, SafetensorError) as broken:
        raise UserError(f"{url}: {part} or {part}_tokenizer does not load: {str(broken).splitlines()[0]}") from broken
    if found["missing_keys"]:
        raise UserError(f"{url}: {part} lacks the weight {min(found['missing_keys'])}")
    return TextModel(model.to(device).eval().requires_grad_(False), tokenizer)


def _architectures(url: str, folder: Path, part: str) -> list[str]:
    path = folder / part / "config.json"
    if not path.exists():
        raise UserError(f"{url}: the text folder has no {part}/config.json")
    return json.loads(path.read_text()).get("architectures") or []


def _detached(view: Tensor) -> Tensor:
    with torch.inference_mode(mode=False):
        return view.clone()
