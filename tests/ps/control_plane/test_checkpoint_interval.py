"""Checkpoints are as far apart as was asked for, and at least twenty times as far as one takes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.control_plane.checkpoint_interval import APART_FACTOR, CheckpointInterval
from downpour.ps.control_plane.checkpointer import kind_of_failure


@given(every_s=st.floats(0.01, 100), took_s=st.floats(0, 50), begun_s=st.floats(0, 1e6))
def test_two_checkpoints_are_twenty_times_their_duration_apart(every_s: float, took_s: float, begun_s: float) -> None:
    interval = CheckpointInterval(every_s, 0)
    assert interval.is_due(0.0, 0)
    ended_s = begun_s + took_s
    interval.taken(begun_s, ended_s, 7)
    due_s = max(begun_s + every_s, ended_s + APART_FACTOR * (ended_s - begun_s))
    assert due_s - ended_s >= 20 * (ended_s - begun_s) - 1e-6
    assert not interval.is_due(math.nextafter(due_s, 0.0), 10**9)
    assert interval.is_due(due_s, 7)


def test_updates_count_where_they_were_asked_for() -> None:
    interval = CheckpointInterval(0.0, 500)
    interval.taken(100.0, 101.0, version=40)
    assert not interval.is_due(200.0, 539)
    assert interval.is_due(200.0, 540)
    assert not interval.is_due(101.0 + 19.9, 10_000)  # many updates, but one takes long


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_no_checkpoint_is_due_if_the_interval_is_off(now: float) -> None:
    assert not CheckpointInterval(0.0, 0).is_due(now, 10**9)
    assert not CheckpointInterval(0.0, 0).enabled


def test_the_kind_of_failure_a_failed_checkpoint_is_the_same_for_every_file() -> None:
    """Otherwise each attempt on a full disk would add a note of its own."""
    failures = [OSError(28, "No space left on device", f"checkpoint-{number}") for number in range(2)]
    assert {kind_of_failure(failure) for failure in failures} == {"No space left on device"}
