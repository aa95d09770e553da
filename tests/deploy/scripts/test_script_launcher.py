"""How `ScriptLauncher` ends a job, with processes that only state how they ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from downpour.deploy.launch.launcher import LaunchFailed
from downpour.deploy.launch.reasons import Reasons
from downpour.deploy.scripts import script_launcher
from downpour.deploy.scripts.script_launcher import ScriptLauncher


class Ended:
    """A process of a worker that runs for the first `looks` looks at its code, and has then ended with 0."""

    def __init__(self, number: int, looks: int) -> None:
        self.spec = SimpleNamespace(role="worker", name=f"worker-{number}", number=number, restarts=3)
        self._looks = looks

    @property
    def code(self) -> int | None:
        self._looks -= 1
        return None if self._looks >= 0 else 0


class Stops:
    """A coordinator's watcher that records the requests to stop."""

    phase, workers = "training", 0

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def stop(self, reason: str, now: bool, complete: bool = False) -> bool:
        self.reasons.append(reason)
        return True


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("looks", range(8))
def test_the_coordinator_is_told_once_whenever_the_workers_end(
    looks: int, draining: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_launcher, "wait", lambda processes, timeout_s: True)
    launcher: Any = ScriptLauncher.__new__(ScriptLauncher)
    launcher._processes = {"worker-0": Ended(0, looks), "worker-1": Ended(1, 0)}
    launcher._given_up, launcher._restarts, launcher._stepped = set(), {}, set()
    launcher._ending_deadline, launcher._drain_deadline = None, 1e12 if draining else None
    launcher._watcher, launcher._poll = Stops(), lambda: None
    for _ in range(12):
        launcher._check_workers()
    assert launcher._watcher.reasons == ["the script has ended"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_restarted_worker_that_is_refused_does_not_end_the_job_of_the_others(restarted: bool) -> None:
    launcher: Any = ScriptLauncher.__new__(ScriptLauncher)
    spec = SimpleNamespace(role="worker", name="worker-1", number=1)
    refused = SimpleNamespace(code=3, spec=spec, reason=lambda: "why")
    launcher._processes, launcher._given_up, launcher._drain_deadline = {"worker-1": refused}, {"worker-1"}, None
    launcher._reasons = Reasons()
    launcher._restarts = {"worker-1": 1} if restarted else {}
    if restarted:
        launcher._check_given_up()
    else:
        with pytest.raises(LaunchFailed, match="worker-1 stopped: unsupported configuration: why"):
            launcher._check_given_up()


@pytest.mark.parametrize("ends", [True, False])
def test_a_worker_whose_script_ends_late_has_time_and_is_named_if_it_does_not(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    ended: list[Any] = []
    late = SimpleNamespace(code=None, spec=SimpleNamespace(role="worker", name="worker-1"))

    def wait(processes: Any, timeout_s: float) -> bool:
        waited.append(timeout_s)
        return ends and len(waited) == 2

    monkeypatch.setattr(script_launcher, "wait", wait)
    monkeypatch.setattr(script_launcher, "end", lambda processes, grace_s: ended.extend(processes))
    notes: list[str] = []
    launcher: Any = ScriptLauncher.__new__(ScriptLauncher)
    launcher._processes, launcher._ending_deadline = {"worker-1": late}, None
    launcher._screen, launcher._watcher = SimpleNamespace(note=notes.append), Stops()
    launcher._end_script()
    assert sum(waited) > 60 and "waiting for worker-1 at most 60 s" in notes[0]
    assert ended == ([] if ends else [late])
    assert ends or notes[1:] == ["worker-1 did not end and is stopped: files that it did not write are lost"]


def test_the_number_of_workers_is_that_of_a_message_after_the_end_of_worker_0() -> None:
    """An older message may not contain yet the worker that trains on."""
    launcher: Any = ScriptLauncher.__new__(ScriptLauncher)
    trains = SimpleNamespace(code=None, spec=SimpleNamespace(role="worker", name="worker-1"))
    launcher._processes = {"worker-1": trains}
    launcher._watcher = SimpleNamespace(workers=0, messages=3)
    assert not launcher._others_are_done()
    assert not launcher._others_are_done()
    launcher._watcher.messages = 4
    assert launcher._others_are_done()
    launcher._watcher.messages = 3
    launcher._last_message_at_s -= script_launcher.OTHERS_S  # no message any more
    assert launcher._others_are_done()
