"""A barrier sums what the workers bring once all live ones have arrived, whatever the order."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.fit.epoch_barrier import EpochBarrier

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6), st.randoms())
def test_the_sums_do_not_depend_on_the_order_of_arrival(values: list[tuple[float, float]], order: object) -> None:
    sums = []
    for arrivals in itertools.islice(itertools.permutations(range(len(values))), 5):
        barrier = EpochBarrier()
        for worker in arrivals:
            assert barrier.sums is None and not barrier.complete(range(len(values)))
            barrier.arrive(worker, values[worker])
        assert barrier.complete(range(len(values)))
        assert barrier.sums is not None
        sums.append(barrier.sums)
    assert all(found == sums[0] for found in sums)
    assert sums[0] == pytest.approx([math.fsum(column) for column in zip(*values, strict=True)], abs=1e-3)


def test_the_barrier_does_not_wait_for_a_worker_that_has_left() -> None:
    barrier = EpochBarrier()
    barrier.arrive(0, [1.0])
    assert not barrier.complete([0, 1])
    assert barrier.complete([0])
    assert barrier.sums == [1.0]


def test_the_contribution_of_a_worker_that_leaves_early_counts() -> None:
    barrier = EpochBarrier()
    barrier.arrive(1, [2.0])
    barrier.arrive(0, [1.0])
    assert barrier.complete([0])
    assert barrier.sums == [3.0]


def test_a_barrier_without_arrivals_is_not_complete() -> None:
    assert not EpochBarrier().complete([])


def test_a_barrier_completes_once_and_ignores_later_values() -> None:
    barrier = EpochBarrier()
    barrier.arrive(0, [1.0])
    assert barrier.complete([0])
    barrier.arrive(1, [5.0])
    assert not barrier.complete([0, 1])
    assert barrier.sums == [1.0]


def test_a_second_arrival_of_a_worker_is_ignored() -> None:
    barrier = EpochBarrier()
    barrier.arrive(0, [1.0])
    barrier.arrive(0, [1.0])
    assert barrier.complete([0])
    assert barrier.sums == [1.0]


def test_a_worker_without_a_batch_contributes_nothing() -> None:
    barrier = EpochBarrier()
    barrier.arrive(0, [])
    barrier.arrive(1, [2.0, 3.0])
    assert barrier.complete([0, 1])
    assert barrier.sums == [2.0, 3.0]


def test_other_metrics_than_the_others_are_refused() -> None:
    barrier = EpochBarrier()
    barrier.arrive(0, [1.0, 2.0])
    with pytest.raises(InvalidRequest, match="2 numbers; worker 1 sent 1"):
        barrier.arrive(1, [1.0])
    assert not barrier.complete([0, 1])


def test_the_names_are_those_of_the_workers_with_values_whatever_the_order() -> None:
    for order in itertools.permutations([(0, [], []), (1, [1.0, 2.0], ["loss"]), (2, [3.0, 4.0], ["loss"])]):
        barrier = EpochBarrier()
        for worker, values, names in order:
            barrier.arrive(worker, values, names)
        assert barrier.complete([0, 1, 2])
        assert (barrier.sums, barrier.names) == ([4.0, 6.0], ["loss"])
        assert EpochBarrier.restored(barrier.sums, names=barrier.names).names == ["loss"]


def test_parts_of_the_validation_are_summed_once_all_live_workers_have_evaluated_theirs() -> None:
    barrier = EpochBarrier()
    assert barrier.validation([]) == ([], []) and barrier.unvalidated([0, 1]) == set()
    barrier.validate(0, [1.0, 2.0])
    assert barrier.validation([0, 1, 2]) == ([], []) and barrier.unvalidated([0, 1, 2]) == {1, 2}
    barrier.validate(2, [])  # it has no part
    barrier.validate(0, [9.0, 9.0])  # a repetition
    assert barrier.validation([0, 2]) == ([0, 2], [1.0, 2.0])  # worker 1 has died
    barrier.validate(1, [3.0, 4.0])
    assert barrier.validation([0, 1, 2]) == ([0, 1, 2], [4.0, 6.0])
    with pytest.raises(InvalidRequest, match="state of the same metrics, 2 numbers; worker 3 sent 1"):
        barrier.validate(3, [1.0])
