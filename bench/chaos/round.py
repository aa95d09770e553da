"""One round of `downpour bench chaos`: a job that is disturbed while it runs and checked when it has ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from downpour.bench.chaos.jobs import job_of
from downpour.bench.chaos.resets import reset_connections
from downpour.bench.chaos.settings import ChaosCounts, ChaosSettings
from downpour.bench.chaos.shared_flags import (
    ANSWERED,
    FILE_VARIABLE,
    IN_FLIGHT,
    NO_PAUSE,
    SENT,
    SHAPE_VARIABLE,
    SIZE_BYTES,
    SharedFlags,
)
from downpour.bench.module_process import module_environment
from downpour.protos.logs import reason_of
from downpour.ps.storage.ended_run import has_ended

POLL_S = 0.002
LAUNCHER_SHARE = 0.05  # of all kills
SERVER_SHARE = 0.5  # of the other kills
STOP_SHARE = 0.15  # of all disturbances
RESET_SHARE = 0.2
DOUBLE_SHARE = 0.2  # of the kills of workers and servers: a second process is killed at the same moment


class Round:
    """One job, from the start of its first process to the end of its last."""

    def __init__(self, settings: ChaosSettings, folder: Path, rng: random.Random, counts: ChaosCounts) -> None:
        """Start the job; its files are in `folder`, and disturbances and findings are added to `counts`."""
        self._settings, self._rng, self._counts = settings, rng, counts
        self._folder = folder
        folder.mkdir(parents=True)
        self._job = job_of(settings, folder)
        flags = folder / "flags"
        flags.write_bytes(bytes(SIZE_BYTES))
        self._flags = SharedFlags(flags)
        self._flags_file = flags.open("r+b")  # a worker of a script has private copies of files, except below /proc
        shape = f"{settings.shards} {settings.samples} {settings.pause_ms}"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        path = f"/proc/{os.getpid()}/fd/{self._flags_file.fileno()}"
        self._env = module_environment(
            **{FILE_VARIABLE: path, SHAPE_VARIABLE: shape, "TMPDIR": str(self._temporary)}
        )  # fmt: skip
        self._pause = threading.Event()
        self._sent: list[int] = []  # number of each worker's latest push at the time of a kill
        self._ended = False  # before its launcher was killed
        self._launch(resume=False)

    def run(self, kills: int) -> None:
        """Kill `kills` processes, let the job end, and check it."""
        try:
            self._await_pushes(self._job.start_s)
            hit = 0
            while hit < kills and self._launcher.poll() is None:
                self._pause.wait(self._rng.expovariate(1 / max(self._settings.gap_s, 1e-3)))
                hit += self._disturb()
                self._await_pushes(self._job.end_s)
            self._flags[NO_PAUSE] = 1
            code = self._launcher.wait(self._job.end_s)
            if code and not self._ended:
                self._counts.faults.append(f"the launcher must exit with status 0; it exited with {code}")
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            self._counts.faults.append(f"the job must end: {error}")
        self._check_nothing_left()
        self._flags_file.close()
        if not self._counts.faults:
            found = self._job.findings()
            self._counts.faults += found.faults
            self._counts.samples += found.samples
            self._counts.partial += found.partial

    def _disturb(self) -> int:
        """Disturb the job once; return 1 if this was a kill with a push in flight."""
        chance = self._rng.random()
        if chance < STOP_SHARE:
            self._suspend()
        elif chance < STOP_SHARE + RESET_SHARE:
            self._reset()
        else:
            return self._kill()
        return 0

    # ------------------------------------------------------------------ processes

    def _launch(self, resume: bool) -> None:
        with (self._folder / "launcher.log").open("ab") as out:
            self._launcher = subprocess.Popen(
                self._job.command(resume), cwd=self._folder, env=self._env, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _processes(self) -> dict[str, psutil.Process]:
        """Return the servers and workers of the job by name, such as `worker-1` or `ps-0`."""
        found = {}
        with suppress(psutil.NoSuchProcess):  # the launcher has ended, and its children end with it
            for child in psutil.Process(self._launcher.pid).children():
                name = self._name_of(child)
                if name:
                    found[name] = child
        return found

    def _all_processes(self) -> dict[str, psutil.Process]:
        return {**self._processes(), "launcher": psutil.Process(self._launcher.pid)}

    def _push_in_flight(self, workers: Sequence[int]) -> bool:
        return any(self._flags[IN_FLIGHT + worker] for worker in workers)

    def _await_pushes(self, timeout_s: float) -> None:
        """Return when a push is in flight or the job has ended."""
        begin = time.monotonic()
        while not self._push_in_flight(range(self._settings.workers)) and self._launcher.poll() is None:
            if time.monotonic() > begin + timeout_s:
                raise TimeoutError(f"no push within {timeout_s:g} s")
            self._pause.wait(POLL_S)

    # ------------------------------------------------------------------ disturbances

    def _kill(self) -> int:
        """Kill one process while a push waits for it; return 1 if that was possible."""
        if self._rng.random() < LAUNCHER_SHARE:
            return self._kill_launcher()
        role = "ps" if self._rng.random() < SERVER_SHARE else "worker"
        names = sorted(name for name in self._processes() if name.startswith(role))
        if not names:
            return 0
        name = self._rng.choice(names)
        if self._job.any_moment_share and self._rng.random() < self._job.any_moment_share:
            return self._kill_now(name, "server" if role == "ps" else role)
        number = name.partition("-")[2]
        mine = [int(number)] if role == "worker" else range(self._settings.workers)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            victim = self._processes().get(name)
            try:
                if victim is not None and self._push_in_flight(mine) and self._kill_if_push_in_flight(victim, mine):
                    self._await_recovery("server" if role == "ps" else role)
                    return 1
            except psutil.Error:
                return 0
            self._pause.wait(POLL_S * self._rng.random())
        self._counts.misses += 1
        return 0

    def _kill_if_push_in_flight(self, victim: psutil.Process, workers: Sequence[int]) -> bool:
        """Suspend a process and kill it if a push is in flight, sometimes with a second process; else resume it."""
        victim.suspend()
        if self._push_in_flight(workers):
            self._sent = self._push_numbers(SENT)
            victim.kill()
            if self._rng.random() < DOUBLE_SHARE:
                self._kill_another()
            for worker in workers if len(workers) == 1 else ():
                self._flags[IN_FLIGHT + worker] = 0
            return True
        victim.resume()
        return False

    def _kill_now(self, name: str, role: str) -> int:
        """Kill a process wherever it is: at a barrier, in a callback, while it starts."""
        try:
            self._sent = self._push_numbers(SENT)
            self._processes()[name].kill()
        except (psutil.Error, KeyError):
            return 0
        if role == "worker":
            self._flags[IN_FLIGHT + int(name.partition("-")[2])] = 0
        self._await_recovery(role)
        return 1

    def _kill_another(self) -> None:
        """Kill a random server or worker; this kill is counted apart."""
        processes = self._processes()
        with suppress(psutil.Error, IndexError):
            processes[self._rng.choice(sorted(processes))].kill()
            self._counts.additional_kills += 1

    def _kill_launcher(self) -> int:
        """Kill the launcher while a push is in flight, check that all its processes end, and resume the job.

        A job whose last push was in flight may end meanwhile; it cannot be resumed.
        """
        children = list(self._processes().values())
        self._await_pushes(self._job.end_s)
        self._launcher.send_signal(signal.SIGKILL)
        self._launcher.wait()
        _, alive = psutil.wait_procs(children, timeout=10.0)
        if alive:
            names = [self._name_of(process) for process in alive]
            self._counts.faults.append(f"all processes must end within 10 s of the launcher; these did not: {names}")
        for worker in range(self._settings.workers):
            self._flags[IN_FLIGHT + worker] = 0
        self._ended = has_ended(self._job.run / "summary.json", 0)
        if self._ended:
            return 1
        self._counts.resumes += 1
        self._sent = self._push_numbers(SENT)
        self._launch(resume=True)
        self._await_recovery("launcher")
        return 1

    def _suspend(self) -> None:
        """Suspend a process for longer than a session; a worker must join again afterwards."""
        with suppress(psutil.NoSuchProcess):  # the process ended by itself; the suspension does not count
            processes = self._all_processes()
            victim = processes[self._rng.choice(sorted(processes))]
            victim.suspend()
            self._pause.wait(3.0)
            victim.resume()
            self._counts.suspensions += 1

    def _reset(self) -> None:
        """Reset all connections of one process while a push is in flight."""
        self._await_pushes(self._job.end_s)
        try:
            processes = self._all_processes()
            victim = processes[self._rng.choice(sorted(processes))]
            self._counts.connections += reset_connections(victim)
            self._counts.resets += 1
        except psutil.Error:
            return  # the process has ended, or is just ending (AccessDenied); the reset does not count
        except OSError as error:
            self._counts.faults.append(f"connections cannot be reset on this system: {reason_of(error)}")

    def _await_recovery(self, role: str) -> None:
        """Count a kill and measure the time until a push is answered."""
        self._counts.kills[role] += 1
        begin = time.monotonic()
        while not self._answered_since() and self._launcher.poll() is None:
            if time.monotonic() > begin + self._job.end_s:
                raise TimeoutError(f"a push must be answered within {self._job.end_s:g} s after the {role} was killed")
            self._pause.wait(POLL_S)
        self._counts.outages_s[role].append(time.monotonic() - begin)

    def _push_numbers(self, offset: int) -> list[int]:
        return [self._flags[offset + worker] for worker in range(self._settings.workers)]

    def _answered_since(self) -> bool:
        """Return whether a push sent after `self._sent` was answered."""
        numbers = zip(self._push_numbers(ANSWERED), self._sent, strict=True)
        return any(0 < (answered - sent) % 256 < 128 for answered, sent in numbers)

    # ------------------------------------------------------------------ checks

    def _check_nothing_left(self) -> None:
        left = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environ = process.info["environ"] or {}
            if environ.get(FILE_VARIABLE) == self._env[FILE_VARIABLE] and process.pid != os.getpid():
                left.append(process)
        if left:
            names = [self._name_of(process) for process in left]
            self._counts.faults.append(f"no process may be left when the job has ended; these are: {names}")
        for process in left:
            process.kill()
        unfinished = [path for path in self._job.run.rglob(".*") if path.name != ".lock"]
        # TensorFlow deletes its translations of functions when a process exits by itself.
        temporary = [path for path in self._temporary.iterdir() if not path.name.startswith("__autograph_generated_")]
        files = [str(path) for path in (*temporary, *unfinished)]
        if files:
            self._counts.faults.append(f"no temporary file may be left; these are: {files}")

    def _name_of(self, process: psutil.Process) -> str:
        """Return the name of a server or worker, such as `ps-1`, or an empty string for another process."""
        try:
            command = process.cmdline()
        except psutil.Error:
            return ""
        words = dict(word.split("=", 1) for word in command if word.startswith("--") and "=" in word)
        if self._job.worker_module in command:
            return f"worker-{words.get('--worker', '?')}"
        return f"ps-{words.get('--shard', '0')}" if "downpour.ps" in command else ""
