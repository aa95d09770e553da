"""Outcomes are counted and packed later, but every query sees all of them."""

from __future__ import annotations

import asyncio

import numpy as np

from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.trace.format import DTYPE
from downpour.ps.trace.metrics import Metrics
from downpour.ps.trace.outcome_log import OutcomeLog


def add(records: OutcomeLog, count: int, first: int = 1) -> None:
    for seq in range(first, first + count):
        records.add(Push(worker=1, incarnation=1, seq=seq, base_version=0), Result(Outcome.APPLIED, seq, seq - 1, 0.1))


def test_a_query_counts_all_outcomes_so_far() -> None:
    async def run() -> None:
        records = OutcomeLog(Metrics())
        add(records, 3)
        assert records.metrics.updates == 3
        add(records, 2, first=4)
        assert records.count == 5
        packed = np.frombuffer(records.take(), DTYPE)
        assert list(packed["seq"]) == [1, 2, 3, 4, 5]
        assert records.take() == b"" and records.count == 5

    asyncio.run(run())


def test_outcomes_are_counted_without_a_query() -> None:
    async def run() -> None:
        metrics = Metrics()
        add(OutcomeLog(metrics), 3)
        async with asyncio.timeout(30):
            while metrics.updates < 3:
                await asyncio.sleep(0)

    asyncio.run(run())


def test_without_an_event_loop_they_are_counted_at_once() -> None:
    metrics = Metrics()
    add(OutcomeLog(metrics), 2)
    assert metrics.updates == 2


def test_go_back_discards_outcomes_that_were_not_taken() -> None:
    async def run() -> None:
        records = OutcomeLog(Metrics())
        add(records, 4)
        records.go_back(2)
        assert records.count == 2 and records.take() == b""
        add(records, 1, first=3)
        assert records.count == 3 and len(records.take()) == DTYPE.itemsize

    asyncio.run(run())


def test_the_wait_of_a_push_begins_with_its_arrival() -> None:
    now = [10.0]
    records = OutcomeLog(Metrics(), clock=lambda: now[0])
    early, late = (Push(worker=worker, incarnation=1, seq=1, base_version=0) for worker in (1, 2))
    records.buffered(early)
    now[0] = 12.0
    for version, push in enumerate((early, late), 1):
        records.add(push, Result(Outcome.APPLIED, version, 0, 0.1))
    assert np.frombuffer(records.take(), DTYPE)["wait_s"].tolist() == [2.0, 0.0]


def test_the_time_of_a_record_is_when_it_came() -> None:
    async def run() -> None:
        now = [10.0]
        records = OutcomeLog(Metrics(), clock=lambda: now[0])
        now[0] = 11.5
        add(records, 1)
        now[0] = 20.0
        assert np.frombuffer(records.take(), DTYPE)["time_s"][0] == 1.5

    asyncio.run(run())
