"""`rayramid demo`: real clips to a dataset, the shipped model trained on them, and an endpoint, in one Ray cluster."""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
import yaml
from pydantic import BaseModel

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.cluster import connect
from rayramid.platform.console import progress, result, say
from rayramid.platform.spec import load_spec

if TYPE_CHECKING:
    from rayramid.pipelines.curate import Summary
    from rayramid.pipelines.spec import DataSpec
    from rayramid.platform.training.run import TrainResult
    from rayramid.platform.training.spec.train import TrainSpec
    from rayramid.serve.spec import ServeSpec

# A caption that the shipped model was never trained on.
PROMPT = "a blue circle moves quickly right on a pink background"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path("runs/demo"),
    prompt: Annotated[str, typer.Option(help="What the endpoint is asked for.")] = PROMPT,
) -> None:
    """Make a dataset of four real clips, fine-tune the shipped model on it, and ask that model for a video by HTTP.

    Takes a few minutes on two cores.

    Run again with the same folder, it goes on from what is there.

    Example: rayramid demo --out runs/demo
    """
    started = time.monotonic()
    out = out.absolute()
    storage.check_writable(str(out))
    with _alone(out), connect():
        data_spec = cast("DataSpec", _spec(out, "data", "data", [f"root={out / 'data'}"]))
        train_spec = cast(
            "TrainSpec",
            _spec(out, "finetune", "train", [f"output={out / 'finetune'}", f"phases.0.data=[{out / 'data'}]"]),
        )
        serve_spec = cast("ServeSpec", _spec(out, "serve", "serve", [f"store={out / 'serve'}", "port=0"]))
        curated = _curate(data_spec)
        trained = _train(train_spec)
        video = _generate(serve_spec, prompt, out / "video.mp4")
    _report(out, curated, trained, video, prompt, time.monotonic() - started)


def _curate(spec: "DataSpec") -> "Summary":
    from rayramid.pipelines import curate

    say("1/3  data: four real clips are cut into shots, scored, captioned and encoded (Ray Data)")
    with progress() as update:
        summary = curate.run(spec, on_progress=update)
    for line in summary.lines():
        say(f"     {line}")
    return summary


def _train(spec: "TrainSpec") -> "TrainResult":
    from rayramid.platform.training.run import train

    say(f"2/3  training: the shipped model learns from them on {spec.workers.most} workers (Ray Train)")
    with progress() as update:
        trained = train(spec, on_progress=partial(update, "steps"))
    say(f"     {trained.steps} steps, loss {trained.final_loss:.3f}")
    return trained


def _generate(spec: "ServeSpec", prompt: str, path: Path) -> Path:
    from rayramid.serve.app import deploy
    from rayramid.serve.client import Client
    from rayramid.serve.wire import CreateVideo

    say("3/3  serving: the shipped model answers on an endpoint (Ray Serve)")
    url = deploy(spec)
    say(f"     POST {url}/v1/videos  prompt={prompt!r}")
    client = Client(url)
    wanted = CreateVideo(prompt=prompt, seed=4)
    with progress() as update:
        video = client.wait(client.create(wanted), on_progress=lambda event: update("video", event.progress, 100))
    client.save(video.id, path)
    return path


def _report(out: Path, curated: "Summary", trained: "TrainResult", video: Path, prompt: str, seconds: float) -> None:
    specs = out / "specs"
    result(f"\nDone in {seconds:.0f} s. What was made:")
    for name, place in (
        ("video", video),
        ("report", curated.report),
        ("dataset", curated.root),
        ("tuned", trained.folder),
        ("metrics", trained.places["metrics"]),
        ("specs", specs),
    ):
        result(f"  {name:<8} {place}")
    result("The video is by the model that comes with rayramid, trained on a world of moving shapes (docs/sprites.md).")
    result("The tuned one has seen a dozen real clips for a minute besides: it shows that training works, no more.")
    result("What to try next:")
    result("  rayramid sample --prompt 'a white circle moves quickly left on a navy background' --out sample.mp4")
    result(f"  rayramid serve {specs / 'serve.yaml'}")
    result(f"  rayramid train {specs / 'finetune.yaml'} --set phases.0.steps=1000 --set output={out / 'longer'}")
    result("  rayramid init my-specs        # specs of your own to start from")


def _spec(out: Path, name: str, kind: str, overrides: Sequence[str]) -> BaseModel:
    """The shipped spec `name`, with its paths below `out`; a copy is left there to run again."""
    with resources.as_file(resources.files("rayramid.specs") / f"{name}-local.yaml") as shipped:
        spec = load_spec(shipped, overrides, kind=kind)
    path = out / "specs" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return spec


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds `out` for this process; a UserError if another demo is at work there."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another demo is at work in {out}; wait for it, or name another folder by --out") from None
        yield
