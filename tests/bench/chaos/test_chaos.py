"""Real processes are killed while pushes are in flight; afterwards every sample is in the weights exactly once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.bench.chaos.chaos import run
from downpour.bench.chaos.settings import ChaosSettings
from downpour.bench.chaos.signed_gradients import RATE, applied_counts, initial_weights, write_gradient

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shards, kills", [(1, 5), (2, 5)])
def test_killed_processes_lose_no_update(tmp_path: Path, shards: int, kills: int) -> None:
    counts = run(ChaosSettings(seed=11 + shards, kills=kills, shards=shards, workers=2, samples=2048), tmp_path)
    logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in tmp_path.rglob("*.log")]
    assert counts.faults == [], "\n".join([*counts.faults, *logs])
    assert counts.kills.total() >= kills and counts.samples > 0


@pytest.mark.parametrize("mode", ["bsp", "softsync:2", "easgd:0.5,1", "localsgd:1"])
def test_killed_processes_lose_no_update_of_means_and_replicas(tmp_path: Path, mode: str) -> None:
    counts = run(ChaosSettings(seed=3, kills=2, shards=1, workers=3, samples=1024, mode=mode), tmp_path)
    logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in tmp_path.rglob("*.log")]
    assert counts.faults == [], "\n".join([*counts.faults, *logs])
    assert counts.kills.total() >= 2 and counts.samples > 0


@pytest.mark.parametrize("shards", [1, 2])
def test_killed_processes_of_a_script_lose_no_sample_and_no_file(tmp_path: Path, shards: int) -> None:
    settings = ChaosSettings(
        script=True, seed=5 + shards, kills=4, shards=shards, workers=2, samples=1024, pause_ms=30
    )  # fmt: skip
    counts = run(settings, tmp_path)
    logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in tmp_path.rglob("*.log")]
    assert counts.faults == [], "\n".join([*counts.faults, *logs])
    assert counts.kills.total() >= 4 and counts.samples > 0


@given(data=st.data(), slices=st.integers(1, 3), epochs=st.integers(1, 7))
def test_weights_show_how_often_each_sample_was_applied(data, slices: int, epochs: int) -> None:
    samples = 6
    weights = initial_weights(slices, samples)
    wanted = np.zeros((slices, epochs, samples), np.int64)
    gradient = np.zeros_like(weights)
    for _ in range(data.draw(st.integers(0, 30))):
        epoch, start = data.draw(st.integers(0, epochs - 1)), data.draw(st.integers(0, samples - 1))
        stop = data.draw(st.integers(start + 1, samples))
        if (wanted[:, epoch, start:stop] == 7).any():
            continue
        write_gradient(gradient, slices, epoch, start, stop)
        weights -= np.float32(RATE) * gradient
        wanted[:, epoch, start:stop] += 1
    np.testing.assert_array_equal(applied_counts(weights, slices, epochs), wanted)


def test_an_update_applied_on_some_shards_only_is_detected() -> None:
    weights = initial_weights(1, 4)
    weights[2] -= 0.01
    with pytest.raises(ValueError, match="applied in part"):
        applied_counts(weights, 1, 2)
