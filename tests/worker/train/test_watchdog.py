"""A watchdog takes over from a worker's thread that stays in a step, and only then."""

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
    """A job as a worker's heartbeat reports it, and what became of the worker."""

    ending: bool = False
    over: str = ""
    code: int | None = None
    did: list[str] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def finish(self) -> int:
        self.did.append("finish")
        return 0

    def exit(self, code: int) -> NoReturn:
        self.code = code
        self.left.set()
        while True:
            threading.Event().wait()  # a process that has ended does nothing more

    def watchdog(self) -> Watchdog:
        return Watchdog(self, self.finish, lambda: self.did.append("leave"), self.exit)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK_S", "GRACE_S", "LAST_S"):
        monkeypatch.setattr(watchdog, name, 0.01)


def in_a_step(dog: Watchdog) -> tuple[threading.Event, threading.Event]:
    """A thread in a step that lasts until the first event is set; it sets the second if it comes out of it."""
    entered, ends, out = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with dog.step():
            entered.set()
            ends.wait()
        out.set()

    threading.Thread(target=work, daemon=True).start()
    assert entered.wait(DEADLINE_S)
    return ends, out


def test_a_step_that_does_not_end_is_abandoned_and_its_thread_blocks() -> None:
    job = Job()
    dog = job.watchdog()
    ends, out = in_a_step(dog)
    dog.start()
    job.ending = True
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["finish", "leave"], 0)
    ends.set()
    assert not out.wait(0.1)


def test_a_worker_that_cannot_finish_logs_why_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(ending=True)

    def fails() -> int:
        raise Unreachable("nobody answers")

    dog = Watchdog(job, fails, lambda: job.did.append("leave"), job.exit)
    in_a_step(dog)
    dog.start()
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["leave"], 1)
    assert "could not finish the job: nobody answers" in capsys.readouterr().err


def test_the_watchdog_ends_neither_an_idle_thread_nor_a_step_of_a_live_job() -> None:
    job = Job()
    dog = job.watchdog()
    ends, out = in_a_step(dog)
    dog.start()
    ends.set()
    assert out.wait(DEADLINE_S)
    job.ending = True
    assert not job.left.wait(0.2)
    dog.stop()
    assert job.did == []


@pytest.mark.parametrize(("over", "code"), [("ended", 0), ("failed", 1)])
def test_a_worker_whose_main_thread_does_not_see_the_end_exits_too(over: str, code: int) -> None:
    job = Job(over=over)
    job.watchdog().start()
    assert job.left.wait(DEADLINE_S)
    assert (job.did, job.code) == (["leave"], code)


def test_an_outage_is_tolerated_for_as_long_as_was_set(capsys: pytest.CaptureFixture[str]) -> None:
    outage = Outage("host:1")
    assert not outage.missed() and outage.away  # no tolerance is set: a call's own deadline holds
    outage.tolerate(600.0)
    assert outage.missed()
    outage.answered()
    assert not outage.away
    outage.tolerate(0.0)
    outage.missed()
    with pytest.raises(CoordinatorGone, match="host:1 was lost while its job was ending"):
        while True:
            outage.missed()
    assert capsys.readouterr().err == ""
