"""How items fared: plans and receipts joined, and the committed rows read back."""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rayramid.models import storage
from rayramid.pipelines.job import Row
from rayramid.pipelines.ledger import Ledger, LedgerError
from rayramid.pipelines.parquet import open_parquet
from rayramid.pipelines.plan import Shard
from rayramid.pipelines.receipts import Failure, Receipt

_READERS = 8


@dataclass(frozen=True)
class Outcome:
    """One item's result: the file that holds its rows, what its receipt repeats, and why it failed if it did."""

    item_id: str
    file: str
    facts: Mapping[str, Any]
    failure: Failure | None


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a job's items at hand; `rows` are the results of those that are ok, in the items' order."""

    job: str
    items: int
    by_item: Mapping[str, Outcome]
    rows: Mapping[str, list[Row]] = field(default_factory=dict)

    @property
    def failures(self) -> list[Failure]:
        """Of all items that failed."""
        return [outcome.failure for outcome in self.by_item.values() if outcome.failure is not None]

    def ledger(self) -> Ledger:
        """The job's ledger; not yet checked."""
        failed = len(self.failures)
        return Ledger(
            job=self.job,
            inputs=self.items,
            ok=len(self.by_item) - failed,
            failed=failed,
            pending=self.items - len(self.by_item),
            outputs=sum(map(len, self.rows.values())),
        )


def outcomes_of(
    root: str, job: str, item_ids: Collection[str], shards: Iterable[Shard], receipts: Mapping[str, Receipt]
) -> Outcomes:
    """The outcomes of these items, with their rows (tensor columns are left where they are).

    Shards come in the order of generations, so what a retry commits replaces the failure before it.
    """
    wanted = set(item_ids)
    found: dict[str, Outcome] = {}
    for shard in shards:
        receipt = receipts.get(shard.shard_id)
        if receipt is None or wanted.isdisjoint(shard.item_ids):
            continue
        if receipt.ok + len(receipt.failures) != len(shard.item_ids):
            raise LedgerError(
                f"{job} shard {shard.shard_id}: {len(shard.item_ids)} items, "
                f"but {receipt.ok} ok + {len(receipt.failures)} failed"
            )
        failures = {failure.item_id: failure for failure in receipt.failures}
        for item_id in shard.item_ids:
            if item_id in wanted:
                facts = receipt.facts.get(item_id, {})
                found[item_id] = Outcome(item_id, receipt.file, facts, failures.get(item_id))
    by_item = {item_id: found[item_id] for item_id in item_ids if item_id in found}
    return Outcomes(job, len(wanted), by_item, _rows(root, by_item))


def _rows(root: str, outcomes: Mapping[str, Outcome]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {item_id: [] for item_id, outcome in outcomes.items() if outcome.failure is None}
    files = sorted({outcomes[item_id].file for item_id in rows})
    with ThreadPoolExecutor(_READERS) as pool:
        for file, table in zip(files, pool.map(lambda file: _scalars(storage.join(root, file)), files), strict=True):
            for row in table.to_pylist():
                item_id = row["item_id"]
                # A retried item's earlier row lies in another file.
                if item_id in rows and outcomes[item_id].file == file:
                    rows[item_id].append(row)
    return rows


def _scalars(url: str) -> pa.Table:
    file = open_parquet(url)
    tensors = {column.name for column in file.schema_arrow if column.type == pa.large_binary()}
    return file.read([name for name in file.schema_arrow.names if name not in tensors])
