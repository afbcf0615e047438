"""Peak memory of whole videos, each measured in a process of its own."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np, torch
from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.streaming import decode_video, encode_video

torch.set_num_threads(1)
torch.manual_seed(0)
vae = CausalVAE(VAEConfig(encoder_channels=(16,) * 4, encoder_layers=(1,) * 4,
                          decoder_channels=(16,) * 4, decoder_layers=(1,) * 4, norm_groups=4)).eval()
direction, latents = sys.argv[1], int(sys.argv[2])
frames = np.zeros((8, 96, 96, 3), dtype=np.uint8)

def video():
    yield frames[:1]
    for _ in range(latents - 1):
        yield frames

def peak():
    # Of this process alone: ru_maxrss begins with what its parent had.
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])

before = peak()
if direction == "encode":
    encode_video(vae, video())
else:
    for piece in decode_video(vae, torch.zeros(16, latents, 12, 12)):
        pass
print(peak() - before)
"""


def peak(direction: str, latents: int) -> int:
    command = [sys.executable, "-c", SCRIPT, direction, str(latents)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
# If it grew with the frames it would be ten times as much; what encoding takes varies from run to run.
@pytest.mark.parametrize(("direction", "within"), [("encode", 1.6), ("decode", 1.3)])
def test_memory_does_not_grow_with_the_length_of_the_video(direction, within):
    short, long = peak(direction, 4), peak(direction, 31)  # 25 and 241 frames
    assert short > 10_000  # KiB: the measure sees something
    assert long <= within * short
