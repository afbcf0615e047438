"""The seeded text encoder: nothing in it is trained, and yet what is said of each thing can be read off its tokens."""

import pytest
import torch
from torch.nn.functional import one_hot

from rayramid.models.sprites.captions import write
from rayramid.models.sprites.draw import draw_scene
from rayramid.models.text import load_text
from rayramid.models.tiny import write_tiny_text


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_tiny_text(folder)
    return load_text(str(folder))


@pytest.mark.parametrize("told", ["shape", "motion"])
def test_a_colours_token_tells_by_a_linear_map_what_is_said_of_it_and_not_of_the_others(encoder, told):
    demands = [demand for index in range(1500) if (demand := draw_scene(3, index, 64, 64, 9).demand).passing is None]
    texts = encoder.encode([write(demand) for demand in demands])
    tokens, answers = [], []
    for demand, text in zip(demands, texts, strict=True):
        pieces = encoder.t5.tokenizer.tokenize(write(demand))
        for actor in demand.actors:
            tokens.append(text.tokens_LD[pieces.index(f"{actor.colour}</w>")])
            answers.append(getattr(actor, told))
    names = sorted(set(answers))
    seen_ND = torch.cat([torch.stack(tokens), torch.ones(len(tokens), 1)], dim=1)
    said_N = torch.tensor([names.index(answer) for answer in answers])
    learnt = len(tokens) // 2
    map_DK = torch.linalg.lstsq(seen_ND[:learnt], one_hot(said_N[:learnt]).float()).solution
    right = (seen_ND[learnt:] @ map_DK).argmax(1) == said_N[learnt:]
    assert right.float().mean() > 0.98
