"""One job of real processes that is broken while it runs, and checked when it has ended (see chaos.py)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pydantic import Field

from downpour.bench.chaos.checks import faults_in_run
from downpour.bench.chaos.marks import RATE
from downpour.bench.chaos.resets import reset_connections
from downpour.bench.chaos.worker import ANSWERED, BEGUN, BOARD, BOARD_BYTES, BUSY, HURRY, SHAPE, Board
from downpour.protos.settings import Settings

ROLES = ("worker", "server", "launcher")
EPOCHS = 4
BATCH = 8
POLL_S = 0.002
START_S = 90.0
END_S = 120.0
LAUNCHER_SHARE = 0.05  # of the kills
SERVER_SHARE = 0.5  # of the others
STOP_SHARE = 0.15  # of all that is done
RESET_SHARE = 0.2
TWICE_SHARE = 0.2  # of the kills of workers and servers: another one dies at the same moment


class ChaosSettings(Settings):
    """Kills processes of a running job and checks that nothing was lost."""

    seed: int = Field(0, ge=0, description="of what is killed, and when")
    kills: int = Field(20, ge=1, description="kills with a push in flight")
    workers: int = Field(3, ge=1, le=60, description="workers")
    shards: int = Field(1, ge=1, le=8, description="servers")
    samples: int = Field(32768, ge=64, le=1 << 20, description="training samples, four epochs")
    pause_ms: int = Field(10, ge=0, description="what a gradient takes at least")
    gap_s: float = Field(1.0, ge=0, description="mean time between the end of one outage and the next kill")
    mode: str = Field("async", description="who waits for whom; one in which each push is an update of its own")
    codec: str = Field("float32", description="of pushes")
    transport: str = Field("auto", description="how payloads travel")
    keep: str | None = Field(None, description="folder that keeps the run directories (default: a temporary one)")


@dataclass
class Tally:
    """What was done, and what was found."""

    kills: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    more: int = 0
    stops: int = 0
    resets: int = 0
    connections: int = 0
    resumes: int = 0
    partial: int = 0
    samples: int = 0
    outages_s: dict[str, list[float]] = field(default_factory=lambda: {role: [] for role in ROLES})
    faults: list[str] = field(default_factory=list)


class Round:
    """One job, from its first process to its last."""

    def __init__(self, settings: ChaosSettings, folder: Path, dice: random.Random, tally: Tally) -> None:
        """Starts the job."""
        self._settings, self._dice, self._tally = settings, dice, tally
        self._folder, self._run = folder, folder / "run"
        folder.mkdir(parents=True)
        board = folder / "board"
        board.write_bytes(bytes(BOARD_BYTES))
        self._board = Board(board)
        shape = f"{settings.shards} {settings.samples} {settings.pause_ms}"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._env = {**os.environ, BOARD: str(board), SHAPE: shape, "TMPDIR": str(self._temporary)}
        self._tick = threading.Event()
        self._begun: list[int] = []  # number of each worker's last push at the time of a kill
        self._launch(resume=False)

    def run(self, kills: int) -> None:
        """Breaks the job `kills` times, lets it end, and checks it."""
        try:
            self._await_pushes(START_S)
            hit = 0
            while hit < kills and self._launcher.poll() is None:
                self._tick.wait(self._dice.expovariate(1 / max(self._settings.gap_s, 1e-3)))
                hit += self._break_something()
                self._await_pushes(END_S)
            self._board[HURRY] = 1
            code = self._launcher.wait(END_S)
            self._tally.faults += [f"the launcher exited with status {code}"] if code else []
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            self._tally.faults.append(f"the job did not end: {error}")
        self._check_nothing_left()
        if not self._tally.faults:
            found = faults_in_run(self._run, self._settings.shards, EPOCHS, BATCH)
            self._tally.faults += found.faults
            self._tally.samples += found.samples
            self._tally.partial += found.partial

    def _break_something(self) -> int:
        """Does one thing that should not matter; returns 1 if it was a kill with a push in flight."""
        chance = self._dice.random()
        if chance < STOP_SHARE:
            self._stop_somebody()
        elif chance < STOP_SHARE + RESET_SHARE:
            self._reset()
        else:
            return self._kill()
        return 0

    # ------------------------------------------------------------------ processes

    def _launch(self, resume: bool) -> None:
        s = self._settings
        flags = [
            f"--workers={s.workers}", f"--shards={s.shards}", f"--epochs={EPOCHS}", f"--batch-size={BATCH}",
            f"--learning-rate={RATE}", "--session-s=2", "--checkpoint-every=0.3s", "--worker-restarts=100000",
            "--server-restarts=100000", f"--mode={s.mode}", f"--codec={s.codec}", f"--transport={s.transport}",
            "--lease-batches=8",
        ]  # fmt: skip
        command = [sys.executable, "-m", "downpour.bench.chaos.cluster", str(self._run), *flags]
        with (self._folder / "launcher.log").open("ab") as out:
            self._launcher = subprocess.Popen(
                [*command, "--resume"] if resume else command,
                env=self._env, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _processes(self) -> dict[str, psutil.Process]:
        """The job's processes by name: `worker-1`, `ps-0`, and the launcher."""
        found = {}
        try:
            for child in psutil.Process(self._launcher.pid).children():
                name = _name_of(child)
                if name:
                    found[name] = child
        except psutil.Error:
            pass
        return found

    def _everybody(self) -> dict[str, psutil.Process]:
        return {**self._processes(), "launcher": psutil.Process(self._launcher.pid)}

    def _busy(self, workers: Sequence[int]) -> bool:
        return any(self._board[BUSY + worker] for worker in workers)

    def _await_pushes(self, timeout_s: float) -> None:
        """Returns when a push has been seen in flight, or the job is over."""
        begin = time.monotonic()
        while not self._busy(range(self._settings.workers)) and self._launcher.poll() is None:
            if time.monotonic() > begin + timeout_s:
                raise TimeoutError(f"no push within {timeout_s:g} s")
            self._tick.wait(POLL_S)

    # ------------------------------------------------------------------ breaking

    def _kill(self) -> int:
        """Kills one process while a push waits for it; returns 1 if that came about."""
        if self._dice.random() < LAUNCHER_SHARE:
            return self._kill_launcher()
        role = "ps" if self._dice.random() < SERVER_SHARE else "worker"
        names = sorted(name for name in self._processes() if name.startswith(role))
        if not names:
            return 0
        name = self._dice.choice(names)
        number = name.partition("-")[2]
        mine = [int(number)] if role == "worker" else range(self._settings.workers)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            victim = self._processes().get(name)
            try:
                if victim is not None and self._busy(mine) and self._kill_if_busy(victim, mine):
                    self._outage("server" if role == "ps" else role)
                    return 1
            except psutil.Error:
                return 0
            self._tick.wait(POLL_S * self._dice.random())
        self._tally.misses += 1
        return 0

    def _kill_if_busy(self, victim: psutil.Process, workers: Sequence[int]) -> bool:
        """Stops a process, and kills it if a push is in flight now, sometimes another one too; else lets it go on."""
        victim.suspend()
        if self._busy(workers):
            self._begun = self._numbers(BEGUN)
            victim.kill()
            if self._dice.random() < TWICE_SHARE:
                self._kill_another()
            for worker in workers if len(workers) == 1 else ():
                self._board[BUSY + worker] = 0
            return True
        victim.resume()
        return False

    def _kill_another(self) -> None:
        """Kills a server or a worker whatever it does; it does not count."""
        processes = self._processes()
        with suppress(psutil.Error, IndexError):
            processes[self._dice.choice(sorted(processes))].kill()
            self._tally.more += 1

    def _kill_launcher(self) -> int:
        """Kills the launcher while a push is in flight; all its processes must end, and the job is resumed."""
        children = list(self._processes().values())
        self._await_pushes(END_S)
        self._launcher.send_signal(signal.SIGKILL)
        self._launcher.wait()
        _, alive = psutil.wait_procs(children, timeout=10.0)
        if alive:
            self._tally.faults.append(f"processes outlived the launcher by 10 s: {[_name_of(p) for p in alive]}")
        for worker in range(self._settings.workers):
            self._board[BUSY + worker] = 0
        self._tally.resumes += 1
        self._begun = self._numbers(BEGUN)
        self._launch(resume=True)
        self._outage("launcher")
        return 1

    def _stop_somebody(self) -> None:
        """Stops a process for longer than a session; a worker is told so when it wakes, and comes back."""
        try:
            processes = self._everybody()
            victim = processes[self._dice.choice(sorted(processes))]
            victim.suspend()
            self._tick.wait(3.0)
            victim.resume()
            self._tally.stops += 1
        except psutil.Error:
            pass

    def _reset(self) -> None:
        """Breaks all connections of one process while a push is in flight."""
        self._await_pushes(END_S)
        try:
            processes = self._everybody()
            victim = processes[self._dice.choice(sorted(processes))]
            self._tally.connections += reset_connections(victim)
            self._tally.resets += 1
        except psutil.Error:
            pass
        except OSError as error:
            self._tally.faults.append(f"connections cannot be reset on this system: {error}")

    def _outage(self, role: str) -> None:
        """Counts a kill, and the time until a push is answered again."""
        self._tally.kills[role] += 1
        begin = time.monotonic()
        while not self._answered_since() and self._launcher.poll() is None:
            if time.monotonic() > begin + END_S:
                raise TimeoutError(f"no push was answered within {END_S:g} s of the death of a {role}")
            self._tick.wait(POLL_S)
        self._tally.outages_s[role].append(time.monotonic() - begin)

    def _numbers(self, place: int) -> list[int]:
        return [self._board[place + worker] for worker in range(self._settings.workers)]

    def _answered_since(self) -> bool:
        """Whether a push was answered that was begun after `self._begun`."""
        since = zip(self._numbers(ANSWERED), self._begun, strict=True)
        return any(0 < (answered - begun) % 256 < 128 for answered, begun in since)

    # ------------------------------------------------------------------ checking

    def _check_nothing_left(self) -> None:
        left = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environ = process.info["environ"] or {}
            if environ.get(BOARD) == self._env[BOARD] and process.pid != os.getpid():
                left.append(process)
        if left:
            self._tally.faults.append(f"processes are left: {[_name_of(process) for process in left]}")
        for process in left:
            process.kill()
        unfinished = [path for path in self._run.rglob(".*") if path.name != ".lock"]
        files = [str(path) for path in (*self._temporary.iterdir(), *unfinished)]
        if files:
            self._tally.faults.append(f"temporary files are left: {files}")


def _name_of(process: psutil.Process) -> str:
    """`ps-1`, `worker-0`; empty for what is neither."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    words = dict(word.split("=", 1) for word in command if word.startswith("--") and "=" in word)
    if "downpour.bench.chaos.worker" in command:
        return f"worker-{words.get('--worker', '?')}"
    return f"ps-{words.get('--shard', '0')}" if "ps" in command else ""
