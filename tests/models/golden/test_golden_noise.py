"""The published trainer's inputs from its random numbers: pyramid endpoints, history levels, corruption, timesteps."""

import pytest
import torch


@pytest.mark.golden("noise")
def test_training_inputs(golden, case, official_pyramid, training_columns):
    meta = golden.cases[case]
    columns = training_columns(
        golden,
        case,
        official_pyramid(meta["scheduler"]),
        frames_per_unit=meta["frame_per_unit"] if meta["temporal_pyramid"] else None,
        corruption=meta["corrupt_ratio"],
    )
    for number, column in enumerate(columns):
        golden.check(-column.velocity, f"{case}.target.{number}", within=1e-6)
        golden.check(column.timestep, f"{case}.timesteps.{number}", within=1e-6)
        for place, clip in enumerate(column.clips):
            golden.check(clip, f"{case}.noisy.{number}.{place}", within=1e-6)
        assert f"{case}.noisy.{number}.{len(column.clips)}" not in golden
    packed = torch.stack([column.timestep for column in columns], 1).flatten()
    if f"{case}.timesteps_packed" in golden:
        golden.check(packed, f"{case}.timesteps_packed", within=1e-6)
