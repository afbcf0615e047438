"""What a dataset, a run, its model and a video leave behind: the way back to the clips, and no secret."""

import dataclasses
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caption_server import Server
from corpus import spec

from rayramid.models.card import load_card
from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.models.provenance import provenance
from rayramid.pipelines import curate
from rayramid.platform.lineage import lineage
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.serve.acceptance import Acceptance
from rayramid.serve.job import Model, new_id
from rayramid.serve.spec import Limits
from rayramid.serve.store import Store
from rayramid.serve.wire import CreateVideo

PLANTED = "planted-7d0c1f"
SECRETS = {
    **{name: f"{PLANTED}-{name}" for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")},
    **{name: f"{PLANTED}-{name}" for name in ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "CAPTION_KEY")},
    "MLFLOW_TRACKING_URI": f"https://me:{PLANTED}-password@mlflow.example.com",
}


@dataclass(frozen=True)
class Chain:
    """Where its parts are, and what the captions' endpoint was shown as keys."""

    folder: Path
    root: str
    output: str
    model: str
    store: str
    video_id: str
    file: str
    keys: list[str]


@pytest.fixture(scope="module")
def chain(in_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Four clips, a run of one step, its model, and a finished video in a store; with secrets in the environment."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("chain")
    log = logging.FileHandler(folder / "everything.log")
    logging.getLogger().addHandler(log)
    captions = Server()
    threading.Thread(target=captions.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setattr(logging.getLogger(), "level", logging.DEBUG)
        patch.setattr(logging.getLogger("rayramid"), "level", logging.DEBUG)
        root = str(folder / "data")
        sources = [{"sprites": {"clips": 4, "width": 64, "height": 64, "frames": 9}}]
        endpoint = {"url": captions.url, "model": "m", "key_variable": "CAPTION_KEY"}
        wanted = spec(root, sources=sources, caption={"endpoint": endpoint, "frames": 2}, split={"val": 0})
        assert curate.run(wanted).kept == 4
        yield finish(folder, root, captions.keys)
    captions.shutdown()
    captions.server_close()
    logging.getLogger().removeHandler(log)


def finish(folder: Path, root: str, keys: list[str]) -> Chain:
    """From the dataset on."""
    phase = {"name": "only", "data": [root], "steps": 1, "learning_rate": 1e-3, "tokens_per_bin": 200}
    run_spec = {
        "kind": "train",
        "output": str(folder / "run"),
        "model": {"preset": "tiny"},
        "phases": [phase | {"bins_per_step": 1}],
        "precision": "float32",
    }
    settled = settle(TrainSpec.model_validate(run_spec))
    run(settled, Ranks(1, 0, torch.device("cpu")), lambda step, record: None)
    folder_of_model = export(settled)
    store = Store(str(folder / "store"))
    request = CreateVideo(prompt="a cat", seed=7)
    model = Model.of(load_card(folder_of_model), "mine")
    job = Acceptance(Limits()).creation(request, model, new_id(), "me", image=False)
    store.add(job)
    file = folder / "store" / "videos" / job.id / "video.mp4"
    said = provenance(
        model=job.model, model_version=job.model_version, seed=7, prompts=job.brief.prompts, video_id=job.id
    )
    write_mp4(file, np.zeros((2, 64, 64, 3), np.uint8), 8, metadata={"comment": said})
    return Chain(folder, root, settled.output, folder_of_model, store.url, job.id, str(file), keys)


def files_with(text: str, folder: Path) -> list[str]:
    """The files that hold a text, in the cells of tables too."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            cells = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else ""
            if text in cells or text.encode() in path.read_bytes():
                found.append(str(path.relative_to(folder)))
    return found


def test_secrets_are_used_and_written_nowhere(chain: Chain) -> None:
    assert set(chain.keys) == {f"Bearer {SECRETS['CAPTION_KEY']}"}
    # What is looked for is found where there is some.
    assert {"everything.log", "run/metrics.jsonl", "run/model/rayramid.json"} <= set(files_with("a", chain.folder))
    assert any(name.startswith("data/captions/") for name in files_with("A wall of brightness", chain.folder))
    assert files_with(PLANTED, chain.folder) == []


def test_a_file_an_id_and_a_model_lead_to_the_same_clips(chain: Chain) -> None:
    by_file = lineage(chain.file, models=[str(chain.folder)], clips=True)
    by_id = lineage(chain.video_id, chain.store, models=[str(chain.folder)], clips=True)
    by_model = lineage(chain.model, clips=True)
    assert [hop.what for hop in by_file] == ["video", "model", "run", "checkpoint", "dataset", "vae"]
    assert by_file[1:] == by_id[1:] == by_model
    assert not any(hop.missing for hop in (*by_file, *by_id))
    assert (by_file[0].facts["seed"], by_id[0].facts["prompts"]) == (7, {0: "a cat"})
    model, ran, checkpoint, dataset, vae = by_model
    assert (model.place, model.facts["step"]) == (chain.model, 1)
    assert (ran.place, ran.facts["phases"]) == (chain.output, "only: 1 steps")
    assert checkpoint.place == f"{chain.output}/checkpoints/step-00000001"
    assert (dataset.place, dataset.facts["version"], dataset.facts["sources"]) == (chain.root, 1, 4)
    assert len({clip["clip_id"] for clip in dataset.clips}) == 4
    assert vae.place.startswith(chain.root)
    json.dumps([dataclasses.asdict(hop) for hop in by_file])
    assert "  sources         4" in dataset.lines()


def test_what_is_gone_is_said_and_the_rest_is_shown(chain: Chain, tmp_path: Path) -> None:
    def missing(start: str) -> dict[str, str]:
        return {hop.what: hop.missing for hop in lineage(start, chain.store, [str(chain.folder)]) if hop.missing}

    def away(place: str) -> None:
        shutil.move(place, tmp_path / Path(place).name)

    def back(place: str) -> None:
        shutil.move(tmp_path / Path(place).name, place)

    for place, what, said in (
        (chain.file, "video", "the file was not made, or is gone"),
        (f"{chain.model}/dit/model.safetensors", "model", "weights: dit/model.safetensors"),
        (f"{chain.output}/checkpoints", "checkpoint", "it is not kept; there are steps: none"),
        (chain.root, "dataset", f"{chain.root}: no dataset here; make one with `rayramid data run SPEC`"),
        (f"{chain.root}/latents", "dataset", "2 of 4 files, the first is latents/"),
    ):
        away(place)
        found = missing(chain.video_id)
        back(place)
        assert set(found) == {what}
        assert said in found[what]
    _, model = lineage(chain.video_id, chain.store)
    assert model.missing.endswith("(looked: nowhere; name a place with --models)")


def test_what_comes_from_nowhere_is_one_line(tmp_path: Path) -> None:
    write_mp4(tmp_path / "other.mp4", np.zeros((2, 64, 64, 3), np.uint8), 8)
    (tmp_path / "text.mp4").write_text("no video")
    nobody = "video_" + "0" * 28
    for start, store, message in (
        (str(tmp_path / "other.mp4"), None, "does not say which model made it"),
        (str(tmp_path / "text.mp4"), None, "not a video that can be read"),
        (str(tmp_path / "none.mp4"), None, "no such file"),
        (nobody, None, "name the endpoint's store with --store"),
        (nobody, str(tmp_path), "no such video in"),
    ):
        with pytest.raises(UserError, match=message):
            lineage(start, store)
