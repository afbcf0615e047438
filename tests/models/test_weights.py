"""Weight files: every published form reads to the same tensors; every defect is one line that names file and key."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rayramid.models.errors import UserError
from rayramid.models.weights import Entry, load_strict, read_entries, read_weights, write_weights

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


def sharded(folder, suffix, save):
    shards = {f"x-00001-of-00002.{suffix}": ["a.weight"], f"x-00002-of-00002.{suffix}": ["b.bias"]}
    for file, keys in shards.items():
        save({key: TENSORS[key] for key in keys}, folder / file)
    index = folder / f"x.{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": {key: file for file, keys in shards.items() for key in keys}}))
    return str(index)


@pytest.mark.parametrize(("suffix", "save"), [("safetensors", save_file), ("bin", torch.save)])
def test_whole_and_sharded_files_read_alike(tmp_path, suffix, save):
    save(TENSORS, tmp_path / f"whole.{suffix}")
    assert_same(read_weights(str(tmp_path / f"whole.{suffix}")), TENSORS)
    assert_same(read_weights(sharded(tmp_path, suffix, save)), TENSORS)


@pytest.mark.parametrize(("suffix", "save"), [("safetensors", save_file), ("bin", torch.save)])
def test_dtypes_and_shapes_are_known_without_the_values(tmp_path, suffix, save):
    save(TENSORS, tmp_path / f"whole.{suffix}")
    expected = {"a.weight": Entry("float32", (2, 3)), "b.bias": Entry("bfloat16", (2,))}
    assert read_entries(str(tmp_path / f"whole.{suffix}")) == expected
    assert read_entries(sharded(tmp_path, suffix, save)) == expected


def test_written_weights_read_back_bit_for_bit(tmp_path):
    size = write_weights(str(tmp_path / "dit/model.safetensors"), TENSORS)
    assert size == (tmp_path / "dit/model.safetensors").stat().st_size
    assert_same(read_weights(str(tmp_path / "dit/model.safetensors")), TENSORS)


@pytest.mark.parametrize(("suffix", "save"), [("safetensors", save_file), ("bin", torch.save)])
@pytest.mark.parametrize("left", [0, 5, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, suffix, save, left):
    path = tmp_path / f"w.{suffix}"
    save(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    for read in (read_weights, read_entries):
        with pytest.raises(UserError, match=rf"w\.{suffix}: not a whole weight file") as raised:
            read(str(path))
        assert "\n" not in str(raised.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"a": pytest.raises}, tmp_path / "evil.bin")
    with pytest.raises(UserError, match=r"evil\.bin: damaged, or it holds more than tensors"):
        read_weights(str(tmp_path / "evil.bin"))


def test_a_pickle_of_something_else_says_what_it_holds(tmp_path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "training.bin")
    with pytest.raises(UserError, match=r"training\.bin: key model holds a dict, not a tensor"):
        read_weights(str(tmp_path / "training.bin"))


def test_a_missing_file_and_a_missing_shard_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.safetensors: no such weight file"):
        read_weights(str(tmp_path / "none.safetensors"))
    index = sharded(tmp_path, "safetensors", save_file)
    (tmp_path / "x-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"x-00002-of-00002\.safetensors: no such weight file"):
        read_weights(index)


def test_a_shard_that_disagrees_with_the_index_names_shard_and_key(tmp_path):
    index = sharded(tmp_path, "safetensors", save_file)
    save_file({"c.weight": torch.ones(1)}, tmp_path / "x-00002-of-00002.safetensors")
    with pytest.raises(UserError, match=r"x-00002-of-00002\.safetensors: key c\.weight is not in this shard"):
        read_weights(index)
    save_file({}, tmp_path / "x-00002-of-00002.safetensors")
    with pytest.raises(UserError, match=r"x-00002-of-00002\.safetensors: key b\.bias is missing"):
        read_weights(index)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a.weight": 3}}'])
def test_an_index_of_another_form_is_named(tmp_path, index):
    (tmp_path / "x.bin.index.json").write_text(index)
    with pytest.raises(UserError, match=r"x\.bin\.index\.json: .*weight_map"):
        read_weights(str(tmp_path / "x.bin.index.json"))


def test_strict_loading_names_file_and_key():
    linear = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strict(linear, good, "f.bin")
    assert torch.equal(linear.weight, torch.ones(2, 3))
    for bad, message in [
        ({"weight": good["weight"]}, r"f\.bin: key bias is missing"),
        ({**good, "scale": torch.ones(1)}, r"f\.bin: key scale belongs to no part"),
        ({**good, "weight": torch.ones(3, 2)}, r"f\.bin: weight has shape \[3, 2\], this model needs \[2, 3\]"),
    ]:
        with pytest.raises(UserError, match=message):
            load_strict(linear, bad, "f.bin")
