import numpy as np
import pytest

from rayramid.models.vae.quality import HIGHEST_PSNR, psnr, ssim


def test_psnr_of_each_frame():
    target = np.zeros((3, 16, 16, 3), np.uint8)
    frames = target.copy()
    frames[1] = 255
    frames[2] = 1
    assert psnr(frames, target).tolist() == pytest.approx([HIGHEST_PSNR, 0, 20 * np.log10(255)])


def test_ssim_of_flat_frames_is_the_luminance_term():
    target, frames = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(frames, target)[0] == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))


def test_ssim_is_the_published_formula_in_each_window():
    draws = np.random.default_rng(0)
    target, frames = (draws.integers(0, 256, (1, 11, 12, 3), dtype=np.uint8) for _ in range(2))
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for left in (0, 1):
        for colour in range(3):
            x, y = (f[0, :, left : left + 11, colour].astype(float) for f in (frames, target))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            both = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            found.append((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(frames, target)[0] == pytest.approx(np.mean(found), rel=1e-9)


def test_equal_frames_are_wholly_similar_and_small_ones_are_refused():
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert ssim(frames, frames).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="frames of 8x16; SSIM needs 11 pixels"):
        ssim(frames[:, :, :8], frames[:, :, :8])
