"""The whole data path: sources, five jobs, a version, a report. Started again, it does only what is new."""

import logging
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines import encoders, manifest, receipts, tables
from rayramid.pipelines import plan as plans
from rayramid.pipelines.curation import Curation, walk
from rayramid.pipelines.encoders import Encoder
from rayramid.pipelines.execute import begin, execute
from rayramid.pipelines.ledger import Ledger, LedgerError
from rayramid.pipelines.outcomes import Outcomes, outcomes_of
from rayramid.pipelines.publish import publish, write_failures
from rayramid.pipelines.removals import read_removals
from rayramid.pipelines.report import run_facts, write_report
from rayramid.pipelines.sources import list_sources
from rayramid.pipelines.spec import JOBS, DataSpec, JobName
from rayramid.pipelines.stages import Work

log = logging.getLogger(__name__)

# (job, shards done, shards in all)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Summary:
    """What a run did: the jobs' ledgers, the fates of all clips, the version and the report.

    `latest` is the version that training reads unless told otherwise.
    """

    root: str
    ledgers: tuple[Ledger, ...]
    version: int | None
    new_version: bool
    latest: int | None
    kept: int
    rejected: int
    failed: int
    pending: int
    report: str
    seconds: float

    def lines(self) -> list[str]:
        """For people: one line per ledger, then the outcome."""
        ledgers = [
            f"{ledger.job:<8} {ledger.inputs} inputs = {ledger.ok} ok + {ledger.failed} failed"
            + (f" ({ledger.pending} pending)" if ledger.pending else "")
            + (f" -> {ledger.outputs} clips" if ledger.job == "shots" else "")
            for ledger in self.ledgers
        ]
        fates = f"clips    {self.kept} kept + {self.rejected} rejected + {self.failed} failed"
        if self.version is None:
            version = "no version: nothing is kept" + (" yet" if self.latest is None else f"; v{self.latest} stays")
        else:
            version = f"version  v{self.version} ({'new' if self.new_version else 'unchanged'})"
            if self.latest != self.version:
                version += f"; v{self.latest} stays the latest: it has clips that are not in this part of the corpus"
        return [*ledgers, fates, version, f"report   {self.report}"]


@dataclass(frozen=True)
class Pending:
    """What a run would do in one job, as far as it can be known now."""

    job: str
    inputs: int
    done: int
    pending: int


def run(
    spec: DataSpec,
    only: str | None = None,
    limit: int | None = None,
    on_progress: Progress | None = None,
    sources: pa.Table | None = None,
) -> Summary:
    """Do what is missing, make a version if anything changed, write the report. Expects Ray to be initialised.

    Args:
        spec: the whole data path.
        only: do this job alone, on what the others have done before.
        limit: take the first so many sources. The version of such a part does not replace one with more in it.
        on_progress: called with (job, shards done, shards in all).
        sources: instead of the spec's, as `list_sources` gives them.

    Raises:
        UserError: no sources, a root that cannot be written, an encoder that is not there.
        LedgerError: a job's inputs are not its ok and failed rows.
    """
    started = time.monotonic()
    storage.check_writable(spec.root)
    sources = list_sources(spec.sources, spec.split.val) if sources is None else sources
    limited = limit is not None and limit < sources.num_rows
    jobs = _jobs(only)
    name = uuid.uuid4().hex[:12]
    seconds: dict[str, float] = {}

    def perform(work: Work) -> Outcomes:
        began = time.monotonic()
        if work.job in jobs:
            _do(spec, name, work, on_progress)
        outcomes = _look_up(spec.root, work)
        seconds[work.job] = round(time.monotonic() - began, 2)
        if work.job in jobs:
            outcomes.ledger().check()
        return outcomes

    removals = read_removals(spec.root)
    curation = walk(spec, sources.slice(0, limit), removals, perform, _MadeNow(spec, jobs))
    fates = {fate: curation.count(fate) for fate in ("kept", "rejected", "failed", "pending")}
    write_failures(spec.root, curation)
    facts = run_facts(seconds)
    version, new = publish(spec, curation, removals, facts.code, limited=limited)
    summary = Summary(
        root=spec.root,
        ledgers=tuple(curation.ledgers[job] for job in JOBS),
        version=version,
        new_version=new,
        latest=manifest.latest(spec.root),
        **fates,
        report=storage.join(spec.root, "report", "index.html"),
        seconds=round(time.monotonic() - started, 2),
    )
    write_report(spec, curation, summary.ledgers, version, facts)
    log.info("curation done", extra={"root": spec.root, "version": version, **fates})
    return summary


def survey(spec: DataSpec) -> Curation:
    """The corpus as what is committed tells: nothing is done, no Ray is needed."""
    sources = list_sources(spec.sources, spec.split.val)
    return walk(spec, sources, read_removals(spec.root), lambda work: _look_up(spec.root, work), _Recorded(spec))


def plan(spec: DataSpec, limit: int | None = None) -> list[Pending]:
    """What `run` would do, without doing it: sources are listed, nothing is decoded, no Ray is needed."""
    waiting: dict[str, int] = {}

    def look_up(work: Work) -> Outcomes:
        planned = plans.read_plans(spec.root, work.job)
        # What is to be tried again has an outcome, and yet is to be done.
        left = planned.left(receipts.committed(spec.root, work.job))["item_id"]
        again = work.items.filter(tables.within(work.items["item_id"], left))
        waiting[work.job] = planned.missing(work.items).num_rows + again.num_rows
        return _look_up(spec.root, work)

    sources = list_sources(spec.sources, spec.split.val).slice(0, limit)
    curation = walk(spec, sources, read_removals(spec.root), look_up, _Recorded(spec))
    ledgers = [curation.ledgers[job] for job in JOBS]
    pending = [waiting.get(ledger.job, ledger.pending) for ledger in ledgers]
    return [
        Pending(ledger.job, ledger.inputs, ledger.inputs - count, count)
        for ledger, count in zip(ledgers, pending, strict=True)
    ]


class _Recorded:
    """Encoders as far as they are known without making any."""

    def __init__(self, spec: DataSpec) -> None:
        self._spec = spec

    def text(self) -> Encoder | None:
        choice = self._spec.embed.text
        return encoders.made(self._spec.root, "text") if choice == "tiny" else encoders.text_encoder("", choice)

    def vae(self, clips: pa.Table) -> Encoder | None:
        choice = self._spec.encode.vae
        return encoders.made(self._spec.root, "vae") if choice == "pca" else encoders.vae_encoder("", choice, (), 0)


class _MadeNow:
    """Encoders made in the cluster where they are missing and this run's jobs need them."""

    def __init__(self, spec: DataSpec, jobs: Collection[JobName]) -> None:
        self._spec = spec
        self._jobs = jobs
        self._recorded = _Recorded(spec)
        # The text encoder depends on no clip: it is made while the first jobs run.
        self._text = None
        if "embed" in jobs and (spec.embed.text != "tiny" or encoders.made(spec.root, "text") is None):
            self._text = begin(encoders.text_encoder, spec.workers.embed, spec.root, spec.embed.text)

    def text(self) -> Encoder | None:
        return self._recorded.text() if self._text is None else self._text()

    def vae(self, clips: pa.Table) -> Encoder | None:
        spec = self._spec
        if "encode" not in self._jobs or (spec.encode.vae == "pca" and encoders.made(spec.root, "vae")):
            return self._recorded.vae(clips)
        sample = encoders.sample(clips)
        return begin(
            encoders.vae_encoder, spec.workers.encode, spec.root, spec.encode.vae, sample, spec.decode.deadline_s
        )()


def _jobs(only: str | None) -> Collection[JobName]:
    if only is None:
        return JOBS
    chosen = tuple(job for job in JOBS if job == only)
    if not chosen:
        raise UserError(f"there is no job {only!r}; the jobs are {', '.join(JOBS)}")
    return chosen


def _do(spec: DataSpec, name: str, work: Work, on_progress: Progress | None) -> None:
    """Plan the items that no plan holds yet, then do every shard that has wanted items and no receipt."""
    workers = spec.workers.of(work.job)
    planned = plans.read_plans(spec.root, work.job)
    new = planned.missing(work.items)
    if new.num_rows:
        plans.write_plans(spec.root, work.job, plans.cut(new, work.largest, workers.count), generation=0)
        planned = plans.read_plans(spec.root, work.job)
    waiting = planned.waiting(work.items["item_id"], receipts.committed(spec.root, work.job))
    done = 0

    def report_progress() -> None:
        if on_progress is not None:
            on_progress(work.job, done, len(waiting))

    def on_shard() -> None:
        nonlocal done
        done += 1
        report_progress()

    if waiting:
        report_progress()
        execute(spec.root, name, work.recipe, waiting, workers, on_shard)
    if done != len(waiting):
        raise LedgerError(f"{work.job}: {len(waiting)} shards were given out, {done} came back")


def _look_up(root: str, work: Work) -> Outcomes:
    planned = plans.read_plans(root, work.job)
    return outcomes_of(root, work.job, planned, work.items["item_id"], work.columns)
