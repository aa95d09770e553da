"""A gradient of leased samples is never pushed in another session than that of the lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.script_worker import ScriptWorker

GRADIENT, PULLED = np.ones(3, np.float32), np.full(3, 7, np.float32)
INFO = PushInfo((1,), lease=14, stop=8)


class Client:
    """A client of shards that records what is pushed."""

    def __init__(self) -> None:
        self.pushed: list[PushInfo] = []

    def push_pull(self, gradient: np.ndarray, info: PushInfo) -> Any:
        self.pushed.append(info)
        return SimpleNamespace(versions=(2,), replies=[SimpleNamespace(updates=0)], flat=gradient)

    def push(self, gradient: np.ndarray, info: PushInfo, pull: bool = True) -> None:
        self.pushed.append(info)

    def pulled(self) -> Any:
        return SimpleNamespace(versions=(2,), replies=[SimpleNamespace(updates=0)], flat=GRADIENT)


def worker(before_call: Callable[[Any], None]) -> tuple[Any, Client]:
    """Return a worker in session 1, and its client; `before_call` acts while the exchange is about to begin."""
    member: Any = ScriptWorker.__new__(ScriptWorker)
    client = Client()
    member._session = SimpleNamespace(number=1, client=client, check=lambda: None)
    member._past, member._in_call, member.outdated, member._sent = None, True, False, (0, None)
    member._renewal = threading.Lock()
    member._job = SimpleNamespace(reconnect_s=1.0)

    def run(call: Callable[[], Any]) -> Any:
        before_call(member)
        return call()

    member._run = run
    member.pull = lambda: (PULLED, None)
    return member, client


def renewed(member: Any) -> None:
    member._session.number = 2


def pushed(member: Any, how: str) -> Any:
    if how == "send":
        member.send(GRADIENT, INFO)
        return member.receive()
    return getattr(member, how)(GRADIENT, INFO)


@pytest.mark.parametrize("how", ["push_pull", "push", "send"])
def test_a_session_that_begins_before_the_exchange_voids_the_push(how: str) -> None:
    member, client = worker(renewed)
    assert pushed(member, how) is PULLED and client.pushed == []


@pytest.mark.parametrize("how", ["push_pull", "push", "send"])
def test_a_session_that_another_thread_has_begun_voids_the_push(how: str) -> None:
    member, client = worker(lambda member: None)
    member._session.number, member.outdated = 2, True
    assert pushed(member, how) is PULLED and client.pushed == []


@pytest.mark.parametrize("how", ["push_pull", "push", "send"])
def test_a_gradient_is_pushed_in_the_session_of_its_lease(how: str) -> None:
    member, client = worker(lambda member: None)
    pushed(member, how)
    assert client.pushed == [INFO]


@pytest.mark.parametrize(("outdated", "sessions"), [(False, [1]), (True, [])])
def test_the_use_of_samples_is_reported_in_the_session_of_their_lease_alone(
    outdated: bool, sessions: list[int]
) -> None:
    """A lease of the next session may have the same number."""
    member, _ = worker(lambda member: None)
    reported: list[int] = []
    member._control = SimpleNamespace(report_use=lambda session, epoch, use: reported.append(session))
    member.outdated, member.epoch = outdated, 0
    member.report_use(14, 8)
    assert reported == sessions
