"""Prompt files of VBench and EvalCrafter, the videos that each wants under which names, and how they are scored.

VBench (Huang et al. 2024): five videos `{prompt}-{sample}.mp4` of each prompt in one folder, and 25 of those for
temporal_flickering, of which its static filter keeps the still ones. EvalCrafter (Liu et al. 2024): one video
`{number}.mp4` of each line, from 0000.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.evaluation.suites.spec import SuiteSpec

SAMPLES = 5
FLICKERING = "temporal_flickering"
FLICKERING_SAMPLES = 25
LONGEST_NAME = 255
# The prompts' copy in a suite's output, if they are a VBench_full_info.json.
FULL_INFO = "full_info.json"
# Seeds of a prompt's samples lie side by side, those of another prompt far from them.
SEEDS_PER_PROMPT = 1000

# Dimensions that VBench judges on another one's prompts.
ALSO = {
    "subject_consistency": ("motion_smoothness", "dynamic_degree"),
    "overall_consistency": ("aesthetic_quality", "imaging_quality"),
    "scene": ("background_consistency",),
}
# Files of the folder prompts_per_dimension that repeat the others.
SUMMARIES = {"all_dimension", "overall"}


@dataclass(frozen=True)
class Prompt:
    """A prompt, its place in the suite, and the dimensions that are judged on it (none known in plain files)."""

    number: int
    text: str
    dimensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """One video of a suite: its file name, prompt, the place of that prompt, which sample of it, and its seed."""

    file: str
    prompt: str
    number: int
    sample: int
    seed: int


def wanted(spec: SuiteSpec) -> list[Wanted]:
    """Every video that the spec asks for, in the suite's order.

    Raises:
        UserError: no prompts there, a dimension that has none, or a prompt that can't be a file's name.
    """
    prompts = read_prompts(spec.prompts)
    if spec.dimensions is not None:
        known = sorted({dimension for prompt in prompts for dimension in prompt.dimensions})
        for dimension in spec.dimensions:
            if dimension not in known:
                raise UserError(
                    f"dimensions: {spec.prompts} has no prompts for {dimension!r};"
                    f" it has {', '.join(known) or 'no dimensions'}"
                )
        prompts = [prompt for prompt in prompts if set(spec.dimensions) & set(prompt.dimensions)]
    videos = [
        Wanted(_name(spec, prompt, sample), prompt.text, prompt.number, sample, _seed(spec.seed, prompt.number, sample))
        for prompt in prompts[: spec.first]
        for sample in range(_samples(spec, prompt))
    ]
    for video in videos:
        if "/" in video.file or len(video.file.encode()) > LONGEST_NAME:
            raise UserError(
                f"{spec.prompts}: no file can be named {video.file!r}; VBench names videos by their prompts"
            )
    return videos


def read_prompts(url: str) -> list[Prompt]:
    """The prompts of a file or folder, each once, in the order in which they first come.

    `.json` is VBench_full_info.json; other files have a prompt a line; a folder has such a file per dimension.
    """
    if url.endswith(".json"):
        entries = [
            (str(entry["prompt_en"]), tuple(entry["dimension"])) for entry in json.loads(storage.read_bytes(url))
        ]
    elif url.endswith(".txt"):
        entries = [(line, ()) for line in _lines_of(url)]
    else:
        files = {file.rpartition("/")[2].removesuffix(".txt"): file for file in storage.list_files(url, ".txt")}
        entries = [
            (line, (name, *ALSO.get(name, ())))
            for name, file in sorted(files.items())
            if name not in SUMMARIES
            for line in _lines_of(file)
        ]
    dimensions: dict[str, dict[str, None]] = {}
    for text, of in entries:
        dimensions.setdefault(text, {}).update(dict.fromkeys(of))
    if not dimensions:
        raise UserError(f"{url}: no prompts here; a .txt file has one a line, a folder one such file per dimension")
    return [Prompt(number, text, tuple(of)) for number, (text, of) in enumerate(dimensions.items())]


def scoring(spec: SuiteSpec, dimensions: Sequence[str]) -> list[str]:
    """What to type in a checkout of the benchmark, in its own environment, to score the videos.

    Args:
        spec: of the suite.
        dimensions: those of VBench that are to be scored.
    """
    # Of an output that is not here, its names in a copy of it.
    videos, info = (
        shlex.quote(name if (path := storage.local_path(storage.join(spec.output, name))) is None else str(path))
        for name in ("videos", FULL_INFO)
    )
    if spec.layout == "evalcrafter":
        return [
            'docker run --runtime=nvidia -it --shm-size 15G -v "$EC_path:$EC_path"'
            f" -v {videos}:{videos} bruceliu1/evalcrafter:v1 bash -c"
            f' "source /opt/conda/bin/activate EvalCrafter && bash $EC_path/start.sh $EC_path {videos}"'
        ]
    evaluate = "python evaluate.py"
    # Without it, VBench reads the file of its own checkout.
    if spec.prompts.endswith(".json"):
        evaluate += f" --full_json_dir {info}"
    commands = []
    if FLICKERING in dimensions:
        commands += [
            f"python static_filter.py --videos_path {videos} --result_path still",
            f"{evaluate} --videos_path still/filtered_videos --dimension {FLICKERING}",
        ]
    if others := [dimension for dimension in dimensions if dimension != FLICKERING]:
        commands.append(f"{evaluate} --videos_path {videos} --dimension {' '.join(others)}")
    return commands


def _lines_of(url: str) -> list[str]:
    text = storage.read_bytes(url).decode("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _samples(spec: SuiteSpec, prompt: Prompt) -> int:
    if spec.layout == "evalcrafter":
        return 1
    return spec.samples or (FLICKERING_SAMPLES if FLICKERING in prompt.dimensions else SAMPLES)


def _name(spec: SuiteSpec, prompt: Prompt, sample: int) -> str:
    return f"{prompt.number:04d}.mp4" if spec.layout == "evalcrafter" else f"{prompt.text}-{sample}.mp4"


def _seed(seed: int, number: int, sample: int) -> int:
    return seed + SEEDS_PER_PROMPT * number + sample
