"""How long a step may take follows the steps that were seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.coordinator.deadlines import FIRST_STEP_S, LEAST_SESSIONS, RECENT_STEPS, STEP_FACTOR, StepDeadlines


def stepped(*seconds: float) -> StepDeadlines:
    deadlines, now = StepDeadlines(session_s=1.0), 0.0
    for each in seconds:
        deadlines.begin(7, now)
        now += each
        deadlines.end(7, now)
    return deadlines


def test_before_the_first_step_the_limit_is_generous() -> None:
    deadlines = StepDeadlines(session_s=1.0)
    deadlines.begin(0, 0.0)
    assert deadlines.overdue(FIRST_STEP_S) == []
    assert deadlines.overdue(FIRST_STEP_S + 1) == [(0, FIRST_STEP_S + 1)]


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=30))
def test_a_worker_as_slow_as_the_slowest_so_far_is_not_overdue(seconds: list[float]) -> None:
    deadlines = stepped(*seconds)
    limit_s = deadlines.limit_s()
    assert limit_s == pytest.approx(max(LEAST_SESSIONS * 1.0, STEP_FACTOR * max(seconds)), rel=1e-6)
    deadlines.begin(1, 0.0)
    assert deadlines.overdue(limit_s * 0.999) == []
    assert [worker for worker, _ in deadlines.overdue(limit_s * 1.001)] == [1]


def test_a_slow_step_is_forgotten_eventually() -> None:
    deadlines = stepped(1000.0, *[0.5] * RECENT_STEPS)
    assert deadlines.limit_s() == pytest.approx(STEP_FACTOR * 0.5)


def test_the_time_that_a_worker_waits_for_others_does_not_count() -> None:
    deadlines = stepped(1.0)
    deadlines.begin(0, 0.0)
    deadlines.put_off(0, 1e6)
    deadlines.put_off(1, 1e6)  # has nothing to do
    assert deadlines.overdue(1e6 + 1) == []
    deadlines.forget(0)
    assert deadlines.overdue(1e9) == []


def test_an_evaluation_has_limits_of_its_own() -> None:
    deadlines = stepped(0.01)
    deadlines.begin(0, 0.0, task=True)
    assert deadlines.overdue(FIRST_STEP_S) == []
    deadlines.end(0, 100.0)
    assert deadlines.limit_s(task=True) == STEP_FACTOR * 100.0
    assert deadlines.limit_s() == LEAST_SESSIONS * 1.0
