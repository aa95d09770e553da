"""A shard's rules one by one, and the laws that hold in every mode and under every policy."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos.errors import Fenced, FutureVersion, InvalidRequest, UnknownWorker
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.ps.core.dedup import REMEMBERED_OUTCOMES
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.rules.update_rules import OPTIMIZERS
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import POLICIES, compensation_of

N = 4


def make(mode: str = "async", optimizer: str = "sgd", policy: str = "none", state: int = 0, updates: int = 0) -> Shard:
    """A shard at zero with a rate of 1 and worker 0, incarnation 1, in it."""
    rule = Optimizer(optimizer, Hyperparameters(learning_rate=1.0), N)
    rule.step = updates
    shard = Shard(np.zeros(N + state, np.float32), rule, consistency_of(mode), compensation_of(policy))
    shard.join(0, 1)
    return shard


def ones(n: int = N) -> np.ndarray:
    return np.ones(n, np.float32)


def test_a_push_updates_the_weights_and_returns_its_staleness() -> None:
    shard = make()
    shard.join(1, 1)
    assert shard.push(Push(0, 1, 1, 0), ones()) == Result(Outcome.APPLIED, 1, 0, 1.0)
    assert shard.push(Push(1, 1, 1, 0), ones()) == Result(Outcome.APPLIED, 2, 1, 1.0)
    buffer, version = shard.pull()
    assert version == 2 and (buffer.array == -2).all()


def test_state_is_added_not_descended() -> None:
    shard = make(state=2)
    shard.push(Push(0, 1, 1, 0), ones(N + 2))
    assert shard.pull()[0].array.tolist() == [-1.0] * N + [1.0] * 2


def test_assigned_weights_are_no_update() -> None:
    shard = make(state=1)
    held, _ = shard.pull()
    shard.assign(np.array([np.nan, 5.0] + [np.nan] * (N - 1), np.float32), partial=True)
    buffer, version = shard.pull()
    assert version == 0 and buffer.array.tolist() == [0.0, 5.0] + [0.0] * (N - 1)
    assert not held.array.any()
    shard.assign(np.full(N + 1, np.nan, np.float32))
    assert np.isnan(shard.pull()[0].array).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_slots_that_are_moved_to_another_shard_continue_there(optimizer: str) -> None:
    first, second, whole = (make(optimizer=optimizer, state=2, updates=updates) for updates in (0, 1, 0))
    first.push(Push(0, 1, 1, 0), ones(N + 2))
    second.assign(first.pull()[0].array)
    for name in Optimizer(optimizer, Hyperparameters(), N).slots:
        copy, _ = first.pull_slot(name)
        assert not copy.array[N:].any()
        second.assign_slot(name, copy.array)
        first.release(copy)
    with pytest.raises(InvalidRequest, match="must be one of .*; received 'memory'"):
        first.pull_slot("memory")
    second.push(Push(0, 1, 1, 0), ones(N + 2))
    for seq in (1, 2):
        whole.push(Push(0, 1, seq, seq - 1), ones(N + 2))
    np.testing.assert_array_equal(second.pull()[0].array, whole.pull()[0].array)


def test_a_duplicate_push_is_applied_once_and_returns_the_cached_reply() -> None:
    shard = make()
    observed: list[Push] = []
    shard.observe(lambda push, result: observed.append(push))
    first = shard.push(Push(0, 1, 1, 0), ones())
    shard.push(Push(0, 1, 2, 1), ones())
    assert shard.push(Push(0, 1, 1, 0), ones()) == first
    assert shard.version == 2 and [push.seq for push in observed] == [1, 2]


def test_a_push_too_old_to_remember_is_refused_not_applied_again() -> None:
    shard = make()
    for seq in range(1, REMEMBERED_OUTCOMES + 2):
        shard.push(Push(0, 1, seq, 0), ones())
    with pytest.raises(InvalidRequest, match="received 1"):
        shard.push(Push(0, 1, 1, 0), ones())
    assert shard.version == REMEMBERED_OUTCOMES + 1


@pytest.mark.parametrize(
    ("push", "gradient", "error", "says"),
    [
        (Push(7, 1, 1, 0), ones(), UnknownWorker, "worker 7 .* register again"),
        (Push(0, 2, 1, 0), ones(), UnknownWorker, "knows incarnation 1"),
        (Push(0, 1, 0, 0), ones(), InvalidRequest, "seq must be 1 or more; received 0"),
        (Push(0, 1, 1, 0), ones(3), InvalidRequest, "must have 4 elements; received 3"),
        (Push(0, 1, 1, 5), ones(), FutureVersion, "at most the shard's version, 0; received 5"),
        (Push(0, 1, 1, 0, samples=0), ones(), InvalidRequest, "samples"),
    ],
)
def test_an_invalid_push_is_refused_and_changes_nothing(
    push: Push, gradient: np.ndarray, error: type[Exception], says: str
) -> None:
    shard = make()
    with pytest.raises(error, match=says):
        shard.push(push, gradient)
    assert shard.version == 0 and not shard.pull()[0].array.any()
    assert shard.push(Push(0, 1, 1, 0), ones()).outcome == Outcome.APPLIED


def test_a_gradient_for_another_generation_is_fenced() -> None:
    with pytest.raises(Fenced, match="generation 1 .* generation 2"):
        make().check_generation(2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(N))
def test_a_gradient_with_nan_at_any_position_is_dropped(value: float, place: int) -> None:
    shard = make()
    gradient = ones()
    gradient[place] = value
    result = shard.push(Push(0, 1, 1, 0, norm=1.0), gradient)
    assert (result.outcome, result.reason, shard.version) == (Outcome.DROPPED, "nonfinite", 0)


def test_finite_gradients_whose_squares_overflow_are_applied() -> None:
    assert make().push(Push(0, 1, 1, 0), np.full(N, 1e30, np.float32)).outcome == Outcome.APPLIED


def test_pins_outlive_pushes_and_end_with_unpin() -> None:
    shard = make()
    shard.pin(3)
    shard.push(Push(0, 1, 1, 0), ones())
    buffer, version = shard.pull(3)
    assert version == 0 and not buffer.array.any()
    shard.unpin(3)
    with pytest.raises(InvalidRequest, match="pin 3"):
        shard.pull(3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_drives_a_shard(name: str) -> None:
    shard = make(optimizer=name)
    shard.push(Push(0, 1, 1, 0), ones())
    assert shard.version == 1 and (shard.pull()[0].array < 0).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_leaves_a_fresh_gradient_whole(policy: str) -> None:
    shard = make(policy=policy)
    assert shard.push(Push(0, 1, 1, 0), ones()).learning_rate == pytest.approx(1.0)


@pytest.mark.parametrize("mode", [row.example for row in MODES.values()])
@given(workers=st.integers(1, 4), steps=st.integers(1, 40), seed=st.integers(0, 999))
@settings(max_examples=25)
def test_laws_of_every_mode(mode: str, workers: int, steps: int, seed: int) -> None:
    """Outcomes are final and reported once, versions only grow, and no worker waits once all have left."""
    shard, choose = make(mode), random.Random(seed)
    observed: Counter[tuple[int, int]] = Counter()
    shard.observe(lambda push, result: observed.update([(push.worker, push.seq)]))
    for worker in range(1, workers):
        shard.join(worker, 1)
    bases, seqs, versions = dict.fromkeys(range(workers), 0), Counter[int](), [0]
    waiting: set[int] = set()
    for _ in range(steps):
        ready = sorted(bases.keys() - waiting)
        assert ready, "some live worker can always proceed"
        worker = choose.choice(ready)
        seqs[worker] += 1
        shard.push(Push(worker, 1, seqs[worker], bases[worker]), ones())
        versions.append(shard.version)
        waiting.add(worker)
        for each in [each for each in waiting if shard.may_proceed(each)]:  # its reply leaves, with these weights
            waiting.remove(each)
            bases[each] = shard.version
    assert versions == sorted(versions)
    assert shard.version <= steps
    assert set(observed.values()) <= {1} and sum(observed.values()) <= steps
    for worker in bases:
        shard.leave(worker)
        assert shard.may_proceed(worker)
