"""Breaks a running job again and again, for real, and checks that nothing was lost: `downpour bench chaos`.

    downpour bench chaos --seed 7 --kills 100 --shards 2

Real servers and a real launcher; workers whose gradients sign for their samples (marks.py). From a seed that is
printed, processes are killed (SIGKILL) or stopped for longer than a session (SIGSTOP): workers, servers and the
launcher. Only kills that hit while a push was in flight are counted: the process is stopped first, and killed if a
push waits for it then. Rounds are run until there are enough; after each, weights and traces must tell that every
sample of every epoch was applied to every slice exactly once (on several shards: at most once, and what some slice
lacks is counted by the servers), that the history is possible (history.py), that the launcher's exit status is 0
and that no process is left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from pydantic import Field

from bench.chaos_worker import BOARD, HURRY, SHAPE, Board
from bench.history import faults_of
from bench.marks import MOST_EPOCHS, RATE, applied_counts
from protos.settings import Settings, parse

EPOCHS = 4
BATCH = 8
POLL_S = 0.002
START_S = 90.0
END_S = 120.0
LAUNCHER_SHARE = 0.05  # of the kills
SERVER_SHARE = 0.5  # of the others
STOP_SHARE = 0.15


class ChaosSettings(Settings):
    """Kills processes of a running job and checks that nothing was lost."""

    seed: int = Field(0, ge=0, description="of what is killed, and when")
    kills: int = Field(20, ge=1, description="kills with a push in flight")
    workers: int = Field(3, ge=1, le=60, description="workers")
    shards: int = Field(1, ge=1, le=8, description="servers")
    samples: int = Field(8192, ge=64, le=1 << 20, description="training samples, four epochs")
    pause_ms: int = Field(10, ge=0, description="what a gradient takes at least")
    gap_s: float = Field(1.0, ge=0, description="mean time between the end of one outage and the next kill")
    codec: str = Field("float32", description="of pushes")
    transport: str = Field("auto", description="how payloads travel")
    keep: str | None = Field(None, description="folder that keeps the run directories (default: a temporary one)")


@dataclass
class Tally:
    """What was done, and what was found."""

    kills: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    stops: int = 0
    resumes: int = 0
    partial: int = 0
    samples: int = 0
    outages_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Round:
    """One job, from its first process to its last."""

    def __init__(self, settings: ChaosSettings, folder: Path, dice: random.Random, tally: Tally) -> None:
        """Starts the job."""
        self._settings, self._dice, self._tally = settings, dice, tally
        self._folder, self._run = folder, folder / "run"
        folder.mkdir(parents=True)
        board = folder / "board"
        board.write_bytes(bytes(64))
        self._board = Board(board)
        shape = f"{settings.shards} {settings.samples} {settings.pause_ms}"
        self._env = {**os.environ, BOARD: str(board), SHAPE: shape}
        self._tick = threading.Event()
        self._launch(resume=False)

    def run(self, kills: int) -> None:
        """Breaks the job `kills` times, lets it end, and checks it."""
        try:
            self._await_pushes(START_S)
            hit = 0
            while hit < kills and self._launcher.poll() is None:
                self._tick.wait(self._dice.expovariate(1 / max(self._settings.gap_s, 1e-3)))
                if self._dice.random() < STOP_SHARE:
                    self._stop_a_worker()
                else:
                    hit += self._kill()
                self._await_pushes(END_S)
            self._board[HURRY] = 1
            code = self._launcher.wait(END_S)
            self._tally.faults += [f"the launcher exited with status {code}"] if code else []
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            self._tally.faults.append(f"the job did not end: {error}")
        self._check_nothing_left()
        if not self._tally.faults:
            self._check_weights()

    # ------------------------------------------------------------------ processes

    def _launch(self, resume: bool) -> None:
        s = self._settings
        flags = [
            f"--workers={s.workers}", f"--shards={s.shards}", f"--epochs={EPOCHS}", f"--batch-size={BATCH}",
            f"--learning-rate={RATE}", "--session-s=2", "--checkpoint-every=0.3s", "--worker-restarts=100000",
            "--server-restarts=100000", f"--codec={s.codec}", f"--transport={s.transport}", "--lease-batches=8",
        ]  # fmt: skip
        command = [sys.executable, "-m", "bench.chaos_cluster", str(self._run), *flags]
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

    def _busy(self, workers: Sequence[int]) -> bool:
        return any(self._board[1 + worker] for worker in workers)

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
                    self._outage(role)
                    return 1
            except psutil.Error:
                return 0
            self._tick.wait(POLL_S * self._dice.random())
        self._tally.misses += 1
        return 0

    def _kill_if_busy(self, victim: psutil.Process, workers: Sequence[int]) -> bool:
        """Stops a process, and kills it if a push is in flight now; else lets it go on."""
        victim.suspend()
        if self._busy(workers):
            victim.kill()
            for worker in workers if len(workers) == 1 else ():
                self._board[1 + worker] = 0
            return True
        victim.resume()
        return False

    def _kill_launcher(self) -> int:
        """Kills the launcher; all its processes must end, and the job is resumed."""
        children = list(self._processes().values())
        self._launcher.send_signal(signal.SIGKILL)
        self._launcher.wait()
        _, alive = psutil.wait_procs(children, timeout=10.0)
        if alive:
            self._tally.faults.append(f"processes outlived the launcher by 10 s: {[_name_of(p) for p in alive]}")
        for worker in range(self._settings.workers):
            self._board[1 + worker] = 0
        self._tally.resumes += 1
        self._launch(resume=True)
        self._outage("launcher")
        return 1

    def _stop_a_worker(self) -> None:
        """Stops a worker for longer than its session; it wakes, is told, and comes back."""
        workers = [process for name, process in self._processes().items() if name.startswith("worker")]
        if not workers:
            return
        victim = self._dice.choice(workers)
        try:
            victim.suspend()
            self._tick.wait(3.0)
            victim.resume()
            self._tally.stops += 1
        except psutil.Error:
            pass

    def _outage(self, role: str) -> None:
        self._tally.kills[{"ps": "server"}.get(role, role)] += 1
        begin = time.monotonic()
        self._tick.wait(0.05)
        self._await_pushes(END_S)
        self._tally.outages_s.append(time.monotonic() - begin)

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

    def _check_weights(self) -> None:
        s, tally = self._settings, self._tally
        summary = json.loads((self._run / "summary.json").read_text())
        weights = np.fromfile(self._run / "model.keras", np.float32)
        try:
            counts = applied_counts(weights, s.shards, EPOCHS)
        except ValueError as error:
            tally.faults.append(str(error))
            return
        tally.samples += counts.shape[1] * counts.shape[2]
        if counts.max() > 1:
            tally.faults.append(f"{(counts > 1).sum()} samples were applied more than once to some slice")
        lacking = (counts == 0).any(axis=0)
        batches = len({(epoch, position // BATCH) for epoch, position in np.argwhere(lacking)})
        tally.partial += summary["partial_pushes"]
        if (counts == 0).all(axis=0).any():
            tally.faults.append(f"{(counts == 0).all(axis=0).sum()} samples were applied to no slice")
        if batches > summary["partial_pushes"]:
            tally.faults.append(f"{batches} batches lack in a slice, but {summary['partial_pushes']} were counted")
        trace = np.load(self._run / "trace.npy")
        tally.faults += faults_of(trace)
        self._check_trace(trace, counts[0])

    def _check_trace(self, trace: np.ndarray, counts: np.ndarray) -> None:
        """The trace must tell of exactly the updates that are in the weights."""
        told = np.zeros_like(counts)
        for record in trace[trace["outcome"] == 0]:
            told[record["epoch"], record["start"] : record["stop"]] += 1
        if not np.array_equal(told, counts):
            self._tally.faults.append("the trace and the weights of shard 0 tell of different updates")


def _name_of(process: psutil.Process) -> str:
    """`ps-1`, `worker-0`; empty for what is neither."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return ""
    words = dict(word.split("=", 1) for word in command if word.startswith("--") and "=" in word)
    if "bench.chaos_worker" in command:
        return f"worker-{words.get('--worker', '?')}"
    return f"ps-{words.get('--shard', '0')}" if "ps" in command else ""


def run(settings: ChaosSettings, folder: Path) -> Tally:
    """Runs rounds until there were enough kills, or a fault."""
    tally, dice, number = Tally(), random.Random(settings.seed), 0
    while tally.kills.total() < settings.kills and not tally.faults:
        number += 1
        left = settings.kills - tally.kills.total()
        Round(settings, folder / f"round-{number}", dice, tally).run(left)
        done = ", ".join(f"{count} {role}" for role, count in sorted(tally.kills.items()))
        print(f"round {number}: {tally.kills.total()} of {settings.kills} kills so far ({done})", flush=True)
    return tally


def report(settings: ChaosSettings, tally: Tally) -> str:
    """What was done and found, for a person."""
    killed = ", ".join(f"{count} × {role}" for role, count in sorted(tally.kills.items()))
    outages = sorted(tally.outages_s)
    lines = [
        f"chaos: seed {settings.seed}, {settings.workers} workers, {settings.shards} shards, {settings.transport}",
        f"kills with a push in flight   {tally.kills.total()} ({killed}); {tally.misses} attempts found none in flight",
        f"stopped beyond the session    {tally.stops}",
        f"jobs resumed                  {tally.resumes}",
        f"samples × epochs checked      {tally.samples:,}",
        f"partial pushes                {tally.partial}",
    ]
    if outages:
        median = outages[len(outages) // 2]
        lines.append(f"until the next push           median {median:.2f} s, most {outages[-1]:.2f} s")
    return "\n".join([*lines, *(f"FAULT: {fault}" for fault in tally.faults)])


def main(argv: Sequence[str]) -> int:
    """`downpour bench chaos`; returns 1 if anything was lost."""
    assert EPOCHS <= MOST_EPOCHS
    settings = parse(ChaosSettings, list(argv), "downpour bench chaos")
    print(f"seed {settings.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="downpour-chaos-") as folder:
        tally = run(settings, Path(settings.keep or folder))
        print(report(settings, tally))
    return 1 if tally.faults else 0
