"""What is predicted of a video's work, against a sampler that does it."""

import sys
from subprocess import run

import pytest
import torch

from rayramid.models.dit.config import SHARED_PARTS, DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampler import Request, Sampler
from rayramid.models.text import TextEmbedding
from rayramid.models.workload import workload

SIZES = {"heads": 2, "head_dim": 8, "double_blocks": 1, "single_blocks": 1, "text_dim": 8, "pooled_dim": 8}


def config(**changes):
    return DiTConfig(**SIZES, rope_axes=(4, 2, 2), levels=3, **changes)


def test_by_hand():
    # 8x8 latents, patches of 2: 16 tokens at level 0, 4 at level 1, 1 at level 2. Two units, only the second is guided.
    found = workload(config(), 2, (8, 8), ((1, 2, 3), (1, 1, 1)), (1.0, 3.0), text_tokens=5)
    # Unit 0: text 5, then 1*1 + 2*4 + 3*16. Unit 1, twice: copies 16 + 4 + 1, then 1 + 4 + 16. It sees all of unit 0.
    assert (found.steps, found.tokens) == (9, 5 + 57 + 2 * 42)
    assert found.cached_tokens == 2 * (5 + 21)


@pytest.mark.parametrize(
    ("changes", "latents", "guidance", "given"),
    [
        ({}, 6, (3.0, 2.0), 0),
        ({}, 6, (3.0, 3.0), 3),
        ({"frames_per_unit": 2}, 7, (1.0, 1.0), 1),
        ({"history_units": 2}, 6, (2.0, 2.0), 0),
        ({"conditioning": "official"}, 4, (2.0, 0.0), 0),
        ({"conditioning": "official", "shared_parts": SHARED_PARTS}, 4, (2.0, 0.0), 1),
        ({"frames_per_unit": None, "conditioning": "official", "causal": False}, 3, (2.0, 2.0), 0),
    ],
)
def test_predicted_work_is_the_work_done(changes, latents, guidance, given):
    torch.manual_seed(0)
    dit = DiT(config(**changes)).eval()
    sampler = Sampler(dit, Pyramid(levels=3))
    text = TextEmbedding(torch.randn(5, 8), torch.randn(8))
    steps = ((1, 2, 1), (2, 1, 1))
    session = sampler.start(
        Request(
            text,
            8,
            16,
            latents,
            steps,
            negative=text,
            guidance=guidance[0],
            video_guidance=guidance[1],
            given=torch.randn(16, given, 8, 16) if given else None,
        )
    )
    done = tokens = most = 0
    while not session.done:
        done += 1
        tokens += session.next_tokens
        sampler.step([session])
        most = max(most, session.cache_bytes)
    found = workload(dit.config, latents, (8, 16), steps, guidance, given=given, text_tokens=5)
    assert (found.steps, found.tokens) == (done, tokens)
    # Keys and values of two blocks, two heads of 8 values, in fp32.
    assert found.cached_tokens * 2 * 2 * 2 * 8 * 4 == most


def test_it_needs_no_torch():
    code = "import sys, rayramid.models.workload; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
