"""The local launcher: starts the processes of a plan on this machine and supervises them until the job has ended.

Every process ends with the launcher, however the launcher ends (see child.py). The exit status is 0 if the job ended
or was drained, 1 if it failed, and 130 if it was stopped immediately.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from downpour.deploy.launch.outcome import conclude, explain, is_untrained
from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import ON_PURPOSE, POLL_S, ParentPipe, Process, end, kill, wait
from downpour.deploy.launch.reasons import AGAIN, Reasons
from downpour.deploy.launch.run_dir import SUCCESSFUL, read_summary, summary_stamp
from downpour.deploy.launch.scratch import Scratch
from downpour.deploy.launch.signals import StopRequests
from downpour.deploy.view.terminal import Screen
from downpour.deploy.view.watcher import ENDING, OVER, Watcher
from downpour.protos.access.job_tokens import draw_token, publish, withdraw
from downpour.protos.credentials import TOKEN_VARIABLE, adopted
from downpour.protos.sentences.sentence import USER_REQUESTED, counted

ANNOUNCE_S = 60.0  # for a server to announce its address
DRAIN_TIMEOUT_S = 7.0  # default of --drain-timeout-s; with the times below, all processes end within 10 s
ANSWER_S = 0.5  # for a server to report that the job was not saved in time
ENDING_S = 20.0  # for the coordinator to write the run after the last worker has left
LEFT_EARLY_S = 3.0  # from the end of a shard or the last worker until it is started again, unless the job ends by then
LEAVE_S = 5.0  # for the other processes to exit after the coordinator
GRACE_S = 1.0  # from SIGTERM to SIGKILL
TICK_S = 0.1
INTERRUPTED = 130
DRAIN_REASON = USER_REQUESTED


class LaunchFailed(Exception):
    """The job cannot continue; the message gives the reason."""


class StopNow(Exception):
    """The user requested that the job stops immediately."""


class Launcher:
    """Starts the processes of a plan, restarts those that die, and ends them with the job."""

    def __init__(
        self, specs: Sequence[ProcessSpec], run_dir: Path, screen: Screen, drain_timeout_s: float = DRAIN_TIMEOUT_S
    ) -> None:
        """Prepare to run processes; none is started yet.

        Args:
            specs: The processes, in the order in which they start.
            run_dir: Run directory; their logs are written below it.
            screen: The screen that shows the progress of the job.
            drain_timeout_s: The time from the request to end until the servers must have ended.
        """
        self._specs = list(specs)
        self._run_dir = run_dir
        self._screen = screen
        self._drain_s = drain_timeout_s + ANSWER_S
        self._parent_pipe = ParentPipe()
        self._token = "" if adopted().token else draw_token()  # loopback is open to all users of this machine
        self._addresses: dict[str, str] = {}
        self._processes: dict[str, Process] = {}
        self._scratch: Scratch | None = None
        self._restarts: dict[str, int] = {}
        self._given_up: set[str] = set()  # the names of the workers that are not restarted
        workers = [spec for spec in self._specs if spec.role == "worker"]
        logs = {spec.number: run_dir / "logs" / f"{spec.name}.log" for spec in workers}
        self._reasons = Reasons({spec.number for spec in workers if spec.shown or screen.has_shown(logs[spec.number])})
        self._stepped: set[int] = set()  # the numbers of the workers that have pushed an update
        self._watcher: Watcher | None = None
        self._wanted = 0  # the number of workers that the job wanted at the previous check
        self._stops = StopRequests()
        self._dashboard_announced = False
        self._failed = False  # from then on, notes only report the ends of other processes
        self._drain_deadline: float | None = None
        self._ending_deadline: float | None = None
        self._left_early: dict[str, float] = {}  # when a shard's end with status 0 was found, by name
        self._earlier_summary = summary_stamp(run_dir)  # of a run that is resumed

    def run(self) -> int:
        """Run the job and return the exit status. No process is left when this method returns or raises."""
        with self._stops.handled():
            with suppress(OSError):  # without it, the children use the default folder for temporary files
                self._scratch = Scratch()
            try:
                code = self._outcome()
            finally:
                kill(self._processes.values())
                if self._scratch is not None:
                    self._scratch.close()
                self._parent_pipe.close()
                self._show()
                for address in self._addresses.values():
                    withdraw(address)
                if self._watcher is not None:
                    self._watcher.close()
                self._screen.close()
        if code == 0:
            conclude(self._screen, self._run_dir, drained=self._drain_deadline is not None)
        return code

    def _outcome(self) -> int:
        try:
            self._start()
            self._supervise()
        except StopNow:
            self._stop_now()
            return INTERRUPTED
        except LaunchFailed as failure:
            self._show()
            self._failed = True
            explain(self._screen, self._run_dir, str(failure), self._processes.values(), self._reasons.has)
            self._stop_failed()
            return 1
        return 0

    # ---------------------------------------------------------------------------------------- start

    def _start(self) -> None:
        for spec in self._specs:
            self._spawn(spec)
            if spec.role == "ps":
                self._addresses[spec.name] = self._await_address(self._processes[spec.name])
                if self._token:
                    publish(self._addresses[spec.name], self._token)
            if self._watcher is None:
                address = self._addresses["ps-0"]
                self._screen.note(f"the run is in {self._run_dir}")
                self._screen.note(f"follow it with: downpour status {address} --watch")
                if not any(each.role == "dashboard" for each in self._specs):  # whose address is shown
                    self._screen.note(f"or in a browser: downpour dashboard {address}")
                self._watcher = Watcher(address, starts_workers=True)

    def _spawn(self, spec: ProcessSpec) -> None:
        kept: tuple[int, ...] = ()
        if self._token:
            spec = replace(spec, env={TOKEN_VARIABLE: self._token, **spec.env})
        if self._scratch is not None and not spec.foreign:
            spec = replace(spec, env={**spec.env, "TMPDIR": str(self._scratch.path)})
            kept = (self._scratch.holding,)
        process = Process(spec, self._addresses, self._run_dir / "logs", self._parent_pipe, kept)
        self._processes[spec.name] = process
        if process.no_log:
            self._screen.note(f"{spec.name} has no log: {process.log}: {process.no_log}")

    def _await_address(self, server: Process) -> str:
        deadline = time.monotonic() + ANNOUNCE_S
        while (announcement := server.announcement()) is None:
            if server.code is not None:
                raise LaunchFailed(f"{server.spec.name} {server.ending()} before it announced its address")
            if server.no_log:
                raise LaunchFailed(f"{server.spec.name} must have a log, in which it announces its address")
            if time.monotonic() > deadline:
                raise LaunchFailed(f"{server.spec.name} did not announce its address within {ANNOUNCE_S:.0f} s")
            if self._stops.count:  # there is nothing to drain yet
                raise StopNow
            self._show()  # of several servers, the first says what it waits for
            time.sleep(POLL_S)
        return str(announcement["address"])

    # ------------------------------------------------------------------------------------ supervise

    def _supervise(self) -> None:
        """Return when the job has ended successfully.

        Raises:
            LaunchFailed: The job cannot continue.
            StopNow: The user requested that the job stops immediately.
        """
        while not self._ended():
            self._stops.changed.wait(TICK_S)
            self._show()
            self._announce_dashboard()
            self._handle_stop_requests()
            self._add_workers()
            self._check_workers()
            self._check_deadlines()
        if self._drain_deadline is not None and is_untrained(self._run_dir):
            end(list(self._role("worker")), GRACE_S)  # they would wait for the server that has ended
        left_s = (self._drain_deadline or math.inf) - time.monotonic()
        if not wait(self._processes.values(), min(LEAVE_S, max(GRACE_S, left_s))):
            end(self._processes.values(), GRACE_S)
        self._ended()

    def _ended(self) -> bool:
        """Return whether the coordinator has ended successfully; all workers end before it.

        A server that dies once the summary of the job is written has nothing left to do: it is not restarted.
        """
        for process in list(self._role("ps")):
            if (process.code or self._has_left_early(process)) and not self._is_summarised():
                self._server_died(process)
        code = self._processes["ps-0"].code
        return code == 0 or (code is not None and self._is_summarised())

    def _has_left_early(self, server: Process) -> bool:
        """Return whether a shard ended with status 0 some time ago, by a signal, while the job continues without it."""
        name = server.spec.name
        ending = self._watcher is None or self._watcher.phase in ENDING or self._drain_deadline is not None
        if name == "ps-0" or server.code != 0 or ending:
            self._left_early.pop(name, None)
            return False
        return time.monotonic() > self._left_early.setdefault(name, time.monotonic()) + LEFT_EARLY_S

    def _is_summarised(self) -> bool:
        """Return whether the coordinator has written that the job ended successfully since this launcher began."""
        if summary_stamp(self._run_dir) == self._earlier_summary:
            return False
        summary = read_summary(self._run_dir)
        return summary is not None and summary.get("status") in SUCCESSFUL

    def _server_died(self, process: Process) -> None:
        """Restart a server at its address; it resumes from its latest checkpoint, and the workers reconnect.

        Raises:
            LaunchFailed: The server stopped on purpose, died too often, or died while the job was drained.
        """
        spec, count = process.spec, self._restarts.get(process.spec.name, 0) + 1
        if process.code not in ON_PURPOSE and count <= spec.restarts and self._drain_deadline is None:
            self._restarts[spec.name] = count
            self._screen.note(f"{spec.name} {process.ending()}; restarted ({count} of {spec.restarts})")
            self._spawn(spec.again(self._addresses.get(spec.name)))
            return
        wait(self._role("worker"), 0.5)  # their last lines may give the reason
        self._note_endings()
        raise LaunchFailed(f"{process.spec.name} {process.ending()}")

    def _check_workers(self) -> None:
        self._note_endings()
        for process in self._role("worker"):
            name = process.spec.name
            if not process.code or name in self._given_up:
                continue
            count = self._restarts.get(name, 0) + 1
            self._restarts[name] = count
            ending = f"{name} {process.ending()}"
            if process.code > 0:
                ending = self._reasons.at_restart(process.spec.number, ending, process.reason())
            self._screen.note(f"{ending}; restarted ({count} of {process.spec.restarts})")
            self._spawn(process.spec)
        if all(process.code is not None for process in self._role("worker")):
            if len(self._given_up) == len(list(self._role("worker"))):
                raise LaunchFailed("no worker is left")
            if self._ending_deadline is None or self._watcher is None or self._watcher.phase in OVER:
                self._begin_ending()
            elif self._drain_deadline is None and time.monotonic() > self._ending_deadline - ENDING_S + LEFT_EARLY_S:
                self._replace_workers()

    def _add_workers(self) -> None:
        """Start the workers that a user has added while the job runs."""
        workers = [spec for spec in self._specs if spec.role == "worker"]
        if self._watcher is None or self._drain_deadline is not None or not workers:
            return
        wanted = self._watcher.wanted
        before, self._wanted = self._wanted or wanted, wanted  # a coordinator that is restarted begins with fewer
        for number in range(len(workers), len(workers) + wanted - before):
            spec = workers[0].numbered(number)
            self._specs = [*self._specs, spec]
            self._screen.note(f"{spec.name} is added")
            self._spawn(spec)

    def _replace_workers(self) -> None:
        """Start a worker again after all have left, by a signal, before the job had ended.

        Raises:
            LaunchFailed: The workers have been restarted as often as they may.
        """
        left = [process for process in self._role("worker") if process.spec.name not in self._given_up]
        for process in left:
            count = self._restarts.get(process.spec.name, 0) + 1
            if count > process.spec.restarts:
                continue
            self._restarts[process.spec.name], self._ending_deadline = count, None
            again = f"{process.spec.name} is started again ({count} of {process.spec.restarts})"
            self._screen.note(f"all workers have left, and the job has not ended; {again}")
            self._spawn(process.spec)
            return
        raise LaunchFailed("all workers have left before the job had ended, and were restarted as often as they may be")

    def _begin_ending(self) -> None:
        """Set the deadline by which the coordinator must end."""
        self._ending_deadline = self._ending_deadline or time.monotonic() + ENDING_S

    def _note_endings(self) -> None:
        """Record and show the workers that are not restarted."""
        for process in self._role("worker"):
            name, code = process.spec.name, process.code
            if not code or name in self._given_up:
                continue
            if code in ON_PURPOSE or self._failed_at_start(process):
                event = "stopped" if code in ON_PURPOSE else f"{process.ending()} before its first step"
                again = f"{name} stopped {AGAIN}"
                note = self._reasons.at_end(process.spec.number, f"{name} {event}", process.reason(), again)
            elif self._drain_deadline is not None:
                note = f"{name} {process.ending()} while the job was draining"
            elif self._restarts.get(name, 0) >= process.spec.restarts:
                note = f"{name} {process.ending()}, after {counted(process.spec.restarts, 'restart')}"
            else:
                continue
            self._given_up.add(name)
            if note:
                self._screen.note(note)

    def _failed_at_start(self, process: Process) -> bool:
        """Return whether a worker has ended with an error of its own before its first step, as it would again."""
        first = process.spec.name not in self._restarts and process.spec.number not in self._stepped
        return first and process.code is not None and process.code > 0

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        if self._drain_deadline is not None and now > self._drain_deadline:
            raise LaunchFailed(f"the job did not end within {self._drain_s:.0f} s of the request to stop")
        if self._ending_deadline is not None and now > self._ending_deadline:
            raise LaunchFailed(f"the coordinator did not end within {ENDING_S:.0f} s after the last worker")

    def _role(self, role: str) -> Iterator[Process]:
        return (process for process in self._processes.values() if process.spec.role == role)

    def _show(self) -> None:
        if self._watcher is not None and not self._failed:
            progress, notes = self._watcher.take()
            for note in notes:
                # The request to drain was shown when it was made.
                if note != f"draining: {DRAIN_REASON}" and (text := self._reasons.in_note(note)):
                    self._screen.note(text)
            if progress is not None:
                self._stepped |= {worker.worker for worker in progress.workers if worker.updates}
                self._screen.show(progress)

    def _announce_dashboard(self) -> None:
        """Show the address of the dashboard once, or why there is none; the job continues without it."""
        dashboard = self._processes.get("dashboard")
        if dashboard is None or self._dashboard_announced:
            return
        if (announcement := dashboard.announcement()) is not None:
            self._screen.note(f"the dashboard is at {announcement['address']}")
        elif dashboard.code:
            self._screen.note(f"there is no dashboard: {dashboard.reason().removeprefix('downpour dashboard: ')}")
        else:
            return
        self._dashboard_announced = True

    # ------------------------------------------------------------------------------------------ end

    def _handle_stop_requests(self) -> None:
        if self._stops.count >= 2:
            raise StopNow
        if self._stops.count == 1 and self._drain_deadline is None:
            self._stops.changed.clear()
            self._drain_deadline = time.monotonic() + self._drain_s
            self._screen.note("draining: the job saves its progress and ends; press Ctrl-C again to stop immediately")
            if self._watcher is None or not self._watcher.stop(DRAIN_REASON, now=False):
                self._processes["ps-0"].send(signal.SIGTERM)

    def _stop_now(self) -> None:
        self._screen.note("stopped immediately: the progress since the latest checkpoint is lost")
        kill(self._role("worker"))
        if self._watcher is not None and self._watcher.stop("the user stopped the job", now=True):
            wait(self._processes.values(), GRACE_S)

    def _stop_failed(self) -> None:
        if self._watcher is not None and self._processes["ps-0"].code is None:
            self._watcher.stop("the launcher ended the job after a failure", now=True)
        end(self._processes.values(), GRACE_S)
