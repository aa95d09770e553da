"""The scheduler of a simulated world: events in the order of their times, the same ones for the same seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downpour.bench.world.system.scheduler import EventLimit, World

TIMES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=2, max_size=8)


def order_of(seed: int, times: list[float]) -> tuple[list[int], World]:
    world, found = World(seed), []

    def happen(number: int) -> None:
        found.append(number)
        world.note(f"event {number}")

    for number, time_s in enumerate(times):
        world.at(time_s, None, happen, number)
    world.run(lambda: False, lambda process: None, len(times))
    return found, world


@given(st.integers(0, 100), TIMES)
def test_events_happen_once_each_in_the_order_of_their_times(seed: int, times: list[float]) -> None:
    found, world = order_of(seed, times)
    assert sorted(found) == list(range(len(times))) and world.events == len(times)
    assert [times[number] for number in found] == sorted(times)
    assert world.now == max(times)


@given(st.integers(0, 100), TIMES)
def test_a_seed_determines_the_order_of_events_at_one_time_and_the_checksum(seed: int, times: list[float]) -> None:
    (first, one), (again, other) = order_of(seed, times), order_of(seed, times)
    assert first == again and one.digest == other.digest


def test_other_seeds_have_other_orders_and_other_checksums() -> None:
    runs = [order_of(seed, [1.0] * 6) for seed in range(20)]
    assert len({tuple(found) for found, _ in runs}) > 10
    assert len({world.digest for _, world in runs}) > 10


def test_a_run_that_does_not_end_is_abandoned() -> None:
    world = World(1)

    def again() -> None:
        world.at(world.now + 1, None, again)

    world.at(0.0, None, again)
    try:
        world.run(lambda: False, lambda process: None, 5)
    except EventLimit as limit:
        assert "5 events" in str(limit)
    else:
        raise AssertionError("the run must be abandoned")
