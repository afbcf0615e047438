"""Cached, evicting, batched sampling against an oracle that recomputes everything for one video at a time."""

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.pyramid import Pyramid, down
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.noise import keyed_noise
from rayramid.models.sampling.request import Request
from rayramid.models.sequence import Clip, Piece, Prompt, assemble

TEXT, POOLED, CHANNELS = 6, 5, 3


@dataclass(frozen=True)
class Text:
    tokens_LD: Tensor
    pooled_P: Tensor


def text(seed, length=3):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(length, TEXT, generator=generator, dtype=torch.float64)
    return Text(tokens, torch.randn(POOLED, generator=generator, dtype=torch.float64))


def model(levels=3, frames_per_unit=1, history_units=None, conditioning="shared_context"):
    """A small DiT in fp64 with random weights everywhere, so that no path is switched off."""
    torch.set_num_threads(1)
    config = DiTConfig(
        heads=2,
        head_dim=8,
        double_blocks=2,
        single_blocks=1,
        text_dim=TEXT,
        pooled_dim=POOLED,
        rope_axes=(4, 2, 2),
        latent_channels=CHANNELS,
        levels=levels,
        frames_per_unit=frames_per_unit,
        history_units=history_units,
        conditioning=conditioning,
    )
    dit = DiT(config).double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return dit


def request(levels=3, latents=4, **changes):
    values = {
        "prompts": text(1),
        "negative": text(2, length=1),
        "height": 8,
        "width": 16,
        "latents": latents,
        "steps": ((2,) * levels, (1, 2, 1, 2)[:levels]),
        "seed": 5,
        "guidance": 3.0,
        "video_guidance": 2.0,
    }
    return Request(**{**values, **changes})


def unit_lengths(config, latents):
    if config.frames_per_unit is None:
        return [latents]
    return [1] + [config.frames_per_unit] * ((latents - 1) // config.frames_per_unit)


def oracle(dit, pyramid, request):
    """All latents of one video: every step runs alone and carries every copy of every unit at every level."""
    config = dit.config
    lengths = unit_lengths(config, request.latents)
    finished = []
    if request.given is not None:
        finished = list(request.given.double().split(unit_lengths(config, request.given.shape[1]), dim=1))

    @torch.no_grad()
    def velocity(texts, unit, level, x, timestep):
        begins = sorted(begin for begin in texts if begin <= unit)
        prompts = tuple(Prompt(texts[begin].tokens_LD, texts[begin].pooled_P, begin) for begin in begins)

        def piece(kind, unit, level, latent, timestep):
            prompt = max(i for i, begin in enumerate(begins) if begin <= unit)
            return Piece(kind, unit, level, latent, timestep, sum(lengths[:unit]), prompt)

        copies = [piece("context", u, k, down(finished[u], k), 0.0) for u in range(unit) for k in range(config.levels)]
        clip = Clip(prompts, (*copies, piece("target", unit, level, x, timestep)))
        return dit(assemble([clip], config))[0]

    for unit in range(len(finished), len(lengths)):
        x = None
        scale = request.scale(unit)
        for level in reversed(range(pyramid.levels)):
            shape = (CHANNELS, lengths[unit], request.height >> level, request.width >> level)
            noise = keyed_noise(request.seed, unit, level, shape).double()
            x = noise if x is None else pyramid.jump(x, noise, level)
            times = pyramid.steps(request.steps_of(unit)[pyramid.levels - 1 - level])
            for now, then in itertools.pairwise(times):
                told = pyramid.timestep(level, torch.tensor(now, dtype=torch.float64)).item()
                v = velocity(request.texts, unit, level, x, told)
                if scale not in (0, 1):
                    negative = velocity({0: request.negative}, unit, level, x, told)
                    v = negative + scale * (v - negative)
                x = x + (then - now) * v
        finished.append(x)
    return torch.cat(finished, dim=1)


def sample(dit, pyramid, request):
    return torch.cat([unit.latent_CTHW for unit in Sampler(dit, pyramid).generate(request)], dim=1)


def assert_same(actual, expected):
    assert actual.shape == expected.shape
    assert torch.isfinite(expected).all()
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


# ---- cached and evicting sampling equals recomputing everything


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("frames_per_unit", [1, 2])
@pytest.mark.parametrize("history_units", [None, 1, 2])
def test_cached_sampling_equals_recomputing(levels, frames_per_unit, history_units):
    dit, pyramid = model(levels, frames_per_unit, history_units), Pyramid(levels)
    asked = request(levels, latents=1 + 3 * frames_per_unit)
    assert_same(sample(dit, pyramid, asked), oracle(dit, pyramid, asked))


def test_an_image_alone_equals_recomputing():
    dit, pyramid = model(), Pyramid()
    asked = request(latents=1)
    assert_same(sample(dit, pyramid, asked), oracle(dit, pyramid, asked))


def test_a_prompt_per_unit_equals_recomputing():
    """The second text comes with unit 2: its targets and copies see it, older K/V stay as they are."""
    dit, pyramid = model(), Pyramid()
    asked = request(latents=5, prompts={0: text(1), 2: text(3, length=4), 3: text(4, length=2)})
    changed = sample(dit, pyramid, asked)
    assert_same(changed, oracle(dit, pyramid, asked))
    unchanged = sample(dit, pyramid, request(latents=5))
    assert torch.equal(changed[:, :2], unchanged[:, :2])
    assert (changed[:, 2] - unchanged[:, 2]).abs().max() > 1e-3


@pytest.mark.parametrize(("guidance", "video_guidance"), [(0.0, 2.0), (3.0, 1.0), (0.0, 0.0)])
def test_guidance_of_some_units_only_equals_recomputing(guidance, video_guidance):
    dit, pyramid = model(), Pyramid()
    asked = request(latents=4, guidance=guidance, video_guidance=video_guidance)
    assert_same(sample(dit, pyramid, asked), oracle(dit, pyramid, asked))


def test_guidance_that_comes_and_goes_equals_recomputing():
    """Scales 3, 2, 1, 1: the negative row is not run in units 2 and 3."""
    dit, pyramid = model(), Pyramid()
    asked = request(latents=4, guidance_slope=1.0, guidance_floor=1.0)
    assert [asked.scale(unit) for unit in range(4)] == [3.0, 2.0, 1.0, 1.0]
    assert_same(sample(dit, pyramid, asked), oracle(dit, pyramid, asked))


def test_sessions_stepped_together_equal_each_alone():
    """Of different sizes, lengths, stages, texts and guidance; one joins late, the short ones leave early."""
    dit, pyramid = model(), Pyramid()
    wanted = [
        request(latents=3),
        request(latents=1, height=16, width=8, seed=6, prompts=text(8, length=5)),
        request(latents=4, height=8, width=8, seed=7, guidance=0.0, video_guidance=0.0),
    ]
    sampler = Sampler(dit, pyramid)
    sessions = [sampler.start(asked) for asked in wanted]
    steps = 0
    while any(not session.done for session in sessions):
        sampler.step([session for i, session in enumerate(sessions) if not session.done and (i != 2 or steps > 3)])
        steps += 1
    assert steps < sum(session.steps_total for session in sessions)
    for session, asked in zip(sessions, wanted, strict=True):
        assert_same(session.latents_CTHW, oracle(dit, pyramid, asked))


def test_a_video_is_bit_identical_alone_and_close_in_company_in_single_precision():
    dit, pyramid = model().float(), Pyramid()
    asked = request(latents=3)
    alone = sample(dit, pyramid, asked)
    assert alone.dtype == torch.float32
    assert torch.equal(alone, sample(dit, pyramid, asked))
    sampler = Sampler(dit, pyramid)
    sessions = [sampler.start(asked), sampler.start(request(latents=3, height=16, seed=9))]
    while not sessions[0].done:
        sampler.step(sessions)
    error = (sessions[0].latents_CTHW - alone).square().mean().sqrt() / alone.square().mean().sqrt()
    assert error <= 1e-4


def test_a_half_precision_model_keeps_its_latents_in_single_precision():
    dit = model().bfloat16()
    assert sample(dit, Pyramid(), request(latents=2)).dtype == torch.float32


# ---- going on: images, longer videos, other machines


def test_a_video_goes_on_from_an_image():
    dit, pyramid = model(), Pyramid()
    image = torch.randn(CHANNELS, 1, 8, 16, generator=torch.Generator().manual_seed(3))
    asked = request(latents=4, given=image)
    units = list(Sampler(dit, pyramid).generate(asked))
    assert [unit.index for unit in units] == [1, 2, 3]
    video = torch.cat([image.double(), *(unit.latent_CTHW for unit in units)], dim=1)
    assert_same(video, oracle(dit, pyramid, asked))


@pytest.mark.parametrize("frames_per_unit", [1, 2])
def test_some_units_and_then_more_equal_all_at_once(frames_per_unit):
    dit, pyramid = model(frames_per_unit=frames_per_unit), Pyramid()
    short, long = (request(latents=1 + n * frames_per_unit) for n in (2, 4))
    whole = sample(dit, pyramid, long)

    sampler = Sampler(dit, pyramid)
    session = sampler.start(short)
    while not session.done:
        sampler.step([session])
    session.extend(long.latents)
    while not session.done:
        sampler.step([session])
    assert_same(session.latents_CTHW, whole)

    elsewhere = replace(long, given=whole[:, : short.latents])
    assert_same(sample(dit, pyramid, elsewhere), whole[:, short.latents :])


@pytest.mark.parametrize("saved_after", [0, 1, 6, 9, 13])
def test_a_saved_session_continues_elsewhere_with_the_same_result(saved_after):
    """Before anything, in the first unit, at a unit's edge, inside later units; through bytes, without K/V."""
    dit, pyramid = model(), Pyramid()
    asked = request(latents=4)
    sampler = Sampler(dit, pyramid)
    session = sampler.start(asked)
    for _ in range(saved_after):
        sampler.step([session])
    state = session.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) <= 4 * CHANNELS * 8 * 16 + 2
    resumed = Sampler(model(), pyramid).resume(asked, load(save(state)))
    assert resumed.steps_done == saved_after
    other = Sampler(model(), pyramid)
    while not resumed.done:
        other.step([resumed])
    assert_same(resumed.latents_CTHW, sample(dit, pyramid, asked))


def test_a_prompt_can_change_while_the_video_is_made():
    dit, pyramid = model(), Pyramid()
    sampler = Sampler(dit, pyramid)
    session = sampler.start(request(latents=4))
    while session.unit < 1:
        sampler.step([session])
    sampler.step([session])
    with pytest.raises(ValueError, match=r"unit 1 has begun.*from unit 2 on"):
        session.change_prompt(1, text(3))
    with pytest.raises(ValueError, match=r"\[L, 6\]"):
        session.change_prompt(2, Text(torch.zeros(2, 3), torch.zeros(POOLED)))
    session.change_prompt(2, text(3))
    while not session.done:
        sampler.step([session])
    assert_same(session.latents_CTHW, oracle(dit, pyramid, request(latents=4, prompts={0: text(1), 2: text(3)})))


@pytest.mark.parametrize("part", ["patch_in", "head"])
def test_a_step_that_failed_can_be_repeated(part):
    """Before the forward has filled the cache, and behind it."""
    dit, pyramid = model(), Pyramid()
    sampler = Sampler(dit, pyramid)
    asked = request(latents=3)
    session = sampler.start(asked)
    for _ in range(6):
        sampler.step([session])
    assert (session.unit, session.index) == (1, 0)

    def fail(*_):
        raise MemoryError

    hook = dit.get_submodule(part).register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        sampler.step([session])
    hook.remove()
    while not session.done:
        sampler.step([session])
    assert_same(session.latents_CTHW, oracle(dit, pyramid, asked))


# ---- what a session holds and costs


def test_next_tokens_are_the_tokens_of_the_next_pack():
    dit, pyramid = model(frames_per_unit=2), Pyramid()
    sampler = Sampler(dit, pyramid)
    session = sampler.start(request(latents=7, prompts={0: text(1), 2: text(3, length=5)}))
    lengths = []
    dit.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].length))
    expected = []
    while not session.done:
        expected.append(session.next_tokens)
        sampler.step([session])
    assert session.next_tokens == 0
    assert lengths == expected
    # At hand: 8x16 latents are 4x8 tokens, 2x4 and 1x2 at the coarser levels; text rides once, two rows per step.
    assert lengths[:6] == [3 + 2 + 1 + 2, 2 * 2, 2 * 8, 2 * 8, 2 * 32, 2 * 32]
    assert lengths[6:8] == [2 * (32 + 8 + 2) + 2 * 2 * 2, 2 * 2 * 8]


def test_the_cache_keeps_only_the_coarsest_copies_of_old_units():
    """While unit 4 is made at 3 levels: text, C(0..2, 2), C(2, 1), C(3, 0..2); unit 2 at level 0 was last seen by 3."""
    dit, pyramid = model(), Pyramid()
    sampler = Sampler(dit, pyramid)
    session = sampler.start(request(latents=5, guidance=0.0, video_guidance=0.0))
    while not (session.unit == 4 and session.index == 1):
        sampler.step([session])
    tokens = 3 + 3 * 2 + 8 + (32 + 8 + 2)
    blocks, keys_and_values, width, fp64 = 3, 2, 16, 8
    assert session.cache_bytes == tokens * blocks * keys_and_values * width * fp64


def test_progress_counts_denoising_steps_of_new_units():
    dit, pyramid = model(), Pyramid()
    sampler = Sampler(dit, pyramid)
    session = sampler.start(request(latents=3, given=torch.zeros(CHANNELS, 1, 8, 16)))
    assert (session.steps_done, session.steps_total, session.unit) == (0, 8, 1)
    for done in range(1, 9):
        sampler.step([session])
        assert session.steps_done == done
    assert session.done


# ---- baselines and the published conditioning: same classes, other configuration


def test_full_sequence_diffusion_makes_the_whole_video_as_one_unit():
    dit, pyramid = model(frames_per_unit=None), Pyramid()
    asked = request(latents=5)
    units = list(Sampler(dit, pyramid).generate(asked))
    assert [unit.latent_CTHW.shape for unit in units] == [(CHANNELS, 5, 8, 16)]
    assert_same(units[0].latent_CTHW, oracle(dit, pyramid, asked))


def test_plain_flow_matching_at_full_resolution():
    dit, pyramid = model(levels=1, frames_per_unit=None), Pyramid(1)
    asked = request(levels=1, latents=3, guidance=0.0)
    x = keyed_noise(5, 0, 0, (CHANNELS, 3, 8, 16)).double()
    prompt = Prompt(text(1).tokens_LD, text(1).pooled_P)
    with torch.no_grad():
        for t in (0.0, 0.5):
            piece = Piece("target", 0, 0, x, 1000 * (1 - t), 0)
            x = x + 0.5 * dit(assemble([Clip((prompt,), (piece,))], dit.config))[0]
    assert_same(sample(dit, pyramid, asked), x)


def test_official_conditioning_recomputes_every_step():
    """Two levels: unit 2 sees unit 1 at its own level and unit 0 at the coarsest."""
    dit, pyramid = model(levels=2, conditioning="official"), Pyramid(2, schedule="official")
    sampler = Sampler(dit, pyramid)
    asked = request(levels=2, latents=3, guidance=0.0, video_guidance=0.0, steps=((1, 1), (1, 1)))
    session = sampler.start(asked)
    for _ in range(4):
        sampler.step([session])
    (first, second), prompt = session.finished, Prompt(text(1).tokens_LD, text(1).pooled_P)
    x = keyed_noise(5, 2, 1, (CHANNELS, 1, 4, 8)).double()
    with torch.no_grad():
        for level, history in [(1, [down(first), down(second)]), (0, [down(first), second])]:
            if level == 0:
                x = pyramid.jump(x, keyed_noise(5, 2, 0, (CHANNELS, 1, 8, 16)).double(), 0)
            told = pyramid.timestep_windows[level][0]
            pieces = [Piece("context", 0, 1, history[0], 0.0, 0), Piece("context", 1, level, history[1], 0.0, 1)]
            target = Piece("target", 2, level, x, float(torch.tensor(told)), 2)
            x = x + dit(assemble([Clip((prompt,), (*pieces, target))], dit.config))[0]
    while not session.done:
        sampler.step([session])
    assert_same(session.finished[2], x)
    assert session.cache_bytes == 0


# ---- noise and guidance


def test_noise_is_keyed_and_ordinary():
    noise = keyed_noise(1, 2, 0, (4, 1, 64, 64))
    assert torch.equal(noise, keyed_noise(1, 2, 0, (4, 1, 64, 64)))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    others = [(2, 2, 0), (1, 3, 0), (1, 2, 1), (12, 0, 0)]
    assert all(not torch.equal(noise, keyed_noise(*key, (4, 1, 64, 64))) for key in others)


def test_guidance_scales_by_unit():
    asked = request(guidance=7.0, video_guidance=5.0)
    assert [asked.scale(unit) for unit in (0, 1, 9)] == [7.0, 5.0, 5.0]
    falling = replace(asked, guidance_slope=0.5, guidance_floor=2.0)
    assert [falling.scale(unit) for unit in (0, 1, 9, 20)] == [7.0, 6.5, 2.5, 2.0]


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 12}, "multiples of 8"),
        ({"width": 0}, "multiples of 8"),
        ({"latents": 0}, "at least 1"),
        ({"latents": 4}, "1 [+] a multiple of 2"),
        ({"steps": ((2, 2, 2), (2, -1, 2))}, "each at least 1"),
        ({"steps": ((2, 2), (2, 2))}, "3 stages"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"video_guidance": float("nan")}, "video_guidance is nan"),
        ({"negative": None}, "negative text"),
        ({"prompts": {1: text(1)}}, "begin at 0"),
        ({"prompts": Text(torch.zeros(3, 4), torch.zeros(POOLED))}, r"\[L, 6\]"),
        ({"prompts": Text(torch.zeros(0, TEXT), torch.zeros(POOLED))}, "at least 1"),
        ({"given": torch.full((CHANNELS, 1, 8, 16), float("nan"))}, "NaN"),
        ({"given": torch.zeros(CHANNELS, 8, 16)}, r"\[C, T, H, W\]"),
        ({"given": torch.zeros(CHANNELS, 1, 8, 8)}, "8x8.*16x8"),
        ({"given": torch.zeros(CHANNELS, 2, 8, 16)}, "1 [+] a multiple of 2"),
        ({"given": torch.zeros(CHANNELS, 7, 8, 16)}, "7 latents are given"),
    ],
)
def test_bad_requests_are_refused_in_one_line(changes, message):
    sampler = Sampler(model(frames_per_unit=2), Pyramid())
    with pytest.raises(ValueError, match=message) as error:
        sampler.start(request(**{"latents": 5, **changes}))
    assert "\n" not in str(error.value)


def test_a_damaged_saved_session_is_refused():
    sampler = Sampler(model(), Pyramid())
    state = sampler.start(request()).state_dict()
    state["x"][0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="saved session holds NaN or infinity"):
        sampler.resume(request(), state)


@pytest.mark.parametrize(
    ("asked", "damage", "message"),
    [
        ({"height": 16}, {}, r"\(3, 2, 8, 16\); the request is for \(3, 4, 16, 16\)"),
        ({"latents": 1}, {}, r"the request is for \(3, 1, 8, 16\)"),
        ({}, {"latents": None}, "it must hold latents and position"),
        ({}, {"position": torch.tensor([7, 0])}, "level 7, step 0"),
        ({}, {"position": torch.tensor([0, 2])}, "level 0, step 2"),
        ({}, {"x": torch.zeros(CHANNELS, 1, 8, 16)}, r"shape \(3, 1, 8, 16\)"),
        ({"steps": ((2, 2, 2), (1, 1, 1))}, {}, "level 1, step 1"),
    ],
)
def test_a_saved_session_of_another_request_is_refused(asked, damage, message):
    """Saved in unit 2 at level 1 behind its first step."""
    sampler = Sampler(model(), Pyramid())
    session = sampler.start(request())
    for _ in range(12):
        sampler.step([session])
    state = {key: value for key, value in {**session.state_dict(), **damage}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        sampler.resume(request(**asked), state)


def test_a_size_beyond_the_position_table_is_refused():
    config = replace(model().config, position_table=4, position_base=4)
    sampler = Sampler(DiT(config), Pyramid())
    with pytest.raises(ValueError, match=r"16x8.*reach to 8 a side"):
        sampler.start(request())


def test_a_full_sequence_model_takes_no_given_latents_and_no_extension():
    sampler = Sampler(model(frames_per_unit=None), Pyramid())
    with pytest.raises(ValueError, match="whole video at once"):
        sampler.start(request(given=torch.zeros(CHANNELS, 1, 8, 16)))
    with pytest.raises(ValueError, match="whole video at once"):
        sampler.start(request()).extend(9)


def test_a_session_cannot_step_twice_at_once_or_when_done():
    sampler = Sampler(model(levels=1), Pyramid(1))
    session = sampler.start(request(levels=1, latents=1, steps=((1,), (1,))))
    with pytest.raises(ValueError, match="once"):
        sampler.step([session, session])
    sampler.step([session])
    with pytest.raises(ValueError, match="done"):
        sampler.step([session])


def test_a_pyramid_of_other_levels_is_refused():
    with pytest.raises(ValueError, match=r"2 levels.*3"):
        Sampler(model(levels=3), Pyramid(2))
