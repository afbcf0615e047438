"""What a run may start from: released models, SD3's transformer, model folders, other runs; and what it refuses."""

import dataclasses

import pytest
import torch
from released import write_release

from rayramid.models import storage
from rayramid.models.card import CARD, load_card
from rayramid.models.checkpoint import load_model
from rayramid.models.dit.embeddings import patchify
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.importers.release import import_weights, open_release
from rayramid.platform.training.export import export
from rayramid.platform.training.loop import run
from rayramid.platform.training.model import build, configure
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import dry_run, settle
from rayramid.platform.training.spec.model import Model

ALONE = Ranks(1, 0, torch.device("cpu"))


@pytest.fixture
def release(tmp_path):
    write_release(tmp_path / "release")
    return str(tmp_path / "release")


def built(**model):
    return build(Model.model_validate(model), seed=0, dtype=torch.float32)


def silent(step, record):
    pass


def test_a_release_goes_on_as_published(release):
    dit, pyramid = built(start=release, variant="384p")
    expected = open_release(release).dit()
    assert dit.training
    assert (dit.config, pyramid.schedule) == (expected.config, "official")
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in dit.state_dict().items())


@pytest.mark.parametrize("alone", [False, True])
def test_a_release_or_its_transformer_alone_starts_shared_context_with_the_sign_turned(release, alone):
    start = f"{release}/diffusion_transformer_384p" if alone else release
    dit, pyramid = built(start=start, conditioning="shared_context", levels=2)
    published = open_release(release).dit().state_dict()
    assert (dit.config.conditioning, pyramid.levels, pyramid.schedule) == ("shared_context", 2, "uniform")
    own = dit.state_dict()
    assert not own["role_tokens"].any()
    assert torch.equal(own["head.out.weight"], -published["head.out.weight"])
    assert torch.equal(own["patch_in.weight"], published["patch_in.weight"])


def test_an_imported_folder_is_the_same_start_as_the_release(release, tmp_path):
    import_weights(release, str(tmp_path / "imported"))
    ours, theirs = built(start=str(tmp_path / "imported"))[0], built(start=release)[0]
    assert ours.config == theirs.config
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())


def test_a_run_goes_on_from_the_average_of_another_and_recommends_what_that_did(spec, tmp_path):
    first = settle(
        spec(output=str(tmp_path / "first"), phase={"steps": 2}, sampling={"guidance": 3.0, "later_steps": 4})
    )
    with pytest.raises(UserError, match="first: a run that has exported no model yet"):
        dry_run(spec(model={"start": first.output}))
    run(first, ALONE, silent)
    export(first)
    second = settle(
        spec(
            output=str(tmp_path / "second"),
            phase={"steps": 1, "learning_rate": 1e-9},
            model={"start": first.output, "frames_per_unit": 2},
            sampling={"first_steps": (9, 7, 5)},
        )
    )
    run(second, ALONE, silent)
    before, after = load_model(first.output + "/model"), load_model(export(second))
    torch.testing.assert_close(after.dit.state_dict(), before.dit.state_dict(), rtol=0, atol=1e-6)
    assert after.dit.config == dataclasses.replace(before.dit.config, frames_per_unit=2)
    assert (after.card.guidance, after.card.video_guidance) == (3.0, 5.0)
    assert after.card.steps == ((9, 7, 5), (4, 4, 4))


def test_steps_that_are_not_one_for_each_stage_are_refused(spec):
    with pytest.raises(UserError, match="sampling has 2 later_steps and the model 3 stages; give one number or 3"):
        dry_run(spec(sampling={"later_steps": [8, 4]}))


def test_finer_patches_begin_with_what_the_coarser_ones_read_and_the_mean_of_what_they_said(release):
    coarse, _ = built(start=release, variant="384p")
    fine, _ = built(start=release, variant="384p", patch=1)
    assert (coarse.config.patch, fine.config.patch) == (2, 1)
    cell = torch.randn(coarse.config.latent_channels, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    even = cell.expand(-1, 1, 2, 2)
    torch.testing.assert_close(fine.patch_in(patchify(cell, 1)), coarse.patch_in(patchify(even, 2)))
    hidden = torch.randn(3, coarse.config.width, generator=torch.Generator().manual_seed(1))
    said_TC = coarse.head.out(hidden).unflatten(1, (4, -1)).mean(1)
    torch.testing.assert_close(fine.head.out(hidden), said_TC)
    same = {key for key, tensor in coarse.state_dict().items() if torch.equal(tensor, fine.state_dict()[key])}
    assert set(coarse.state_dict()) - same == {"patch_in.weight", "head.out.weight", "head.out.bias"}


def test_coarser_patches_are_refused(release):
    with pytest.raises(UserError, match="a model with patch 2 can go on with a divisor of it, not 4"):
        built(start=release, variant="384p", patch=4)


def test_a_dataset_of_another_vae_than_the_models_is_refused_with_both_names(spec, dataset, release):
    with pytest.raises(UserError) as refused:
        dry_run(spec(model={"start": release, "conditioning": "shared_context"}))
    assert f"{dataset} was made with the VAE " in str(refused.value)
    assert f", {release} with " in str(refused.value)


def test_a_transformer_alone_knows_no_vae_and_trains_on_any(spec, release):
    plan = dry_run(spec(model={"start": f"{release}/diffusion_transformer_384p"}))
    assert plan.parameters == sum(weight.numel() for weight in open_release(release).dit().parameters())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"variant": "768p"}, "768p is none of them; choose one with --variant"),
        ({"conditioning": "shared_context", "causal": False}, "needs conditioning official"),
    ],
)
def test_what_the_start_is_not_is_refused(spec, release, model, message):
    with pytest.raises(UserError, match=message):
        dry_run(spec(model={"start": release, **model}))


def test_shared_context_does_not_become_official(spec, tmp_path):
    first = settle(spec(output=str(tmp_path / "first"), phase={"steps": 1}))
    run(first, ALONE, silent)
    export(first)
    with pytest.raises(UserError, match="a shared_context model can't go on as official"):
        dry_run(spec(model={"start": first.output, "conditioning": "official"}))
    with pytest.raises(UserError, match="trained with 3 levels keeps them"):
        dry_run(spec(model={"start": first.output, "levels": 2}))


def test_parts_of_shared_context_are_added_to_a_released_model_and_kept(release, tmp_path):
    dit, pyramid = built(start=release, shared_parts=["own_time", "roles"])
    published = open_release(release).dit().state_dict()
    assert (dit.config.shared_parts, pyramid.schedule) == (("own_time", "roles"), "official")
    assert not dit.role_times.any()
    assert torch.equal(dit.head.out.weight, published["head.out.weight"])

    folder = str(tmp_path / "parts")
    import_weights(release, folder)
    card = load_card(folder)
    card = dataclasses.replace(card, dit=card.dit | {"shared_parts": ["own_time", "roles"]})
    storage.write_atomic(f"{folder}/{CARD}", card.to_json())
    assert configure(Model(start=folder))[0] == dit.config
    shared = configure(Model(start=folder, conditioning="shared_context", shared_parts=()))[0]
    assert shared.conditioning == "shared_context"
    with pytest.raises(UserError, match="trained with shared_parts own_time keeps them"):
        configure(Model(start=folder, shared_parts=("roles", "one_grid")))
    with pytest.raises(UserError, match="has roles and was trained with 3 levels keeps them"):
        configure(Model(start=folder, levels=2))


def test_a_preset_is_drawn_from_the_seed():
    config, _, card = configure(Model(preset="tiny"))
    assert card is None
    assert built(preset="tiny")[0].config == config
    assert torch.equal(built(preset="tiny")[0].patch_in.weight, built(preset="tiny")[0].patch_in.weight)
    assert isinstance(built(preset="tiny")[0], DiT)
