"""What a stale gradient is worth, against the equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.buffers import Pool, Versions
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push
from downpour.ps.core.registry import forms
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import POLICIES, DelayCompensation, compensation_of

N = 6


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(N).astype(np.float32)


def shard_with(staleness: str, mode: str = "async", workers: int = 2, η: float = 0.5, **settings: object) -> Shard:
    rule = Optimizer("sgd", Hyperparameters(learning_rate=η), N)
    shard = Shard(vector(0), rule, consistency_of(mode), compensation_of(staleness), **settings)  # type: ignore[arg-type]
    for worker in range(workers):
        shard.join(worker, 1)
        shard.release(shard.pull(worker=worker)[0])
    return shard


def weights(shard: Shard) -> np.ndarray:
    buffer, _ = shard.pull()
    shard.release(buffer)
    return buffer.array.copy()


@given(st.integers(0, 500), st.integers(1, 64), st.floats(1e-4, 1.0))
def test_scales(staleness: int, live: int, η: float) -> None:
    def scale(name: str) -> float:
        return compensation_of(name).scale(staleness, live, η)

    assert scale("none") == scale("dc_asgd") == scale("dc_asgd_adaptive") == 1.0
    assert scale("inverse") == 1.0 / max(1, staleness)
    fresh = staleness <= live
    assert scale("delay_adaptive") == (1.0 if fresh else live / staleness)
    assert scale("delay_adaptive:2") == pytest.approx(1.0 if fresh else min(1.0, 1 / (4 * 2 * staleness * η)))
    assert scale("delay_adaptive:drop") == (1.0 if fresh else 0.0)


def test_a_gradient_that_is_too_stale_is_dropped_and_the_worker_informed() -> None:
    shard = shard_with("delay_adaptive:drop", workers=1)
    shard.push(Push(0, 1, 1, 0), vector(1))
    assert shard.push(Push(0, 1, 2, 0), vector(1)).outcome == Outcome.APPLIED
    result = shard.push(Push(0, 1, 3, 0), vector(1))
    assert (result.outcome, result.reason, result.staleness) == (Outcome.DROPPED, "stale", 2)


def test_inverse_scales_the_step_and_the_reply_contains_the_factor() -> None:
    shard = shard_with("inverse")
    for seq in range(1, 4):
        shard.push(Push(0, 1, seq, seq - 1), np.zeros(N, np.float32))
    before, g = weights(shard), vector(3)
    result = shard.push(Push(1, 1, 1, 0), g)
    assert result.staleness == 3 and result.learning_rate == pytest.approx(0.5 / 3)
    np.testing.assert_allclose(weights(shard), before - 0.5 / 3 * g, rtol=1e-6)


def test_softsync_weighs_each_gradient_by_its_own_staleness() -> None:
    shard = shard_with("inverse", "softsync:2")
    for seq in range(1, 7):
        shard.push(Push(0, 1, seq, (seq - 1) // 2), np.zeros(N, np.float32))
    before, old, new = weights(shard), vector(4), vector(5)
    shard.push(Push(1, 1, 1, 0, samples=3), old)
    result = shard.push(Push(0, 1, 7, 3, samples=1), new)
    assert result.staleness == 0 and result.learning_rate == 0.5
    recorded = shard.recorded(1, 1, 1)
    assert recorded is not None and recorded.learning_rate == pytest.approx(0.5 / 3)
    np.testing.assert_allclose(weights(shard), before - 0.5 * (3 / 4 * old / 3 + 1 / 4 * new), rtol=1e-5)


@pytest.mark.parametrize(("name", "strength"), [("dc_asgd:0.04", 0.04), ("dc_asgd:0.5,0", 0.5), ("dc_asgd:1b,0", 8.0)])
def test_dc_asgd_adds_the_diagonal_of_gg_times_the_distance(name: str, strength: float) -> None:
    shard = shard_with(name)
    base = weights(shard)
    for seq in range(1, 4):
        shard.push(Push(0, 1, seq, seq - 1), vector(seq) * np.float32(0.1))
    w, g = weights(shard), vector(9)
    assert shard.push(Push(1, 1, 1, 0, samples=16, steps=2), g).staleness == 3
    expected = w - 0.5 * (g + strength * g * g * (w - base))
    np.testing.assert_allclose(weights(shard), expected, rtol=1e-5)
    assert shard.uncorrected == 0


def test_dc_asgd_adaptive_divides_by_the_root_of_each_workers_mean_square() -> None:
    shard = shard_with("dc_asgd_adaptive:2,0")
    mean_square = {0: np.zeros(N), 1: np.zeros(N)}
    versions = [weights(shard)]
    seqs, bases = {0: 0, 1: 0}, {0: 0, 1: 0}
    for step, worker in enumerate([0, 0, 1, 0, 1, 1, 0]):
        g, w, base = vector(20 + step) * np.float32(0.3), versions[-1], versions[bases[worker]]
        mean_square[worker] = 0.95 * mean_square[worker] + 0.05 * g**2
        strength = 2 / np.sqrt(mean_square[worker] + 1e-7)
        seqs[worker] += 1
        shard.push(Push(worker, 1, seqs[worker], bases[worker]), g)
        shard.release(shard.answer(worker)[0])
        bases[worker] = shard.version
        versions.append(weights(shard))
        np.testing.assert_allclose(versions[-1], w - 0.5 * (g + strength * g * g * (w - base)), rtol=1e-4, atol=1e-6)


def test_a_correction_is_at_most_so_many_times_the_gradient() -> None:
    g, w, base = vector(1), vector(2) * 100, vector(3)
    for clip in (0.5, 1.0, 3.0):
        corrected = DelayCompensation((50.0, False), clip).correct(g, w, base, 0, 1.0)
        assert np.linalg.norm(corrected - g) == pytest.approx(clip * np.linalg.norm(g), rel=1e-5)
    huge = np.full(N, 1e30, np.float32)
    assert np.isfinite(DelayCompensation((50.0, False), 1.0).correct(huge, w, base, 0, 1.0)).all()


def test_a_fresh_gradient_is_never_corrected() -> None:
    for name in ("dc_asgd:5", "dc_asgd_adaptive"):
        shard, g = shard_with(name), vector(1)
        before = weights(shard)
        shard.push(Push(0, 1, 1, 0), g)
        np.testing.assert_allclose(weights(shard), before - np.float32(0.5) * g, rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(0, 5), st.integers(1, 2))
def test_old_versions_are_kept_for_workers_and_no_longer(steps: list[tuple[int, bool]], limit: int, depth: int) -> None:
    pool = Pool(2)
    versions = Versions(pool, limit, depth)
    for number, (worker, leaves) in enumerate(steps):
        buffer = pool.take()
        buffer.array[:] = number
        if leaves:
            versions.leave(worker)
        else:
            versions.pulled(worker, number, buffer)
            kept = versions.get(number)
            assert kept is None or (kept == number).all()
        pool.drop(buffer)
        assert versions.kept <= min(limit, 4 * depth)
    for worker in range(4):
        versions.leave(worker)
    assert versions.kept == 0 and len(pool._spare) == pool.allocated


def test_memory_for_old_weights_is_bounded_and_what_it_misses_is_counted() -> None:
    shard = shard_with("dc_asgd", workers=4, options=UpdateOptions(version_memory_bytes=2 * 4 * N))
    bases = [0] * 4
    for seq in range(1, 6):
        for worker in range(4):
            shard.push(Push(worker, 1, seq, bases[worker]), vector(seq))
            shard.release(shard.answer(worker)[0])
            bases[worker] = shard.version
            assert shard._versions.kept <= 2
    assert shard.uncorrected > 0


def test_momentum_makes_room_for_that_of_asynchrony() -> None:
    for mode, workers, expected in (
        ("async", 4, 0.9 - 0.75),
        ("async", 20, 0.0),
        ("bsp", 4, 0.9),
        ("softsync:3", 4, 0.4),
    ):
        rule = Optimizer("momentum", Hyperparameters(learning_rate=1.0, momentum=0.9), 1)
        shard = Shard(
            np.zeros(1, np.float32), rule, consistency_of(mode), options=UpdateOptions(momentum_correction=True)
        )
        for worker in range(workers):
            shard.join(worker, 1)
        count = {"bsp": workers, "softsync:3": 3}.get(mode, 1)
        for seq in (1, 2):
            for worker in range(count):
                gradient = np.full(1, 1.0 if seq == 1 else 0.0, np.float32)
                shard.push(Push(worker, 1, seq, shard.version), gradient)
        # After m = −1 and then no gradient: w = −1 − μ.
        assert -1 - shard.pull()[0].array[0] == pytest.approx(expected, abs=1e-6), mode


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dc_asgd:x", "LAMBDA a number of at least 0; with the suffix b"),
        ("dc_asgd:-1", "LAMBDA"),
        ("dc_asgd:1,2,3", r"must be written dc_asgd\[:LAMBDA\[,CLIP\]\]"),
        ("delay_adaptive:0", "L a number above 0, auto or drop"),
        ("inverse:2", "must be written inverse"),
        ("dcasgd", "did you mean dc_asgd"),
    ],
)
def test_an_unknown_policy_is_refused_with_the_syntax(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        compensation_of(name)


def test_the_registry_is_what_help_lists() -> None:
    assert set(POLICIES) == {"none", "inverse", "delay_adaptive", "dc_asgd", "dc_asgd_adaptive"}
    assert all(row.doc and name in forms(POLICIES) for name, row in POLICIES.items())
