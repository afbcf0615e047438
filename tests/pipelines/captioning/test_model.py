"""A seeded model of a few thousand weights, built from configuration and loaded as a published one is."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from rayramid.models.errors import UserError
from rayramid.pipelines.captioning.model import ModelCaptioner
from rayramid.pipelines.captioning.spec import VisionModel

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} answer{% endif %}"
)
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "what", "is", "this", "answer", *(f"word{n}" for n in range(55))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("llava")
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(place)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=16, patch_size=8, projection_dim=32),
        text_config=LlamaConfig(
            **small, vocab_size=len(WORDS), num_key_value_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3
        ),
        image_token_index=WORDS.index("<image>"),
        image_token_id=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(place)
    return str(place)


def noise(seed, frames):
    return np.random.default_rng(seed).integers(0, 256, (frames, 24, 32, 3), dtype=np.uint8)


def test_a_batch_is_answered_as_each_alone_from_a_folder_and_offline(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    captioner = ModelCaptioner(VisionModel(folder=folder, tokens=6))
    clips = [noise(0, 3), noise(1, 1), noise(2, 2)]
    together = captioner.captions(clips, "what is this")
    assert together == [captioner.captions([clip], "what is this")[0] for clip in clips]
    assert all(text.strip() for text in together)
    assert "what" not in together[0].split()[:1], "the question is not part of the answer"
    assert len(together[0].split()) <= 6


def test_a_model_that_is_not_on_this_machine_is_not_fetched_unless_the_spec_says_so():
    with pytest.raises(UserError, match="nobody/nothing: not on this machine"):
        ModelCaptioner(VisionModel(folder="nobody/nothing"))
