import zlib

import pyarrow.parquet as pq
import pytest

from rayramid.pipelines.latents import LATENT_SCHEMA, TEXT_SCHEMA, LatentWriter


def rows(count, size):
    return [{"latent_id": f"id{i}", "bucket": "b", "latent": bytes([i]) * (size + i)} for i in range(count)]


@pytest.mark.parametrize(("rows_per_group", "groups"), [(1, 5), (2, 3), (32, 1)])
def test_every_tensor_is_where_its_place_says(tmp_path, rows_per_group, groups):
    path = tmp_path / "a.parquet"
    written = rows(5, 1000)
    writer = LatentWriter(path, LATENT_SCHEMA, rows_per_group)
    writer.write(written)
    places = [place["latent"] for place in writer.close()]
    data = path.read_bytes()
    assert [data[p.offset : p.offset + p.length] for p in places] == [row["latent"] for row in written]
    assert [(p.row_group, p.row) for p in places] == [(i // rows_per_group, i % rows_per_group) for i in range(5)]
    assert [p.crc32 for p in places] == [zlib.crc32(row["latent"]) for row in written]
    assert pq.read_metadata(path).num_row_groups == groups


def test_parquet_readers_see_the_same_values(tmp_path):
    path = tmp_path / "a.parquet"
    writer = LatentWriter(path, LATENT_SCHEMA, 2)
    writer.write(rows(3, 10))
    writer.close()
    table = pq.read_table(path)
    assert table["latent"].to_pylist() == [row["latent"] for row in rows(3, 10)]
    assert table.schema.metadata[b"rayramid.format"] == b"latents/v1"
    column = pq.read_metadata(path).row_group(0).column(table.schema.get_field_index("latent"))
    assert column.compression == "UNCOMPRESSED"
    assert not column.has_dictionary_page


def test_a_row_without_a_tensor_has_no_place(tmp_path):
    writer = LatentWriter(tmp_path / "a.parquet", LATENT_SCHEMA, 4)
    first, failed, last = rows(3, 10)
    writer.write([first, {**failed, "latent": None}, last])
    places = writer.close()
    assert [sorted(place) for place in places] == [["latent"], [], ["latent"]]
    assert places[2]["latent"].length == 12


def test_a_captions_two_tensors_are_neighbours(tmp_path):
    writer = LatentWriter(tmp_path / "a.parquet", TEXT_SCHEMA, 1)
    writer.write([{"caption_id": "c", "tokens": b"t" * 500, "pooled": b"p" * 60}])
    (place,) = writer.close()
    gap = place["pooled"].offset - (place["tokens"].offset + place["tokens"].length)
    assert 0 < gap < 200


def test_no_rows_make_a_file_of_no_rows(tmp_path):
    writer = LatentWriter(tmp_path / "a.parquet", LATENT_SCHEMA, 1)
    assert writer.close() == []
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0
