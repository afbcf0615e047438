"""The datasets of a run: opened at fixed versions, checked against each other, turned into indexes to plan from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from rayramid.models.errors import UserError
from rayramid.pipelines import manifest
from rayramid.pipelines.dataset import LatentDataset
from rayramid.platform.training.index import ClipTable, Index, Measure
from rayramid.platform.training.outline import OutlinedDataset, is_missing
from rayramid.platform.training.spec.curriculum import Phase, Root
from rayramid.platform.training.spec.train import TrainSpec


@dataclass(frozen=True, eq=False)
class Datasets:
    """Every dataset of a spec, by what the spec says of it."""

    by_root: Mapping[tuple[str, int | None], LatentDataset]

    def of(self, root: Root) -> LatentDataset:
        """The dataset that `root` names."""
        return self.by_root[root.root, root.version]

    def all(self) -> Iterable[LatentDataset]:
        """All of them, in the order of the spec."""
        return self.by_root.values()

    @property
    def outlined(self) -> tuple[str, ...]:
        """The roots of those that are not there yet."""
        return tuple(root for (root, _), dataset in self.by_root.items() if isinstance(dataset, OutlinedDataset))

    @property
    def first(self) -> LatentDataset:
        """The one whose VAE and text encoders go into the exported model; all others have the same."""
        return next(iter(self.by_root.values()))


@dataclass(frozen=True)
class Origin:
    """What made the latents and texts that something knows.

    Attributes:
        name: of the something, a dataset or a model.
        vae: fingerprint of the VAE; empty when unknown.
        text: fingerprint of the text encoders; empty when unknown.
    """

    name: str
    vae: str
    text: str


def open_datasets(spec: TrainSpec, model: Origin | None = None, *, outlines: bool = False) -> Datasets:
    """Opens what the spec reads.

    Args:
        spec: the run.
        model: that the run starts from, if it starts from one.
        outlines: whether a dataset that is missing may be an outline.

    Raises:
        UserError: a dataset is missing, or its latents come from another VAE or its texts from other encoders than the
            model's or the first dataset's; both are named.
    """
    opened: dict[tuple[str, int | None], LatentDataset] = {}
    known = [] if model is None else [model]
    for root in (root for phase in spec.phases for root in phase.data):
        if (root.root, root.version) in opened:
            continue
        if outlines and root.outline is not None and is_missing(root):
            opened[root.root, root.version] = OutlinedDataset(root.root, root.outline)
            continue
        dataset = LatentDataset.open(root.root, root.version)
        own = Origin(root.root, dataset.vae_fingerprint, dataset.text_fingerprint)
        for other in known:
            for part, found, expected in (("VAE", own.vae, other.vae), ("text encoder", own.text, other.text)):
                if expected and found != expected:
                    raise UserError(
                        f"{own.name} was made with the {part} {found}, {other.name} with {expected}; "
                        f"encode both with the same {part}"
                    )
        known = known if len(known) > (model is not None) else [*known, own]
        opened[root.root, root.version] = dataset
    return Datasets(opened)


def pin_versions(spec: TrainSpec, versions: Mapping[str, int], *, outlines: bool = False) -> TrainSpec:
    """The spec with every open version replaced by the one in `versions`, or else by the newest there is.

    With `outlines`, a dataset that is missing and has one stays open.
    """
    newest: dict[str, int] = dict(versions)

    def pinned(root: Root) -> Root:
        if root.version is not None or (outlines and is_missing(root)):
            return root
        if root.root not in newest:
            newest[root.root] = manifest.read(root.root)["version"]
        return root.model_copy(update={"version": newest[root.root]})

    phases = tuple(
        phase.model_copy(update={"data": tuple(pinned(root) for root in phase.data)}) for phase in spec.phases
    )
    return spec.model_copy(update={"phases": phases})


def index_of(
    phase: Phase, datasets: Datasets, measure: Measure, frames_per_unit: int | None, split: str = "train"
) -> Index:
    """The clips of `split` that `phase` reads."""
    return Index(
        videos=_tables("video", phase, datasets, measure, frames_per_unit, split),
        images=_tables("image", phase, datasets, measure, frames_per_unit, split),
    )


def _tables(
    kind: Literal["video", "image"],
    phase: Phase,
    datasets: Datasets,
    measure: Measure,
    frames_per_unit: int | None,
    split: str,
) -> tuple[ClipTable, ...]:
    tables = []
    for number, root in enumerate(phase.data):
        dataset = datasets.of(root)
        rows = _rows(dataset.index, kind, phase.buckets, phase.latents, split)
        if rows:
            columns = ["latent_id", "t", "h", "w", "caption_ids", "text_lens"]
            tables.append(
                ClipTable(
                    root=number,
                    kind=kind,
                    table=dataset.index.select(columns).take(rows),
                    rows=rows,
                    weight=root.weight,
                    scale=dataset.scale if isinstance(dataset, OutlinedDataset) else 1.0,
                    empty_caption=(dataset.empty_caption_id, _empty_length(dataset)),
                    frames_per_unit=frames_per_unit,
                    measure=measure,
                )
            )
    return tuple(tables)


def _rows(index: pa.Table, kind: str, buckets: Sequence[str] | None, latents: int, split: str) -> list[int]:
    keep = pc.and_(pc.equal(index["kind"], kind), pc.equal(index["split"], split))
    if kind == "video":
        keep = pc.and_(keep, pc.greater_equal(index["t"], latents))
    if buckets is not None:
        keep = pc.and_(keep, pc.is_in(index["bucket"], pa.array(buckets)))
    return pc.indices_nonzero(keep).to_pylist()


def _empty_length(dataset: LatentDataset) -> int:
    found = dataset.text_index.filter(pc.equal(dataset.text_index["caption_id"], dataset.empty_caption_id))
    return int(found["text_len"][0].as_py())
