"""How long a step may take follows the steps that were seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.coordinator.step_deadline import FIRST_S, RECENT, SESSIONS, TIMES, StepDeadlines


def stepped(*seconds: float) -> StepDeadlines:
    pace, now = StepDeadlines(session_s=1.0), 0.0
    for each in seconds:
        pace.begin(7, now)
        now += each
        pace.end(7, now)
    return pace


def test_before_the_first_step_the_limit_is_generous() -> None:
    pace = StepDeadlines(session_s=1.0)
    pace.begin(0, 0.0)
    assert pace.overdue(FIRST_S) == []
    assert pace.overdue(FIRST_S + 1) == [(0, FIRST_S + 1)]


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=30))
def test_nobody_is_overdue_who_is_as_slow_as_the_slowest_was(seconds: list[float]) -> None:
    pace = stepped(*seconds)
    limit_s = pace.limit_s()
    assert limit_s == pytest.approx(max(SESSIONS * 1.0, TIMES * max(seconds)), rel=1e-6)
    pace.begin(1, 0.0)
    assert pace.overdue(limit_s * 0.999) == []
    assert [worker for worker, _ in pace.overdue(limit_s * 1.001)] == [1]


def test_a_slow_step_is_forgotten_in_the_end() -> None:
    pace = stepped(1000.0, *[0.5] * RECENT)
    assert pace.limit_s() == pytest.approx(TIMES * 0.5)


def test_what_a_worker_waits_for_others_is_no_part_of_its_step() -> None:
    pace = stepped(1.0)
    pace.begin(0, 0.0)
    pace.put_off(0, 1e6)
    pace.put_off(1, 1e6)  # has nothing to do
    assert pace.overdue(1e6 + 1) == []
    pace.forget(0)
    assert pace.overdue(1e9) == []


def test_an_evaluation_has_limits_of_its_own() -> None:
    pace = stepped(0.01)
    pace.begin(0, 0.0, task=True)
    assert pace.overdue(FIRST_S) == []
    pace.end(0, 100.0)
    assert pace.limit_s(task=True) == TIMES * 100.0
    assert pace.limit_s() == SESSIONS * 1.0
