"""Checks of what is installed: versions, decoders and encoders, GPUs as torch sees them."""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from rayramid.platform.doctor.finding import GIB, Finding

# Their versions decide the most.
SHOWN = ("ray", "torch", "transformers", "pyarrow")
CODECS = ("h264", "hevc", "vp9", "av1", "libx264")
FRAMES = 9


def python(found: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """The interpreter."""
    text = ".".join(map(str, found))
    if found < (3, 11):
        return Finding("python", "fail", text, "install Python 3.11 or newer")
    return Finding("python", "ok", text)


def packages(wanted: Sequence[str] | None = None) -> Finding:
    """What rayramid requires, by its own metadata unless `wanted` says otherwise."""
    lines = requires("rayramid") or [] if wanted is None else wanted
    wrong = [problem for line in lines if (problem := _problem(Requirement(line)))]
    if wrong:
        asked = " ".join(f"'{requirement}'" for requirement, _ in wrong)
        return Finding("packages", "fail", ", ".join(text for _, text in wrong), f"pip install {asked}")
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return Finding("packages", "ok", shown)


def _problem(requirement: Requirement) -> tuple[str, str] | None:
    """The requirement that is not met, without its marker, and what is there in its place."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    asked = f"{requirement.name}{requirement.specifier}"
    try:
        there = version(requirement.name)
    except PackageNotFoundError:
        return asked, f"{requirement.name} is missing"
    if requirement.specifier.contains(there, prereleases=True):
        return None
    return asked, f"{requirement.name} {there} where {requirement.specifier} is needed"


def gpus() -> Iterator[Finding]:
    """The GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            text = f"{device.name}, {device.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
            if torch.cuda.is_bf16_supported():
                yield Finding(f"gpu {index}", "ok", text)
            else:
                yield Finding(f"gpu {index}", "warn", f"{text}, no bf16", "set dtype: float32 in specs; expect it slow")
    elif Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists():
        advice = "compare 'nvidia-smi' with torch.version.cuda, and install the torch of your driver's CUDA"
        yield Finding("gpu", "fail", f"a driver is there, but torch {torch.__version__} can't use it", advice)
    else:
        yield Finding("gpu", "warn", "none", "the examples need none; train and serve at size on a machine with GPUs")


def codecs() -> Finding:
    """PyAV's decoders, and the encoder of the videos that are made."""
    import av
    from av.codec import codecs_available

    missing = [name for name in CODECS if name not in codecs_available]
    release = re.sub(r"[^\d.].*", "", str(av.ffmpeg_version_info))
    text = f"PyAV {av.__version__}, FFmpeg {release}"
    if missing:
        advice = "install PyAV's own wheel (pip install --force-reinstall --no-deps av), which has them"
        return Finding("codecs", "fail", f"{text}, without {', '.join(missing)}", advice)
    return Finding("codecs", "ok", f"{text}: {', '.join(CODECS)}")


def decoding() -> Finding:
    """A video is made and read again, by decord where it is there."""
    from rayramid.models.media.errors import DecodeError
    from rayramid.models.media.read import read_frames
    from rayramid.models.media.write import write_mp4

    with tempfile.TemporaryDirectory(prefix="rayramid-doctor-") as folder:
        path = Path(folder) / "probe.mp4"
        frames = [np.full((64, 64, 3), 20 * index, np.uint8) for index in range(FRAMES)]
        write_mp4(path, frames, 8.0)
        try:
            read = np.concatenate(list(read_frames(path)))
        except DecodeError as error:
            return Finding("decoding", "fail", str(error), "reinstall decord and av")
    if len(read) != FRAMES or np.abs(read.astype(int) - np.stack(frames)).max() > 8:
        return Finding("decoding", "fail", "a video that was written reads differently", "reinstall decord and av")
    try:
        import decord
    except ImportError:
        advice = "x86-64 has wheels (pip install decord); elsewhere PyAV decodes, at half the speed for some files"
        return Finding("decoding", "warn", "PyAV alone; decord is not there", advice)
    return Finding("decoding", "ok", f"decord {decord.__version__}, {FRAMES} frames written and read")
