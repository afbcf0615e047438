"""LPIPS with a backbone of random weights, as torchvision names them: what matters is that they arrive."""

import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.vae.perceptual import Perceptual, missing
from rayramid.models.weights import write_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from torchvision.models import alexnet

    torch.manual_seed(0)
    weights = {name: weight for name, weight in alexnet(weights=None).state_dict().items() if "features" in name}
    folder = tmp_path_factory.mktemp("backbone")
    write_weights(str(folder / "alexnet-owt-7be5be79.safetensors"), weights)
    return str(folder)


def test_it_is_the_packages_distance_with_the_folders_backbone(folder):
    import lpips

    ours = Perceptual(folder, "alex")
    torch.manual_seed(0)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    theirs.net.load_state_dict(ours.lpips.net.state_dict())
    frames, target = torch.rand(2, 2, 3, 18, 64, 64) * 2 - 1
    found = ours(frames, target)
    assert found.shape == (2, 18)
    expected = theirs(frames[1, :, 17:18].transpose(0, 1), target[1, :, 17:18].transpose(0, 1))
    assert found[1, 17].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.min() > 0
    assert ours(target, target).abs().max() < 1e-6


def test_gradients_reach_the_frames_and_not_the_weights(folder):
    distance = Perceptual(folder, "alex")
    frames = torch.rand(1, 3, 1, 64, 64, requires_grad=True)
    distance(frames, torch.zeros(1, 3, 1, 64, 64)).sum().backward()
    assert frames.grad.abs().max() > 0
    assert not any(weight.requires_grad for weight in distance.parameters())


def test_what_is_missing_is_said(folder, tmp_path):
    assert missing(folder, "alex") is None
    assert missing(None, "vgg") == "no folder with its backbone's weights is named"
    assert missing(folder, "vgg") == f"{folder} has no vgg16*.pth or .safetensors"
    assert missing(str(tmp_path / "absent"), "vgg") == f"{tmp_path}/absent has no vgg16*.pth or .safetensors"


def test_a_backbone_of_another_kind_is_refused_by_name(folder, tmp_path):
    write_weights(str(tmp_path / "vgg16.safetensors"), {"features.0.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"vgg16\.safetensors: key features\.0\.bias is missing"):
        Perceptual(str(tmp_path), "vgg")
