"""A worker that a signal has stopped stays if the job drains, also if the coordinator answers late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unreachable
from downpour.worker.train import loop
from downpour.worker.train.loop import DRAIN_POLLS, job_drains


class Coordinator:
    """Answers heartbeats; the replies from one number on say that the job drains."""

    def __init__(self, drains_from: int | None = None, fails_at: int | None = None) -> None:
        self.replies, self.away = 0, False
        self._drains_from, self._fails_at = drains_from, fails_at

    def heartbeat(self, session: int) -> pb.HeartbeatReply:
        self.replies += 1
        if self.replies == self._fails_at:
            raise Unreachable("the server does not answer")
        return pb.HeartbeatReply(drain=self._drains_from is not None and self.replies >= self._drains_from)


@pytest.fixture(autouse=True)
def slow_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock says that ten seconds pass between any two readings."""
    now = iter(range(0, 1_000_000, 10))
    monkeypatch.setattr(loop, "clock", SimpleNamespace(monotonic=lambda: float(next(now))))
    monkeypatch.setattr(loop, "threads", SimpleNamespace(sleep=lambda s: None))


def asked(coordinator: Coordinator) -> tuple[bool, int]:
    control: Any = coordinator
    return job_drains(control, 7), coordinator.replies


@pytest.mark.parametrize("reply", [1, 2, DRAIN_POLLS])
def test_a_job_that_begins_to_drain_after_slow_replies_is_noticed(reply: int) -> None:
    assert asked(Coordinator(drains_from=reply)) == (True, reply)


def test_a_worker_leaves_a_job_that_does_not_drain() -> None:
    assert asked(Coordinator()) == (False, DRAIN_POLLS)


def test_a_worker_leaves_a_coordinator_that_is_away_or_refuses_it() -> None:
    assert asked(Coordinator(fails_at=2)) == (False, 2)
    away = Coordinator(drains_from=1)
    away.away = True
    assert asked(away) == (False, 0)
