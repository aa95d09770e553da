"""A deputy takes over from a worker's thread that stays in a step, and only then."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from downpour.protos.errors import Unreachable
from downpour.worker.exchange.outage import CoordinatorGone, Outage
from downpour.worker.train import watchdog
from downpour.worker.train.watchdog import Watchdog
from tests.support.cluster import DEADLINE_S


@dataclass
class Job:
    """A job as a worker's heartbeat tells of it, and what became of the worker."""

    hurried: bool = False
    over: str = ""
    code: int | None = None
    did: list[str] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> int:
        self.did.append("finish")
        return 0

    def leave(self, code: int) -> NoReturn:
        self.code = code
        self.left.set()
        while True:
            threading.Event().wait()  # a process that has ended does nothing more

    def deputy(self) -> Watchdog:
        return Watchdog(lambda: self, self.finish, lambda: self.did.append("goodbye"), self.leave)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK_S", "GRACE_S", "LAST_S"):
        monkeypatch.setattr(watchdog, name, 0.01)


def in_a_step(deputy: Watchdog) -> tuple[threading.Event, threading.Event]:
    """A thread in a step that lasts until the first event is set; it sets the second if it comes out of it."""
    entered, ends, out = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with deputy.step():
            entered.set()
            ends.wait()
        out.set()

    threading.Thread(target=work, daemon=True).start()
    assert entered.wait(DEADLINE_S)
    return ends, out


def test_a_step_that_does_not_end_is_given_up_and_its_thread_goes_no_further() -> None:
    job = Job()
    deputy = job.deputy()
    ends, out = in_a_step(deputy)
    deputy.start()
    job.hurried = True
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["finish", "goodbye"], 0)
    ends.set()
    assert not out.wait(0.1)


def test_a_worker_that_cannot_finish_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(hurried=True)

    def fails() -> int:
        raise Unreachable("nobody answers")

    deputy = Watchdog(lambda: job, fails, lambda: job.did.append("goodbye"), job.leave)
    in_a_step(deputy)
    deputy.start()
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["goodbye"], 1)
    assert "could not finish the job: nobody answers" in capsys.readouterr().err


def test_who_is_in_no_step_is_left_alone_and_who_is_in_one_goes_on_without_haste() -> None:
    job = Job()
    deputy = job.deputy()
    ends, out = in_a_step(deputy)
    deputy.start()
    ends.set()
    assert out.wait(DEADLINE_S)
    job.hurried = True
    assert not job.left.wait(0.2)
    deputy.stop()
    assert job.did == []


@pytest.mark.parametrize(("over", "code"), [("ended", 0), ("failed", 1)])
def test_a_worker_that_does_not_hear_of_the_end_ends_too(over: str, code: int) -> None:
    job = Job(over=over)
    job.deputy().start()
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["goodbye"], code)


def test_a_server_is_waited_for_as_long_as_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    absence = Outage("host:1")
    assert not absence.missed() and absence.away  # nothing has been said: a call's own deadline holds
    absence.wait_for(600.0)
    assert absence.missed()
    absence.answered()
    assert not absence.away
    absence.wait_for(0.0)
    absence.missed()
    with pytest.raises(CoordinatorGone, match="host:1 is gone, while its job was ending"):
        while True:
            absence.missed()
    assert capsys.readouterr().err == ""
