import logging
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayramid.models import storage
from rayramid.pipelines import receipts
from rayramid.pipelines.job import Row
from rayramid.pipelines.ledger import LedgerError
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.plan import Item, read_plans, read_shard, write_plans
from rayramid.pipelines.worker import work


class Doubling:
    """A job that doubles numbers, refuses odd ones above 10, and dies on 13 (as a crash would: no exception)."""

    columns_out = pa.schema([("number", pa.int64()), ("double", pa.int64())])
    facts: tuple[str, ...] = ("double",)

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.calls: list[list[int]] = []

    def rows_per_group(self, row: Row) -> int:
        return 64

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        numbers = [row["number"] for row in rows]
        self.calls.append(numbers)
        if 13 in numbers:
            raise KeyboardInterrupt
        if any(number > 10 and number % 2 for number in numbers):
            raise ValueError(f"odd one\nin {numbers}")
        return [[{"number": number, "double": 2 * number}] for number in numbers]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR)


def planned_shard(root, numbers):
    write_plans(root, "score", [[Item(f"i{number}", {"number": number}) for number in numbers]], 0)
    (shard,) = read_plans(root, "score").shards
    return read_shard("score", shard.plan, shard.row_group)


def rows_of(root, receipt):
    return pq.read_table(pa.BufferReader(storage.read_bytes(storage.join(root, receipt.file)))).to_pylist()


def done(root, job, numbers, run="r"):
    return work(root, run, job, *planned_shard(root, numbers))


def test_a_shard_becomes_one_file_and_one_receipt(root):
    receipt = done(root, Doubling(), [1, 2])
    assert (receipt.rows, receipt.ok, receipt.failures, receipt.attempt) == (2, 2, (), 1)
    assert receipt.facts == {"i1": {"double": 2}, "i2": {"double": 4}}
    rows = rows_of(root, receipt)
    assert [(row["item_id"], row["status"], row["double"]) for row in rows] == [("i1", "ok", 2), ("i2", "ok", 4)]
    assert receipts.read_receipts(root, "score", lambda receipt: receipt) == {receipt.shard_id: receipt}
    assert receipts.committed(root, "score") == {receipt.shard_id}


def test_a_bad_row_fails_alone_with_its_reason(root):
    receipt = done(root, Doubling(batch=3), [1, 11, 2])
    assert receipt.ok == 2
    (failure,) = receipt.failures
    assert (failure.item_id, failure.error, failure.message) == ("i11", "ValueError", "odd one in [11]")
    rows = rows_of(root, receipt)
    assert [(row["number"], row["status"], row["error"]) for row in rows] == [
        (1, "ok", None),
        (11, "failed", "ValueError"),
        (2, "ok", None),
    ]


def test_a_committed_shard_is_not_done_again(root):
    first = done(root, Doubling(), [1, 2])
    job = Doubling()
    assert done(root, job, [1, 2]) == first
    assert job.calls == []


def test_an_input_that_kills_its_worker_twice_is_set_apart(root):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            done(root, Doubling(batch=3), [1, 13, 2])
    job = Doubling(batch=3)
    receipt = done(root, job, [1, 13, 2])
    assert [(failure.item_id, failure.error) for failure in receipt.failures] == [("i13", "Quarantined")]
    assert (receipt.ok, receipt.attempt) == (2, 3)
    assert job.calls == [[1], [2]]


def test_deaths_with_the_driver_accuse_no_input(root):
    for run in ("a", "b", "c"):
        with pytest.raises(KeyboardInterrupt):
            done(root, Doubling(), [1, 13], run)
    assert receipts.begin(root, "score", planned_shard(root, [1, 13])[0].shard_id, "d")[1] == set()


def test_of_two_workers_on_one_shard_the_first_receipt_holds(root):
    shard, items = planned_shard(root, [1])

    class Slow(Doubling):
        def __call__(self, rows):
            self.rival = work(root, "r", Doubling(), shard, items)
            return super().__call__(rows)

    slow = Slow()
    receipt = work(root, "r", slow, shard, items)
    assert receipt == slow.rival
    assert receipt.attempt == 2
    assert len(list(storage.list_files(storage.join(root, "scores")))) == 2


DOUBLE = pa.schema([("double", pa.int64())])


def outcomes(root, *item_ids):
    wanted = pa.chunked_array([item_ids]) if item_ids else None
    return outcomes_of(root, "score", read_plans(root, "score"), wanted, DOUBLE)


def test_outcomes_count_what_is_done_and_what_is_not(root):
    receipt = done(root, Doubling(), [1, 11])
    found = outcomes(root, "i1", "i11", "i99")
    ledger = found.ledger()
    assert (ledger.inputs, ledger.ok, ledger.failed, ledger.pending, ledger.outputs) == (3, 1, 1, 1, 1)
    assert found.rows.to_pylist() == [{"item_id": "i1", "double": 2, "file": receipt.file}]
    assert [failure.item_id for failure in found.failures] == ["i11"]
    with pytest.raises(LedgerError, match="3 inputs, but 1 ok \\+ 1 failed \\+ 1 pending"):
        ledger.check()


def test_outcomes_without_names_are_those_of_all_that_was_planned(root):
    assert outcomes(root).ledger().inputs == 0
    done(root, Doubling(), [1, 11])
    write_plans(root, "score", [[Item("i2", {"number": 2})]], 0)
    ledger = outcomes(root).ledger()
    assert (ledger.inputs, ledger.ok, ledger.failed, ledger.pending) == (3, 1, 1, 1)


def test_a_receipt_that_lost_an_item_is_an_error(root):
    shard, _ = planned_shard(root, [1, 2])
    lost = {"job": "score", "shard_id": shard.shard_id, "file": "a", "sha256": "", "bytes": 0, "rows": 1, "ok": 1}
    receipts.commit(root, receipts.Receipt(**lost, attempt=1, seconds=0.0, failures=(), facts={}))
    with pytest.raises(LedgerError, match="2 items, but 1 ok \\+ 0 failed"):
        outcomes(root, "i1")


def test_a_retry_replaces_the_failure_before_it(root):
    done(root, Doubling(), [1, 11])
    write_plans(root, "score", [[Item("i11", {"number": 4})]], generation=1)
    retried = next(shard for shard in read_plans(root, "score").shards if shard.generation == 1)
    work(root, "r", Doubling(), *read_shard("score", retried.plan, retried.row_group))
    found = outcomes(root, "i1", "i11")
    assert not found.failures
    assert {row["item_id"]: row["double"] for row in found.rows.to_pylist()} == {"i1": 2, "i11": 8}
