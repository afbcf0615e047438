import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.text import load_text, text_fingerprint
from rayramid.models.tiny import write_tiny_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("text")
    write_tiny_text(folder)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return load_text(str(folder))


def test_only_real_tokens_come_back(text):
    short, long, empty = text.encode(["a red circle", "a red circle moves left slowly", ""])
    assert short.tokens_LD.shape == (4, 64)  # a, red, circle, end
    assert long.tokens_LD.shape[0] > 4
    assert empty.tokens_LD.shape == (1, 64)  # the end mark alone
    assert {embedding.pooled_P.shape for embedding in (short, long, empty)} == {(64,)}
    assert (text.text_dim, text.pooled_dim) == (64, 64)


def test_a_prompt_is_embedded_the_same_alone_and_in_company(text):
    alone = text.encode(["a red circle"])[0]
    in_company = text.encode(["a man walks along a very long street in the rain", "a red circle"])[1]
    torch.testing.assert_close(in_company.tokens_LD, alone.tokens_LD, atol=1e-5, rtol=0)
    torch.testing.assert_close(in_company.pooled_P, alone.pooled_P, atol=1e-5, rtol=0)


def test_embeddings_are_ordinary_tensors_of_their_own(text):
    embedding = text.encode(["a red circle", "a"])[1]
    assert embedding.tokens_LD.dtype == embedding.pooled_P.dtype == torch.float32
    assert not embedding.tokens_LD.is_inference()
    assert embedding.tokens_LD.untyped_storage().nbytes() == 4 * embedding.tokens_LD.numel()


def test_ten_thousand_words_are_cut_to_128_tokens_and_the_loss_is_named_once_per_prompt(text, caplog):
    long = "word " * 10_000
    with caplog.at_level(logging.WARNING):
        first, second = text.encode([long, long])
    assert first.tokens_LD.shape == (128, 64)
    assert torch.equal(first.tokens_LD, second.tokens_LD)
    # 10,000 words and the end mark are 10,001 tokens.
    assert [record.getMessage() for record in caplog.records] == [
        "prompt of 10001 tokens is cut to 128; 9873 tokens are lost, its beginning is "
        "'word word word word word word word word '"
    ]


def test_exactly_128_tokens_are_not_cut(text, caplog):
    with caplog.at_level(logging.WARNING):
        assert text.encode(["word " * 127])[0].tokens_LD.shape == (128, 64)
    assert not caplog.records


def test_any_characters_are_accepted(text):
    embedding = text.encode(["日本語 🎬 \n\t «ß» \x00"])[0]
    assert embedding.tokens_LD.isfinite().all()
    assert len(embedding.tokens_LD) > 5


def test_no_prompts_give_no_embeddings(text):
    assert text.encode([]) == []


def test_tiny_encoders_tell_captions_apart(text):
    same, colour, other = text.encode(
        ["a red circle moves left", "a blue circle moves left", "two people ride in the street"]
    )
    per_token = cosine_similarity(same.tokens_LD, colour.tokens_LD)
    assert per_token[1] < 0.6  # red against blue
    assert per_token[[0, 2, 3]].min() > 0.7  # the words beside it are still themselves
    assert per_token[4:].min() > 0.98  # and the others do not hear of it
    assert 0.5 < cosine_similarity(same.pooled_P, colour.pooled_P, dim=0) < 0.95
    assert cosine_similarity(same.pooled_P, other.pooled_P, dim=0) < 0.5


def test_tiny_tokens_tell_which_words_belong_together(text):
    one, other = text.encode(
        ["a red circle grows and a blue square stays", "a blue circle grows and a red square stays"]
    )
    per_token = cosine_similarity(one.tokens_LD, other.tokens_LD)
    # The same words in the same places, but another circle and another square than before.
    assert per_token[[2, 7]].max() < 0.95


def test_tiny_folders_depend_on_the_seed_alone(folder, tmp_path):
    write_tiny_text(tmp_path / "again", seed=0)
    write_tiny_text(tmp_path / "other", seed=1)
    assert text_fingerprint(str(tmp_path / "again")) == text_fingerprint(str(folder))
    assert text_fingerprint(str(tmp_path / "other")) != text_fingerprint(str(folder))


def test_fingerprint_follows_the_files(text, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert text_fingerprint(str(copy)) == text.fingerprint
    weights = copy / "t5" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert text_fingerprint(str(copy)) != text.fingerprint


def test_a_text_folder_lives_on_s3(text, folder, s3_bucket):
    storage.sync_up(folder, f"{s3_bucket}/text")
    remote = load_text(f"{s3_bucket}/text")
    assert torch.equal(remote.encode(["a red circle"])[0].tokens_LD, text.encode(["a red circle"])[0].tokens_LD)
    assert remote.fingerprint == text.fingerprint
    storage.delete(f"{s3_bucket}/text/t5/config.json")
    storage.delete(f"{s3_bucket}/text/t5/model.safetensors")
    with pytest.raises(UserError, match=f"{s3_bucket}/text: the text folder has no t5"):
        load_text(f"{s3_bucket}/text")


def test_sd3_concatenates_the_projected_vectors_of_two_clips(folder, tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    fields = json.loads((folder / "clip_l" / "config.json").read_text())
    sizes = {key: fields[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    clips = []
    for name, projection in (("clip_l", 24), ("clip_g", 40)):
        config = CLIPTextConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=projection,
            **sizes,
        )
        clips.append(CLIPTextModelWithProjection(config).eval())
        clips[-1].save_pretrained(tmp_path / name)
    shutil.copytree(folder / "clip_l_tokenizer", tmp_path / "clip_g_tokenizer")
    text = load_text(str(tmp_path))
    assert text.pooled_dim == 64
    pooled = text.encode(["a red circle"])[0].pooled_P
    ids = text.clips[0].tokenizer("a red circle", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = torch.cat([clip(ids).text_embeds[0] for clip in clips])
    torch.testing.assert_close(pooled, expected)


def test_the_dtype_of_the_models_can_be_chosen(folder):
    text = load_text(str(folder), dtype=torch.bfloat16)
    embedding = text.encode(["a red circle"])[0]
    assert text.t5.model.dtype == torch.bfloat16
    assert embedding.tokens_LD.dtype == torch.float32


@pytest.mark.parametrize("part", ["t5", "t5_tokenizer", "clip_l", "clip_l_tokenizer"])
def test_a_missing_part_is_named(folder, tmp_path, part):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / part)
    with pytest.raises(UserError, match=f"{tmp_path}: the text folder has no {part}"):
        load_text(str(tmp_path))


def test_a_truncated_file_is_one_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "t5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{tmp_path}: t5 or t5_tokenizer does not load"):
        load_text(str(tmp_path))


def test_a_missing_weight_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "clip_l" / "model.safetensors"
    weights = load_file(path)
    del weights["final_layer_norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="clip_l lacks the weight final_layer_norm"):
        load_text(str(tmp_path))


def test_a_weight_of_another_shape_is_one_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "t5" / "model.safetensors"
    weights = load_file(path)
    weights["shared.weight"] = weights["shared.weight"][:, :32].contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="t5 or t5_tokenizer does not load") as error:
        load_text(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def test_clip_weights_with_the_prefix_of_released_files_load(text, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "clip_l" / "model.safetensors"
    weights = {f"text_model.{key}": weight for key, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    released = load_text(str(tmp_path)).encode(["a red circle"])[0]
    assert torch.equal(released.pooled_P, text.encode(["a red circle"])[0].pooled_P)
