"""Seeded miniature text encoders in ordinary `transformers` folders, for demos and tests without any download.

Nothing in them is trained. The weights are drawn so that what a DiT needs still holds: T5's tokens keep the identity of
their words and tell of their neighbours, and CLIP's pooled vector is a mixture of all words of the prompt.
"""

import gzip
import importlib.util
import math
from pathlib import Path
from typing import Any

import torch

from rayramid.models.text import no_progress_bars

DIM = 64
"""Values of a token embedding, and of a pooled one."""
MERGES = 16_000
"""Merges of CLIP's tokenizer that are kept: common English words stay whole."""
NEIGHBOURS = (-1, 1, -2, 2, 3, 4)
"""The distances at which T5's heads look: in "red circle moves quickly left", red tells of all that is said of it."""
WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def write_tiny_text(folder: str | Path, seed: int = 0) -> None:
    """Write `t5`, `t5_tokenizer`, `clip_l` and `clip_l_tokenizer` into `folder`, for `text.load_text`.

    Token embeddings have 64 values, pooled ones 64. Equal seeds give equal files; folders are made as needed.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    folder = Path(folder)
    clip_tokenizer = _tokenizer(start="<|startoftext|>", end="<|endoftext|>", pad="<|endoftext|>", limit=77)
    t5_tokenizer = _tokenizer(start=None, end="</s>", pad="<pad>", limit=512)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=DIM,
            intermediate_size=2 * DIM,
            projection_dim=DIM,
            num_hidden_layers=1,
            num_attention_heads=4,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=DIM,
            d_kv=16,
            d_ff=2 * DIM,
            num_layers=1,
            num_heads=len(NEIGHBOURS),
            feed_forward_proj="gated-gelu",
            pad_token_id=t5_tokenizer.pad_token_id,
            eos_token_id=t5_tokenizer.eos_token_id,
        )
    )
    _draw(t5, seed)
    _draw(clip, seed + 1)
    with torch.no_grad():
        # The pooled vector is read where the prompt ends: an end mark of its own would drown the words.
        clip.get_input_embeddings().weight[clip_tokenizer.eos_token_id] = 0
    parts = {"t5": t5, "t5_tokenizer": t5_tokenizer, "clip_l": clip, "clip_l_tokenizer": clip_tokenizer}
    with no_progress_bars():
        for name, part in parts.items():
            part.save_pretrained(folder / name)


@torch.no_grad()
def _draw(model: Any, seed: int) -> None:
    """Fill the weights in the order of their names: words strong, positions weak, attention wide, the rest gentle."""
    chance = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if weight.ndim == 1:
            weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        if "relative_attention_bias" in name:
            _attend_neighbours(weight)
            continue
        if "position" in name:
            deviation = 0.1
        elif "token_embedding" in name or "shared" in name:
            deviation = 1.0
        else:
            deviation = 1 / math.sqrt(weight.shape[1])
            if any(part in name for part in (".q.", ".k.", "q_proj", "k_proj", "DenseReluDense.wo", "fc2")):
                deviation /= 4
        weight.copy_(torch.randn(weight.shape, generator=chance) * deviation)


def _attend_neighbours(bias_BN: torch.Tensor) -> None:
    """Let each of T5's heads attend to the token at one distance, nearly to that alone.

    `bias_BN` has a row for every bucket of distances; the first half of the buckets is for tokens behind, the second
    for tokens ahead, and the small distances have a bucket each.
    """
    ahead = bias_BN.shape[0] // 2
    bias_BN.zero_()
    for head, distance in enumerate(NEIGHBOURS):
        bias_BN[abs(distance) + ahead * (distance > 0), head] = 8.0


def _tokenizer(start: str | None, end: str, pad: str, limit: int) -> Any:
    """CLIP's byte-pair tokenizer with fewer merges, and the special tokens of either encoder."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    merges = _clip_merges()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = dict.fromkeys(token for token in (pad, start, end) if token)
    words = [*special, *alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=pad))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}" if start else f"$A {end}",
        special_tokens=[(token, vocabulary[token]) for token in special],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=pad, model_max_length=limit
    )


def _clip_merges() -> list[tuple[str, str]]:
    """The first merges of the list that the package open_clip brings; the package itself is not imported."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    packed = Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode().split("\n")[1 : MERGES + 1]
    return [(left, right) for left, right in (line.split() for line in lines)]
