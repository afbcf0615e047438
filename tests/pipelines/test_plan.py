from rayramid.pipelines.plan import Item, cut, planned, read_plans, read_shard, write_plan


def items(count, bucket="b"):
    return [Item(f"{bucket}{i}", {"bucket": bucket, "number": i}) for i in range(count)]


def test_shards_hold_one_bucket_each_and_no_more_than_the_largest():
    shards = cut(items(5, "x") + items(3, "y"), largest=lambda item: 2, workers=1)
    assert [[item.item_id for item in shard] for shard in shards] == [
        ["x0", "x1"],
        ["x2", "x3"],
        ["x4"],
        ["y0", "y1"],
        ["y2"],
    ]


def test_few_items_are_spread_over_the_workers():
    assert [len(shard) for shard in cut(items(8), largest=lambda item: 100, workers=2)] == [2, 2, 2, 2]
    assert [len(shard) for shard in cut(items(1), largest=lambda item: 100, workers=2)] == [1]


def test_a_plan_gives_back_what_was_written(tmp_path):
    shards = [items(2, "x"), items(1, "y")]
    write_plan(str(tmp_path), "score", shards, generation=0)
    found = read_plans(str(tmp_path), "score")
    assert planned(found) == {"x0", "x1", "y0"}
    rows = [read_shard("score", shard.plan, shard.row_group) for shard in found]
    assert {shard.shard_id: [i.item_id for i in shard_items] for shard, shard_items in rows} == {
        shard.shard_id: list(shard.item_ids) for shard in found
    }


def test_the_same_shards_make_the_same_plan_and_another_generation_another(tmp_path):
    first = write_plan(str(tmp_path), "score", [items(2)], generation=0)
    assert write_plan(str(tmp_path), "score", [items(2)], generation=0) == first
    assert write_plan(str(tmp_path), "score", [items(2)], generation=1) != first
    assert [shard.generation for shard in read_plans(str(tmp_path), "score")] == [0, 1]
    assert len({shard.shard_id for shard in read_plans(str(tmp_path), "score")}) == 2
