"""Official conditioning with parts of shared context: each by hand, and all together, which is shared context."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rayramid.models.dit.config import SHARED_PARTS, DiTConfig, SharedPart
from rayramid.models.dit.embeddings import positions
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.flops import is_visible
from rayramid.models.importers.dit import architecture_of, initial_weights
from rayramid.models.objective import TrainingClip, training_pack
from rayramid.models.presets import preset
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.sequence import Clip, Pack, Piece, Prompt, assemble
from rayramid.models.text import TextEmbedding

OFFICIAL = DiTConfig(
    heads=2,
    head_dim=8,
    double_blocks=1,
    single_blocks=1,
    text_dim=6,
    pooled_dim=5,
    rope_axes=(4, 2, 2),
    latent_channels=3,
    levels=3,
    conditioning="official",
)
TABLE = replace(OFFICIAL, double_blocks=2, single_blocks=0, rope_axes=(8, 0, 0), position_table=16, position_base=8)
EXACT = 1e-10

pytestmark = pytest.mark.usefixtures("one_thread")


def row(config: DiTConfig) -> Pack:
    """Text, a slightly noisy history at levels 2 and 1, and a target of level 1: nine tokens after the text's two."""
    latents = [torch.zeros(3, 1, 8 >> level, 16 >> level) for level in (2, 1, 1)]
    pieces = (
        Piece("context", 0, 2, latents[0], 30.0, 0),
        Piece("context", 1, 1, latents[1], 30.0, 1),
        Piece("target", 2, 1, latents[2], 700.0, 2),
    )
    return assemble([Clip((Prompt(torch.zeros(2, 6), torch.zeros(5)),), pieces)], config)


def with_parts(*parts: SharedPart) -> DiTConfig:
    return replace(OFFICIAL, shared_parts=parts)


def random_dit(config: DiTConfig) -> DiT:
    dit = DiT(config).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return dit


def clips() -> list[TrainingClip]:
    """The last three of four units, and an image."""
    generator = torch.Generator().manual_seed(2)

    def clip(key: int, latents: int, first: int, units: int) -> TrainingClip:
        text, pooled = torch.randn(4, 6, generator=generator), torch.randn(5, generator=generator)
        latent = torch.randn(3, latents, 8, 16, generator=generator)
        return TrainingClip(latent.double(), text.double(), pooled.double(), first, units, key)

    return [clip(0, 4, 1, 3), clip(1, 1, 0, 1)]


def velocities(dit: DiT) -> list[Tensor]:
    with torch.no_grad():
        return dit(training_pack(clips(), dit.config, Pyramid(), seed=0)[0])


def apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("parts", "told"),
    [((), [700.0, 700.0, 700.0, 700.0]), (("own_time",), [0.0, 30.0, 30.0, 700.0])],
    ids=["official", "own_time"],
)
def test_with_own_time_only_the_target_is_told_its_timestep(parts: tuple[SharedPart, ...], told: list[float]) -> None:
    assert [segment.timestep for segment in row(with_parts(*parts)).segments] == told


@pytest.mark.parametrize(
    ("parts", "causal", "seen"),
    [
        ((), True, ["xx..", "xx..", "xxx.", "xxxx"]),
        (("own_text",), True, ["x...", "xx..", "xxx.", "xxxx"]),
        (("own_text",), False, ["x...", "xxxx", "xxxx", "xxxx"]),
    ],
    ids=["official", "own_text", "bidirectional"],
)
def test_with_own_text_text_sees_text_alone(parts: tuple[SharedPart, ...], causal: bool, seen: list[str]) -> None:
    config = replace(with_parts(*parts), causal=causal)
    segments = row(config).segments
    found = ["".join("x" if is_visible(config, query, key) else "." for key in segments) for query in segments]
    assert found == seen


@pytest.mark.parametrize(
    ("parts", "columns"),
    # Cells of the target's own grid, or of the full one of 4 x 8, of which a token covers 4 x 4 or 2 x 2.
    [((), [0.5, 2.5, 0, 1, 2, 3]), (("one_grid",), [1.5, 5.5, 0.5, 2.5, 4.5, 6.5])],
    ids=["official", "one_grid"],
)
def test_with_one_grid_positions_are_those_of_the_full_resolution(
    parts: tuple[SharedPart, ...], columns: list[float]
) -> None:
    _, coarse, fine, target = row(with_parts(*parts)).segments
    time_row_column = positions([coarse, fine]).tolist()
    assert [time for time, _, _ in time_row_column] == [0.0] * 2 + [1.0] * 8
    assert [column for _, _, column in time_row_column] == columns + columns[2:]
    assert [line for _, line, _ in time_row_column] == [columns[0]] * 2 + [columns[2]] * 4 + [columns[3]] * 4
    assert positions([target])[:, 1:].tolist() == positions([fine])[:, 1:].tolist()


def test_roles_tell_text_history_and_target_and_the_level() -> None:
    dit = random_dit(with_parts("roles"))
    assert [dit._role(segment) for segment in row(dit.config).segments] == [0, 3, 2, 5]
    (velocity,) = dit(row(dit.config))
    velocity.square().sum().backward()
    for roles in (dit.role_tokens, dit.role_times):
        assert roles.grad is not None
        assert roles.grad.any(1).tolist() == [True, False, True, True, False, True, False]
    assert not hasattr(DiT(with_parts("own_time", "own_text", "one_grid")), "role_tokens")


@pytest.mark.parametrize("base", [OFFICIAL, TABLE], ids=["rope", "table"])
def test_all_parts_together_are_shared_context_with_a_sequence_for_each_target(base: DiTConfig) -> None:
    official = random_dit(replace(base, shared_parts=SHARED_PARTS))
    shared = random_dit(replace(base, conditioning="shared_context"))
    expected = [-velocity for velocity in velocities(shared)]
    assert apart(velocities(official), expected) < EXACT
    for number in range(len(SHARED_PARTS)):
        parts = SHARED_PARTS[:number] + SHARED_PARTS[number + 1 :]
        lacking = DiT(replace(base, shared_parts=parts)).double()
        lacking.load_state_dict(official.state_dict(), strict="roles" in parts)
        assert apart(velocities(lacking), expected) > 1e-3, parts


def sample(dit: DiT) -> Tensor:
    generator = torch.Generator().manual_seed(3)

    def text(words: int) -> TextEmbedding:
        tokens = torch.randn(words, 6, generator=generator).double()
        return TextEmbedding(tokens, torch.randn(5, generator=generator).double())

    asked = Request(text(4), 8, 16, 3, ((1, 1, 1), (1, 2, 1)), negative=text(1), guidance=3.0, video_guidance=2.0)
    return torch.cat([unit.latent_CTHW for unit in Sampler(dit, Pyramid()).generate(asked)], dim=1)


def test_a_video_of_all_parts_is_that_of_shared_context_with_the_sign_turned() -> None:
    official = random_dit(replace(OFFICIAL, shared_parts=SHARED_PARTS))
    shared = initial_weights(official, replace(OFFICIAL, conditioning="shared_context")).double().eval()
    ours, theirs = sample(official), sample(shared)
    assert ours.std() > 0.1
    assert (ours - theirs).abs().max() <= EXACT * theirs.abs().max()


def test_a_video_is_another_with_each_part() -> None:
    plain = random_dit(OFFICIAL)
    videos = [sample(initial_weights(plain, with_parts(part))) for part in ("own_time", "own_text", "one_grid")]
    assert all(apart([one], [other]) > 1e-3 for one, other in itertools.combinations([*videos, sample(plain)], 2))


def test_added_roles_begin_as_nothing_and_are_kept() -> None:
    plain = random_dit(OFFICIAL)
    begun = initial_weights(plain, with_parts("roles"))
    assert apart(velocities(begun), velocities(plain)) == 0
    trained = random_dit(with_parts("roles"))
    assert torch.equal(initial_weights(trained, with_parts("own_time", "roles")).role_tokens, trained.role_tokens)


def test_the_published_code_has_none_of_them() -> None:
    config = replace(preset("miniflux-2b"), conditioning="official", shared_parts=("own_time", "one_grid"))
    with pytest.raises(UserError, match="shared_parts are own_time, one_grid: the published code has none of them"):
        architecture_of(config)
