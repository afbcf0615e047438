"""The paper's ablations as spec options: what each trains on, and what its exported model does when it samples."""

import dataclasses

import pytest
import torch

from rayramid.models.brief import write_brief
from rayramid.models.checkpoint import dit_config_of, load_model
from rayramid.models.flops import is_visible
from rayramid.models.objective import training_pack
from rayramid.models.pyramid import down, up
from rayramid.models.render import render, request_of
from rayramid.models.sampler import Sampler
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import Run, run
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

ALONE = Ranks(1, 0, torch.device("cpu"))
SAMPLING = {"first_steps": 2, "later_steps": 2, "guidance": 0, "video_guidance": 0}


class Baseline:
    """A short run and the model that it exported."""

    def __init__(self, here):
        _, _, share = next(here.shares(0))
        clips = next(clips for clips in share.bins if any(clip.latent_CTHW.shape[1] > 1 for clip in clips))
        self.clip = next(clip for clip in clips if clip.latent_CTHW.shape[1] > 1)
        self.pack, _ = training_pack([self.clip], here.config, here.learner.pyramid, seed=0)
        run(here.spec, ALONE, lambda step, record: None)
        self.model = load_model(export(here.spec))
        self.brief = write_brief(self.model.card, "a blob moves left", seed=0)
        prompt, negative = self.model.text.encode(["a blob moves left", ""])
        self.sampler = Sampler(self.model.dit, self.model.pyramid)
        self.session = self.sampler.start(request_of(self.brief, prompt, negative))

    def frames(self):
        return [unit.shape for unit in render(self.model, self.brief)]


@pytest.fixture
def baseline(spec):
    def trained(**model):
        fields = {"phase": {"steps": 1, "image_share": 0, "units_per_clip": 3, "tokens_per_bin": 1000}}
        settled = settle(spec(model={"preset": "tiny"} | model, sampling=SAMPLING, validation={"clips": 1}, **fields))
        return Baseline(Run(settled, ALONE))

    return trained


def test_the_default_has_three_stages_and_a_cache(baseline):
    ours = baseline()
    assert {segment.level for segment in ours.pack.segments if segment.kind == "target"} == {0, 1, 2}
    assert ours.session.x_CTHW.shape == (16, 1, 2, 2)
    ours.sampler.step([ours.session])
    assert ours.session.cache_bytes > 0
    assert ours.frames() == [(1, 64, 64, 3), (8, 64, 64, 3), (8, 64, 64, 3)]


def test_one_level_is_flow_matching_at_full_resolution(baseline):
    plain = baseline(levels=1)
    targets = [segment for segment in plain.pack.segments if segment.kind == "target"]
    assert [(segment.unit, segment.grid) for segment in targets] == [(0, (1, 4, 4)), (1, (1, 4, 4)), (2, (1, 4, 4))]
    assert plain.model.pyramid.windows == ((0.0, 1.0),)
    # Sampling starts from noise at full resolution, and each unit takes the steps of one stage.
    assert plain.session.x_CTHW.shape == (16, 1, 8, 8)
    assert plain.session.steps_total == 3 * 2
    assert len(plain.frames()) == 3


def test_full_sequence_diffusion_makes_all_latents_at_once(baseline):
    whole = baseline(levels=1, frames_per_unit="all")
    words, target = whole.pack.segments
    assert (words.kind, target.kind, target.grid) == ("text", "target", (3, 4, 4))
    assert whole.session.units == 1
    assert whole.session.x_CTHW.shape == (16, 3, 8, 8)
    assert whole.frames() == [(17, 64, 64, 3)]


def test_without_renoising_a_stage_begins_with_the_enlarged_latent(baseline):
    made = baseline(renoise=False)
    restored = Sampler(made.model.dit, dataclasses.replace(made.model.pyramid, renoise=True))
    blocky, renoised = made.session, restored.start(made.session.request)
    for sampler, session in ((made.sampler, blocky), (restored, renoised)):
        while session.level == 2:
            sampler.step([session])
    torch.testing.assert_close(up(down(blocky.x_CTHW)), blocky.x_CTHW)
    assert (up(down(renoised.x_CTHW)) - renoised.x_CTHW).std() > 0.1


def test_bidirectional_attention_lets_what_comes_first_see_what_comes_later(baseline):
    made = baseline(conditioning="official", causal=False, frames_per_unit=2)
    session = made.session
    while session.unit == 0:
        made.sampler.step([session])
    # The second unit has two latents: the velocity of its first depends on its second, and only under this option.
    state = session.state_dict()
    changed = dict(state, x=torch.cat([state["x"][:, :1], state["x"][:, 1:] + 1], dim=1))

    def first_latents(causal):
        made.model.dit.config = dataclasses.replace(made.model.dit.config, causal=causal)
        resumed = [made.sampler.resume(session.request, each) for each in (state, changed)]
        for each in resumed:
            made.sampler.step([each])
        return [each.x_CTHW[:, 0] for each in resumed]

    assert not torch.equal(*first_latents(causal=False))
    assert torch.equal(*first_latents(causal=True))
    # In training, a target's history sees the target.
    *_, context, target = made.pack.segments[: made.pack.targets[-1][0] + 1]
    assert (context.kind, target.kind, context.clip) == ("context", "target", target.clip)
    assert is_visible(dit_config_of(made.model.card), context, target)
    assert not is_visible(made.model.dit.config, context, target)


def test_official_conditioning_tells_all_tokens_the_targets_time_and_caches_nothing(baseline):
    official = baseline(conditioning="official")
    assert official.pack.clips == 9
    for row in range(9):
        assert len({segment.timestep for segment in official.pack.segments if segment.clip == row}) == 1
    while not official.session.done:
        official.sampler.step([official.session])
        assert official.session.cache_bytes == 0
    assert official.model.card.dit["conditioning"] == "official"


def test_parts_of_shared_context_go_from_the_spec_through_training_into_the_exported_model(baseline):
    made = baseline(conditioning="official", shared_parts=["own_time", "roles"])
    for row in range(made.pack.clips):
        words, *history, target = [segment.timestep for segment in made.pack.segments if segment.clip == row]
        assert words == 0
        assert target not in history
        # One sigma a visit, at most a third of noise.
        assert len(set(history)) <= 1
        assert all(0 < timestep < 1000 / 3 for timestep in history)
    assert made.model.card.dit["shared_parts"] == ["own_time", "roles"]
    assert made.model.dit.role_tokens.shape == (7, 96)
    assert made.frames() == [(1, 64, 64, 3), (8, 64, 64, 3), (8, 64, 64, 3)]
