"""Thresholds are applied when results are read: a new one opens no video, asks no model and writes no latent."""

from collections import Counter

import numpy as np
import pytest
from corpus import spec, videos
from media_files import make_video

from rayramid.models import storage
from rayramid.pipelines import curate
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.frames import SourceFrames
from rayramid.pipelines.spec import Thresholds


@pytest.fixture
def touched(monkeypatch):
    """Counts what is done to sources' files."""
    counts = Counter()

    def counted(name):
        method = getattr(SourceFrames, name)

        def call(self, *args, **options):
            counts[name] += 1
            return method(self, *args, **options)

        return call

    for name in ("probe", "times", "read"):
        monkeypatch.setattr(SourceFrames, name, counted(name))
    return counts


def test_a_new_threshold_decodes_nothing(in_process, touched, caption_server, clip_folder, tmp_path):
    folder = videos(tmp_path / "videos", 4)
    make_video(folder / "old.mp4", range(9), codec="mpeg4", size=(64, 64), fps=24)
    plain = {
        "caption": {"endpoint": {"url": caption_server.url, "model": "m"}, "frames": 2},
        "score": {"clip": str(clip_folder)},
    }

    def wanted(**changes):
        return spec(tmp_path / "data", folder, **plain, **changes)

    first = curate.run(wanted())
    assert (first.kept, first.rejected) == (5, 0)
    assert touched["probe"] == 5
    assert touched["read"] > 3 * 5, "each was scored, captioned and encoded, and a VAE was fitted"
    done, asked = Counter(touched), len(caption_server.requests)
    latents = sorted(storage.list_files(str(tmp_path / "data/latents")))

    fits = np.sort(curate.survey(wanted()).measures["caption_fit"].to_numpy())
    for changes, kept in (
        ({"keep": {"brightness": {"min": "quantile:0.5"}}}, 3),
        ({"keep": {"motion": {"max": -1}, "blur": {"min": 0.1}}}, 0),
        ({"keep": {"codecs": ["h264"]}}, 4),
        ({"keep": {"caption_fit": {"min": fits[2] - 1e-9}}}, 3),
        ({"keep": {"codecs": ["h264", "mpeg4"], "caption_fit": {"max": fits[0] + 1e-9}}}, 1),
        ({"duplicates": {"exact": True, "semantic": 1.0}}, 5),
        ({}, 5),
    ):
        found = curate.run(wanted(**changes))
        assert (found.kept, found.rejected, found.failed, found.pending) == (kept, 5 - kept, 0, 0), changes
    coded = read_clips(str(tmp_path / "data"), Thresholds(codecs=["mpeg4"]))
    assert (coded.kept.num_rows, coded.rejected, coded.unscored) == (1, 4, 0)
    assert touched == done
    assert len(caption_server.requests) == asked
    assert sorted(storage.list_files(str(tmp_path / "data/latents"))) == latents
