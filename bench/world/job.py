"""A whole job in a simulated world: its processes, a launcher that restarts them, and the faults that hit them."""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import tempfile
from collections.abc import Sequence
from typing import Any

from downpour.bench.world.byzantine import ByzantineWorker, FalseReporter
from downpour.bench.world.checks.result import JobEnd
from downpour.bench.world.checks.watch import Watch
from downpour.bench.world.computation import IntegerComputation, WorkerBehaviour
from downpour.bench.world.faults import DISK, Fault
from downpour.bench.world.injection import FaultInjection
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.bench.world.system.event_loop import VirtualLoop
from downpour.bench.world.system.install import installed
from downpour.bench.world.system.machine import Machine
from downpour.bench.world.system.network import VirtualNetwork
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import EventLimit, World, exponential
from downpour.bench.world.system.threads import VirtualThread
from downpour.protos.errors import DeadlineExceeded, DownpourError, InvalidRequest
from downpour.protos.logs import log
from downpour.ps.config import ServerSettings
from downpour.ps.server import FAILED, serve
from downpour.worker.config import WorkerSettings
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.errors import UNRECOVERABLE, WORKER_ERRORS, exit_code_of
from downpour.worker.train.loop import Worker

# Settings are read once: each reading of the environment takes longer than a hundred events.
SHARD_SETTINGS = ServerSettings(transport="grpc", coordinator="ps-0:7000", bind="ps-1:7000", shard=1, insecure=True)
WORKER_SETTINGS = WorkerSettings(server="ps-0:7000")
LONGEST_RESTART_S = 25.0  # well below the time for which a job waits for a lost shard
OPERATOR_S = 20.0  # until an operator starts a worker again that has left before the end
BROKEN_CONNECTIONS = ("reset", "lose", "resetcall")
LAST_LINES = 5  # of a coordinator, among which it reports that its last files cannot be written
LIMIT_S = 900.0  # of virtual time
MOST_EVENTS = 80_000
AFTER_END_S = 150.0  # within which all processes must have ended after the coordinator


class SimulatedJob:
    """One job in one world."""

    def __init__(self, seed: int, shape: JobShape, keep_journal: bool = True) -> None:
        """Prepare the world; nothing runs yet."""
        self.world = World(seed, keep_journal)
        self._shape, self._seed = shape, seed
        self._random = random.Random(f"habits {seed}")
        self.processes: dict[str, VirtualProcess] = {}
        self._machines: dict[str, Machine] = {}
        self._starts: dict[str, int] = {}
        self._speeds: dict[str, float] = {}
        self._once: set[Fault] = set()
        self._over_s: float | None = None
        self._unwritable = False  # whether the coordinator could not write to its disk when it ended
        self._gave_up: dict[str, str] = {}  # workers that a server refused, with the reason
        self.status: int | None = None
        self._settings = ServerSettings.of_values(shape.settings)
        changes = any(fault.kind == "change" for fault in shape.faults)
        self.watch = Watch(self.world, shape.samples, self._settings, changes)
        self.network = VirtualNetwork(self.world, seed if shape.slow_links else None, self.watch.replies)
        self._injection = FaultInjection(
            self.world, self.network, shape.faults, self.processes, self._machine, self.watch
        )

    def run(self) -> JobResult:
        """Run the job to its end and check it."""
        with installed(self.world, self.network, _scratch().name):
            self.world.at(0.0, None, self._start_all)
            try:
                self.world.run(self._done, self.watch.after_event, MOST_EVENTS)
            except EventLimit as limit:
                self.world.problem(str(limit))
            self._conclude()
        world = self.world
        return JobResult(world.problems, world.digest, world.now, world.events, self.status, list(world.journal))

    def _done(self) -> bool:
        if self._over_s is None:
            return self.world.now > LIMIT_S
        alive = any(process.alive for process in self.processes.values())
        return not alive or self.world.now > self._over_s + AFTER_END_S

    def _conclude(self) -> None:
        left = [name for name, process in self.processes.items() if process.alive]
        if self._over_s is None:
            self.world.problem(f"the job has not ended after {self.world.now:.0f} s")
        elif left:
            self.world.problem(f"still running {AFTER_END_S:.0f} s after the coordinator: {', '.join(left)}")
        end = self._end()
        if self.status == 0 and not end.may_fail:
            for name, reason in self._gave_up.items():
                self.world.problem(f"{name} gave up a job that ended: {reason}")
        self._check_sessions()
        self.watch.conclude(self.status, self.processes["ps-0"], end)
        self._injection.end()
        for process in self.processes.values():
            process.kill()

    def _check_sessions(self) -> None:
        """Check that no worker has lost its session, if nothing worse happened than broken connections of workers."""
        for fault in self._shape.faults:
            if fault.kind not in BROKEN_CONNECTIONS or not all(name.startswith("worker") for name in fault.targets):
                return
        for name, process in self.processes.items():
            if any("session lost" in line for line in process.lines):
                self.world.problem(f"{name} has lost its session, and only connections have broken")

    def _end(self) -> JobEnd:
        faults = self._shape.faults
        asked = any(
            fault.kind in ("term", "termall") and ("ps-0" in fault.targets or fault.target == "all") for fault in faults
        )
        disk_failed = any(fault.kind in DISK for fault in faults)
        return JobEnd(
            may_fail=(asked or disk_failed) and not self._injection.must_save,
            undisturbed=not faults,
            disk_failed=disk_failed,
            unwritable=self._unwritable,
        )

    # ------------------------------------------------------------------ processes

    def _machine(self, name: str) -> Machine:
        if name not in self._machines:
            self._machines[name] = Machine(self.world, name, len(self._machines) + 1)
        return self._machines[name]

    def _start_all(self) -> None:
        settings = self._shape.settings
        self._injection.begin()
        for shard in range(settings["shards"]):
            self.world.at(0.05 * shard, None, self._start, f"ps-{shard}")
        for worker in range(settings["workers"]):
            self.world.at(0.1 + self._random.random() * 0.3, None, self._start, f"worker-{worker}")

    def _start(self, name: str) -> None:
        if self._over_s is not None:
            return
        starts = self._starts[name] = self._starts.get(name, 0) + 1
        rng = random.Random(f"{self._seed} {name} {starts}")
        process = VirtualProcess(self.world, name, self._machine(name), rng.uniform(0.0, 1e4), self._ended)
        self.processes[name] = process
        self.world.note(f"{name} starts")
        self._injection.prepare(process, starts)
        self.world.at(
            self.world.now, process, self._run_server if name.startswith("ps") else self._run_worker, process, rng
        )

    def _run_server(self, process: VirtualProcess, rng: random.Random) -> None:
        shard = int(process.name.partition("-")[2])
        own: dict[str, Any] = {"bind": f"{process.name}:7000", "shard": shard, "insecure": True}
        if shard:
            base, own = SHARD_SETTINGS.model_copy(), {**own, "coordinator": "ps-0:7000"}
        else:
            base, own = self._settings, {**own, "run_dir": "/run", "resume": self._starts[process.name] > 1}
        loop = VirtualLoop(process, always_running=True)

        async def main() -> None:
            process.kill(
                await serve(base.model_copy(update=own), lambda built: self.watch.server_built(shard, process, built))
            )

        loop.create_task(main())

    def _run_worker(self, process: VirtualProcess, rng: random.Random) -> None:
        main = VirtualThread(process, lambda: process.kill(self._work(process, main, rng)), "main")
        process.signal_handlers[signal.SIGTERM] = lambda: process.kill(0)  # before training, as the real worker

    def _work(self, process: VirtualProcess, main: VirtualThread, rng: random.Random) -> int:
        settings = WORKER_SETTINGS.model_copy(update={"worker": int(process.name.partition("-")[2])})
        for fault in self._shape.faults:
            if fault.kind == "lie" and fault.target == process.name and fault not in self._once:
                self._once.add(fault)
                process.alter = ByzantineWorker(int(fault.at), self.watch)
            elif fault.kind == "report" and fault.target == process.name and fault not in self._once:
                self._once.add(fault)
                process.alter_call = FalseReporter(int(fault.at))
        control = CoordinatorClient(settings.server, settings.call_timeout_s)
        try:
            job = control.describe(settings.connect_timeout_s)
        except DownpourError as error:
            log(f"downpour worker: {error}")
            return 1
        try:
            computation = IntegerComputation(job, self._shape.samples, self._behaviour(process), rng)
            worker = Worker(settings, control, job, computation)
            process.signal_handlers[signal.SIGTERM] = lambda: main.interrupt(worker.stop)
            worker.run()
        except WORKER_ERRORS as error:
            log(f"downpour worker: {error}")
            if isinstance(error, InvalidRequest | DeadlineExceeded) and not _is_byzantine(process):
                self._gave_up[process.name] = str(error)
            return exit_code_of(error)
        finally:
            control.close()
        return 0

    def _behaviour(self, process: VirtualProcess) -> WorkerBehaviour:
        step_s = self._speeds.setdefault(process.name, self._random.choice((0.02, 0.06, 0.2)))
        behaviour = WorkerBehaviour(step_s, self.watch.weights_seen, self.watch.evaluated)
        behaviour.model_padding_bytes = self._shape.model_padding_bytes
        behaviour.origin = process.number if self.watch.sums else 0
        for fault in self._shape.faults:
            if fault.target == process.name and fault not in self._once and fault.kind in ("hang", "nan"):
                self._once.add(fault)
                if fault.kind == "hang":
                    behaviour.hang_at_step, behaviour.hang_s = int(fault.at), fault.seconds
                else:
                    behaviour.nan_at_step = int(fault.at)
        return behaviour

    # ------------------------------------------------------------------ the launcher

    def _ended(self, process: VirtualProcess) -> None:
        """React to the end of a process as a launcher does."""
        name, code = process.name, process.code
        if self.processes.get(name) is not process:
            return
        last = process.lines[-1] if process.lines else ""
        if name.startswith("worker") and code == UNRECOVERABLE and not _is_byzantine(process):
            if "has ended" not in last:
                self._gave_up[name] = last
        if name == "ps-0" and code in (0, FAILED):
            self.status, self._over_s = code, self.world.now
            disk = process.machine.disk
            failed = any("summary.json cannot be written" in line for line in process.lines[-LAST_LINES:])
            self._unwritable = disk.full or disk.read_only or failed
            return
        if code == 0 and (name.startswith("worker") or not process.replies):
            # It was asked to leave, or to end before shard 0 had answered: an operator starts it again.
            self.world.at(self.world.now + OPERATOR_S, None, self._start, name)
        final = code == 0 or (name.startswith("worker") and code == UNRECOVERABLE)
        if self._over_s is None and not final and self._shape.restarts:
            delay_s = min(exponential(self._random, self._shape.restart_s), LONGEST_RESTART_S)
            self.world.at(self.world.now + delay_s, None, self._start, name)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a real folder, the same for all worlds of this process, in memory if possible."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="downpour-world-", dir=memory)


def _is_byzantine(process: VirtualProcess) -> bool:
    return isinstance(process.alter, ByzantineWorker) or isinstance(process.alter_call, FalseReporter)


def run_job(seed: int, shape: JobShape, keep_journal: bool = True) -> JobResult:
    """Run one job in a world of its own.

    Cyclic garbage is not collected meanwhile: that closes asynchronous generators, which are events, at times that
    depend on the allocations of the whole Python process.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return SimulatedJob(seed, shape, keep_journal).run()
    finally:
        if collects:
            gc.enable()


def faults_needed(seed: int, shape: JobShape) -> Sequence[Fault]:
    """Return a smaller list of the faults with which the job of a seed still violates something."""
    faults = list(shape.faults)
    for fault in list(faults):
        fewer = [each for each in faults if each is not fault]
        if run_job(seed, JobShape(**{**shape.__dict__, "faults": tuple(fewer)}), keep_journal=False).problems:
            faults = fewer
    return faults
