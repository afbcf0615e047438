import numpy as np
import pyarrow as pa
import pytest
from corpus import spec, videos

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.pipelines.forecast import forecast, interval, random_sample


def test_a_sample_is_random_and_the_same_whatever_the_order():
    sources = pa.table({"source_id": [f"s{n:03d}" for n in range(100)]})
    chosen = random_sample(sources, 10)["source_id"].to_pylist()
    backwards = sources.take(np.arange(100)[::-1])
    assert sorted(random_sample(backwards, 10)["source_id"].to_pylist()) == chosen
    assert chosen != sources["source_id"].to_pylist()[:10]
    assert random_sample(sources, 1000).num_rows == 100


def test_the_interval_is_that_of_a_sum_over_the_sources_not_seen():
    # Of 100 sources 4 were seen, with 0, 2, 2, 4 clips: mean 2, deviation 1.633, so 200 +- 1.96 * 1.633 * sqrt(2400).
    assert interval(np.array([0, 2, 2, 4]), 25) == (43, 357)
    assert interval(np.array([2, 2, 2]), 10) == (60, 60)
    assert interval(np.array([1, 3]), 1) == (4, 4), "all were seen"


def test_a_sample_tells_of_the_whole_and_leaves_nothing(in_process, tmp_path):
    folder = videos(tmp_path / "videos", 6)
    wanted = spec(tmp_path / "data", folder)
    found = forecast(wanted, sample=3, clips_per_step=2)
    assert (found.sources, found.sampled, found.clips, found.low, found.high) == (6, 3, 6, 6, 6)
    assert found.buckets == {"64x64x2": 6}
    assert found.steps_per_epoch == 3
    # A latent of 16 x 2 x 8 x 8 bf16 values is 4 KiB, and its row knows more.
    assert 6 * 4096 < found.bytes < 6 * 4096 * 10
    assert [job.inputs for job in found.jobs] == [6, 6, 6, 8, 6]
    assert all(job.worker_hours > 0 and job.gpu_hours == 0 for job in found.jobs)
    assert not list(storage.list_files(str(tmp_path / "data")))


def test_no_clip_and_no_step_are_errors_that_leave_nothing(in_process, tmp_path):
    folder = videos(tmp_path / "videos", 2)
    with pytest.raises(UserError, match="less than a step of 32"):
        forecast(spec(tmp_path / "data", folder), sample=2, clips_per_step=32)
    with pytest.raises(UserError, match="nothing is kept"):
        forecast(spec(tmp_path / "data", folder, keep={"duration_s": {"min": 9}}), sample=2, clips_per_step=1)
    assert not list(storage.list_files(str(tmp_path / "data")))
