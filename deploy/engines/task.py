"""Runs the processes of one task of an engine: restarts those that die, and ends with the job.

Unlike the local launcher, it sees only its own processes. The coordinator ends the job, and every process ends with it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from downpour.deploy.engines.announcement import NoAnnouncement, announce, announce_failure, await_announcement
from downpour.deploy.engines.place import EnginePlace
from downpour.deploy.engines.task_plan import LOOPBACK
from downpour.deploy.launch.launcher import ANNOUNCE_S, DRAIN_REASON, GRACE_S, INTERRUPTED, LEAVE_S
from downpour.deploy.launch.outcome import conclude
from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import ON_PURPOSE, POLL_S, ParentPipe, Process, end, kill, wait
from downpour.deploy.launch.run_dir import SUCCESSFUL, read_summary, summary_stamp
from downpour.deploy.launch.signals import StopRequests
from downpour.deploy.view.terminal import Screen
from downpour.deploy.view.watcher import Watcher
from downpour.protos.credentials import AccessSettings, adopt
from downpour.protos.settings import reachable

TICK_S = 0.1
# Engines announce the end of an allocation with a signal that the user chooses.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class TaskFailed(Exception):
    """The task cannot continue; the message gives the reason."""


@dataclass(frozen=True)
class TaskRequest:
    """What a task runs.

    Attributes:
        place: The place of the task.
        specs: Its processes, in the order in which they start.
        run_dir: The run directory, which exists on the first task.
        host: The name under which other nodes reach this one.
        access: The credentials of the job, whose files exist once the first server has announced its address.
        drained: A function that is called on the first task once a signal has ended the job with a checkpoint.
    """

    place: EnginePlace
    specs: Sequence[ProcessSpec]
    run_dir: Path
    host: str
    access: AccessSettings
    drained: Callable[[], None]


class EngineTask:
    """The processes of one task, and their supervision."""

    def __init__(self, request: TaskRequest, screen: Screen) -> None:
        """Prepare to run the processes; none is started yet.

        Args:
            request: What the task runs.
            screen: The screen that shows the progress of the job on the first task.
        """
        self._request, self._screen = request, screen
        self._run_dir, self._place = request.run_dir, request.place
        self._stops, self._parent_pipe = StopRequests(), ParentPipe()
        self._addresses = {"ps-0": request.place.first} if request.place.first else {}
        self._processes: dict[str, Process] = {}
        self._restarts: dict[str, int] = {}
        self._watcher: Watcher | None = None
        self._draining = False
        self._earlier_summary = summary_stamp(request.run_dir)

    def run(self) -> int:
        """Run the processes and return the exit status. None is left when this method returns or raises."""
        with self._stops.handled(SIGNALS):
            try:
                self._start()
                code = self._supervise()
            except (TaskFailed, NoAnnouncement) as failure:
                self._screen.note(f"downpour: {failure}")
                code = 1
                if self._request.specs[0].name == "ps-0":
                    announce_failure(self._run_dir, self._place.attempt, str(failure))
            finally:
                end(self._processes.values(), GRACE_S)
                kill(self._processes.values())
                self._parent_pipe.close()
                self._show()
                if self._watcher is not None:
                    self._watcher.close()
                self._screen.close()
        if "ps-0" in self._processes and code == 0:
            conclude(self._screen, self._run_dir, drained=self._draining)
            if self._draining:
                self._request.drained()
        return code

    # ---------------------------------------------------------------------------------------- start

    def _start(self) -> None:
        for spec in self._request.specs:
            if spec.needs and "ps-0" not in self._addresses:
                self._addresses["ps-0"] = self._await_first()
                adopt(self._request.access)
            self._spawn(spec)
            if spec.name == "ps-0":
                self._announce_first(self._processes["ps-0"])

    def _await_first(self) -> str:
        return await_announcement(self._run_dir, self._place.attempt, lambda: self._stops.count > 0)

    def _announce_first(self, server: Process) -> None:
        deadline = time.monotonic() + ANNOUNCE_S
        while (announcement := server.announcement()) is None:
            if server.code is not None:
                raise TaskFailed(f"ps-0 {server.ending()}: {server.reason()}")
            if time.monotonic() > deadline or self._stops.count:
                raise TaskFailed(f"ps-0 did not announce its address within {ANNOUNCE_S:.0f} s; see {server.log}")
            time.sleep(POLL_S)
        bound = str(announcement["address"])
        announce(self._run_dir, self._place.attempt, bound, self._request.host)
        adopt(self._request.access)
        self._addresses["ps-0"] = reachable(bound, LOOPBACK)
        self._screen.note(f"the run is in {self._run_dir}")
        access = f" --tls-dir {self._request.access.tls_dir}" if self._request.access.tls_dir else ""
        self._screen.note(f"follow it with: downpour status {self._run_dir} --watch{access}")
        self._watcher = Watcher(self._addresses["ps-0"])

    def _spawn(self, spec: ProcessSpec) -> None:
        self._processes[spec.name] = Process(spec, self._addresses, self._run_dir / "logs", self._parent_pipe)

    # ------------------------------------------------------------------------------------ supervise

    def _supervise(self) -> int:
        """Supervise the processes until the job, or this task's part of it, has ended; return the exit status."""
        while True:
            self._stops.changed.wait(TICK_S)
            self._show()
            if self._stops.count >= 2:
                return INTERRUPTED
            if self._stops.count == 1 and not self._draining:
                self._drain()
            codes = [self._checked(process) for process in list(self._processes.values())]
            first = self._processes.get("ps-0")
            if first is not None and first.code is not None:
                wait(self._processes.values(), LEAVE_S)
                return 0 if self._is_summarised() else first.code
            if all(code is not None for code in codes):
                return max(abs(code) for code in codes if code is not None)

    def _checked(self, process: Process) -> int | None:
        """Return the exit status of a process that is not started again, else None."""
        code, spec = process.code, process.spec
        if not code:
            return code
        if spec.role == "ps" and self._is_summarised():
            return 0
        if self._may_restart(process):
            count = self._restarts[spec.name] = self._restarts.get(spec.name, 0) + 1
            self._screen.note(f"{spec.name} {process.ending()}; restarted ({count} of {spec.restarts})")
            self._spawn(spec.again(self._bound(process)) if spec.role == "ps" else spec)
            return None
        if spec.name not in self._restarts or self._restarts[spec.name] >= 0:
            self._screen.note(f"{spec.name} {process.ending()}: {process.reason()}; its log is {process.log}")
            self._restarts[spec.name] = -1
            if spec.foreign:  # the other workers would wait for this one
                self._stop_job(f"{spec.name} {process.ending()}")
        return code

    def _may_restart(self, process: Process) -> bool:
        spec, code = process.spec, process.code or 0
        count = self._restarts.get(spec.name, 0)
        deterministic = code in ON_PURPOSE or (spec.role == "worker" and code > 0)
        return not deterministic and 0 <= count < spec.restarts and not self._draining

    def _bound(self, server: Process) -> str | None:
        """Return the address that a server was bound to, at which it is started again."""
        announcement = server.announcement()
        return None if announcement is None else str(announcement["address"])

    def _is_summarised(self) -> bool:
        """Return whether the coordinator has written that the job ended successfully since this task began."""
        if summary_stamp(self._run_dir) == self._earlier_summary:
            return False
        summary = read_summary(self._run_dir)
        return summary is not None and summary.get("status") in SUCCESSFUL

    def _show(self) -> None:
        if self._watcher is None:
            return
        progress, notes = self._watcher.take()
        for note in notes:
            self._screen.note(note)
        if progress is not None:
            self._screen.show(progress)

    # ------------------------------------------------------------------------------------------ end

    def _drain(self) -> None:
        """Ask the coordinator, if it is here, to save the job and end it; other tasks wait for that."""
        self._draining = True
        self._stops.changed.clear()
        first = self._processes.get("ps-0")
        if first is None:
            return
        self._screen.note("a signal was received: the job saves its progress and ends")
        if self._watcher is None or not self._watcher.stop(DRAIN_REASON, now=False):
            first.send(signal.SIGTERM)

    def _stop_job(self, reason: str) -> None:
        watcher = self._watcher or Watcher(self._addresses["ps-0"])
        watcher.stop(reason, now=True)
        if self._watcher is None:
            watcher.close()
