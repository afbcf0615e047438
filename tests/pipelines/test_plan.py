import pyarrow as pa

from rayramid.pipelines.plan import Item, cut, read_plans, read_shard, write_plans


def items(count, bucket="b"):
    return [Item(f"{bucket}{i}", {"bucket": bucket, "number": i}) for i in range(count)]


def table(items):
    return pa.Table.from_pylist([{"item_id": item.item_id, **item.row} for item in items])


def shards_of(items, largest, workers):
    return [[item.item_id for item in shard] for shard in cut(table(items), lambda item: largest, workers)]


def test_shards_hold_one_bucket_each_and_no_more_than_the_largest():
    mixed = [item for pair in zip(items(3, "y"), items(3, "x"), strict=True) for item in pair] + items(5, "x")[3:]
    assert shards_of(mixed, largest=2, workers=1) == [["x0", "x1"], ["x2", "x3"], ["x4"], ["y0", "y1"], ["y2"]]


def test_few_items_are_spread_over_the_workers():
    assert [len(shard) for shard in shards_of(items(8), largest=100, workers=2)] == [2, 2, 2, 2]
    assert [len(shard) for shard in shards_of(items(1), largest=100, workers=2)] == [1]
    assert shards_of(items(1)[:0], largest=100, workers=2) == []


def test_a_plan_gives_back_what_was_written(tmp_path):
    shards = [items(2, "x"), items(1, "y")]
    write_plans(str(tmp_path), "score", shards, generation=0)
    found = read_plans(str(tmp_path), "score")
    assert sorted(found.items["item_id"].to_pylist()) == ["x0", "x1", "y0"]
    read = [read_shard("score", shard.plan, shard.row_group) for shard in found.shards]
    assert sorted((planned for _, planned in read), key=len) == [shards[1], shards[0]]
    assert [shard for shard, _ in read] == found.shards
    held = [found.shards[number].shard_id for number in found.items["shard"].to_pylist()]
    assert held == [shard.shard_id for shard in found.shards for _ in range(shard.size)]


def test_the_same_shards_make_the_same_plan_and_another_generation_another(tmp_path):
    first = write_plans(str(tmp_path), "score", [items(2)], generation=0)
    assert write_plans(str(tmp_path), "score", [items(2)], generation=0) == first
    assert write_plans(str(tmp_path), "score", [items(2)], generation=1) != first
    shards = read_plans(str(tmp_path), "score").shards
    assert [shard.generation for shard in shards] == [0, 1]
    assert len({shard.shard_id for shard in shards}) == 2


def test_many_shards_are_several_plans(tmp_path, monkeypatch):
    monkeypatch.setattr("rayramid.pipelines.plan.SHARDS_PER_PLAN", 2)
    assert len(write_plans(str(tmp_path), "score", ([item] for item in items(5)), generation=0)) == 3
    assert len(read_plans(str(tmp_path), "score").shards) == 5


def test_what_is_missing_waiting_and_done(tmp_path):
    write_plans(str(tmp_path), "score", [items(2, "x"), items(2, "y")], generation=0)
    write_plans(str(tmp_path), "score", [items(1, "x")], generation=1)
    plans = read_plans(str(tmp_path), "score")
    assert plans.missing(table(items(3, "x")))["item_id"].to_pylist() == ["x2"]
    x, y = (
        next(shard for shard in plans.shards if shard.size == 2 and name in ids_of(plans, shard))
        for name in ("x0", "y0")
    )
    again = plans.shards[-1]
    wanted = pa.chunked_array([["x0", "x2"]])
    assert plans.waiting(wanted, set()) == [x, again]
    assert plans.waiting(wanted, {x.shard_id}) == [again]
    assert plans.left({x.shard_id, y.shard_id})["item_id"].to_pylist() == ["x0"]
    assert places(plans, {x.shard_id}) == {"x0": x, "x1": x}
    assert places(plans, {x.shard_id, again.shard_id}) == {"x0": again, "x1": x}, "what was planned anew, is there"


def ids_of(plans, shard):
    return [row["item_id"] for row in plans.items.to_pylist() if plans.shards[row["shard"]] == shard]


def places(plans, committed):
    return {row["item_id"]: plans.shards[row["shard"]] for row in plans.done(committed).to_pylist()}
