"""Puts a parameter-server process together and runs it until the job is over."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.credentials import NotSecured
from downpour.protos.errors import DownpourError, InvalidRequest, Unsupported
from downpour.protos.logs import identify, log
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.control_plane.progress import ProgressReport
from downpour.ps.control_plane.recovery import Recovery
from downpour.ps.control_plane.replay_recorder import ReplayRecorder
from downpour.ps.control_plane.servicer import CoordinatorServicer
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.fit_coordinator import ScriptCoordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.core.push import Push
from downpour.ps.data_plane.grpc_stream import ExchangeServicer
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.endpoints import PortInUse, announce, listen, on_signals, open_doorbell, open_exporter
from downpour.ps.monitoring.divergence import LossWatch
from downpour.ps.monitoring.job_log import JobLog
from downpour.ps.monitoring.prometheus import ShardMetrics
from downpour.ps.monitoring.summary import configuration, summary
from downpour.ps.monitoring.tensorboard import TensorBoardWriter
from downpour.ps.shard_server import ShardProcess
from downpour.ps.storage.checkpoint_file import numbers
from downpour.ps.storage.run_directory import RunDirectory, run_directory
from downpour.ps.trace.format import DTYPE

TICK_S = 0.1
SAME_SIGNAL_S = 1.0  # a dying launcher's threads each have the signal sent
FLUSH_EVERY_S = 0.5
LEAVE_TIMEOUT_S = 3.0
HURRIED_LEAVE_S = 1.0  # where somebody waits for the end
STOP_TIMEOUT_S = 1.5
LAST_CHECKPOINT_S = 3.0
LOCK_TIMEOUT_S = 15.0  # longer than a server may take to end
FAILED = 3  # exit code of a server whose job has failed: to start it again would not mend that


class RunExists(Exception):
    """The run directory holds another run's checkpoints."""


class CoordinatorProcess:
    """Shard 0 and the coordinator of the job, in one process on one loop."""

    def __init__(self, settings: ServerSettings) -> None:
        """Makes the run directory and everything that lives in this process."""
        if settings.script:  # its data and its model are its own
            settings = settings.model_copy(update={"record": "off"})
        self._settings = settings
        path = run_directory(settings)
        self.run = RunDirectory(path)
        if not settings.resume and numbers(self.run.checkpoints):
            raise RunExists(
                f"--run-dir must not hold the checkpoints of an earlier run; {path} does. "
                "Say --resume to go on with it, or choose another."
            )
        self.host = ShardRuntime(0, self._local_event, self._admit, self._accepted)
        self.lines = ShardLinks(settings, self.host.command, self._joined, self._event, self._lost)
        kind = ScriptCoordinator if settings.script else Coordinator
        self.coordinator = kind(settings, path.name, lambda: secrets.randbits(63) + 1, self.lines.send)
        self.keeper = Checkpointer(self.coordinator, self.host, self.run, self.lines.send, self._flush_trace)
        self.recording = ReplayRecorder(self.coordinator, self.run)
        self.host.began = self.recording.took
        self.board = TensorBoardWriter(path, self.coordinator, self.host.metrics) if settings.tensorboard else None
        self.losses = LossWatch(self.host.metrics)
        self.narration = JobLog(self.coordinator, self.host.metrics, str(path))
        self.report = ProgressReport(self.coordinator, self.host.records, path.name)
        self.servicer = CoordinatorServicer(
            self.coordinator, self.report, self.lines, path / "model.keras", self._stop_at_once
        )
        self.recovery = Recovery(self.coordinator, self.host, self.lines, self.keeper, self.run, self.servicer.changed)
        self._drained_s: float | None = None
        self._at_once = False
        self._configured: int | None = None  # facts of workers in config.json
        self._untraced = False  # some records are not on the disk, and that is reported
        self._noted = 0

    async def serve(self) -> int:
        """Runs the job; returns the exit code."""
        await self._lock_run()
        doorbell = None
        try:
            doorbell = open_doorbell(self._settings, self.host, self._broken)
            server, address = await listen(self._settings, self._add_services)
        except (PortInUse, NotSecured, Unsupported):
            if doorbell:
                doorbell.close()
            self.run.discard()
            raise
        self.run.publish()
        name = doorbell.name if doorbell else ""
        self._joined(pb.ShardAddress(shard=0, address=address, generation=1, doorbell=name))
        identify(job=self.coordinator.job, process="ps-0")
        exporter = open_exporter(self._settings, ShardMetrics(self.host, self.coordinator, self.keeper))
        self.recovery.begin(self._settings.resume)
        facts = {"metrics": f"{self._settings.metrics_host}:{exporter.port}"} if exporter else {}
        announce(address=address, shard=0, run=str(self.run.path), job=self.coordinator.job, **facts)
        on_signals(self._signalled)
        try:
            await self._until_over()
            await self._farewell()
        finally:
            self._flush()
            self._write_summary()
            if self.board:
                self.board.write(time.time(), last=True)
            self.keeper.close()
            self.run.traces.close()
            self.run.calls.close()
            if exporter:
                exporter.close()
            await server.stop(grace=0.5)
            if doorbell:
                doorbell.close()
        self._speak()
        return 0 if self.coordinator.phase == Phase.ENDED else FAILED

    async def _lock_run(self) -> None:
        """Waits for the end of another process that still writes in the run directory: the one before this."""
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not self.run.lock():
            if time.monotonic() > deadline:
                raise RunExists(f"--run-dir must be of no other running server; {self.run.path} is: stop that first.")
            await asyncio.sleep(TICK_S)

    def _add_services(self, server: grpc.aio.Server) -> None:
        rpc.add_CoordinatorServicer_to_server(self.servicer, server)
        server.add_generic_rpc_handlers((ExchangeServicer(self.host, self._broken, self._settings.admitted).handler(),))

    # ------------------------------------------------------------------ between the parts

    def _joined(self, address: pb.ShardAddress) -> None:
        self.coordinator.shards.add(address)
        self.recovery.joined()
        self.servicer.changed()

    def _local_event(self, event: pb.ShardEvent) -> None:
        self._event(0, event)

    def _event(self, shard: int, event: pb.ShardEvent) -> None:
        if event.generation and event.generation != self.coordinator.generation:
            return  # of a state that is void
        now = time.monotonic()
        if event.trace:
            size = DTYPE.itemsize
            if len(event.trace) % size:
                raise InvalidRequest(f"records must be whole, {size} bytes each; received {len(event.trace)} bytes.")
            self.run.traces.append(shard, event.trace)
        self.recording.event(shard, event)
        self.coordinator.shard_event(shard, event, now)
        self.keeper.event(shard, event, now)
        self.servicer.changed()

    def _lost(self, shard: int) -> None:
        self.recovery.lost(shard)
        self.servicer.changed()

    def _broken(self, worker: int) -> None:
        self.coordinator.doubt(worker, time.monotonic())

    def _admit(self, push: Push) -> None:
        assert self.coordinator.ledger is not None
        self.coordinator.ledger.check(push.lease, push.worker, push.epoch, push.start, push.stop)

    def _accepted(self, push: Push) -> None:
        self.coordinator.used(push.worker, push.lease, push.epoch, push.start, push.stop, time.monotonic())

    def _signalled(self, name: str) -> None:
        now = time.monotonic()
        if self._drained_s is None:
            self._drained_s = now
            self.coordinator.drain(name, time.monotonic())
            self.servicer.changed()
        elif now > self._drained_s + SAME_SIGNAL_S:
            self._stop_at_once(f"{name} again")

    def _stop_at_once(self, reason: str) -> None:
        self._at_once = True
        self.coordinator.fail(f"stopped at once: {reason}")
        self.servicer.changed()

    # ------------------------------------------------------------------ the course of the job

    async def _until_over(self) -> None:
        flushed = 0.0
        while self.coordinator.phase not in OVER:
            now = time.monotonic()
            for worker in self.host.waiting_workers:
                self.coordinator.held_up(worker, now)
            self.coordinator.tick(now)
            self.keeper.tick(now)
            self.host.draining = self.coordinator.draining
            self.servicer.changed()
            if now - flushed >= FLUSH_EVERY_S:
                flushed = now
                self.report.sample(now)
                self._flush()
            await self.servicer.wait_until(lambda: self.coordinator.phase in OVER, TICK_S)

    async def _farewell(self) -> None:
        """Keeps what there is, writes the summary, lets the workers and then the other shards go."""
        if self.coordinator.phase == Phase.ENDED or self._drained_s is not None:
            await self.keeper.last(LAST_CHECKPOINT_S)
        self._flush()
        self._write_summary()
        coordinator = self.coordinator
        hurried = coordinator.patience.hurried
        leave_s = 0.0 if self._at_once else HURRIED_LEAVE_S if hurried else LEAVE_TIMEOUT_S
        await self.servicer.wait_until(lambda: not len(coordinator.membership), leave_s)
        self.lines.send(pb.ShardCommand(stop=True))
        await self.servicer.wait_until(lambda: self.lines.all_stopped, STOP_TIMEOUT_S)

    def _flush(self) -> None:
        """Writes what is new; a disk that takes nothing is reported, and tried again."""
        job = self.coordinator
        told = sum(1 + len(facts) for facts in job.facts.values())
        if self._configured != told:
            content = configuration(job.settings, job.facts, job.data)
            self._configured = told if self._write_json("config.json", content) else None
        self._flush_trace()
        trouble = self.run.traces.trouble or self.run.calls.trouble
        if bool(trouble) != self._untraced:
            self._untraced = not self._untraced
            says = f"cannot be written, training goes on: {trouble}" if self._untraced else "is written"
            self.coordinator.notes.append(f"the trace {says}")
        if note := self.losses.look():
            self.coordinator.notes.append(note)
        if self.board:
            self.board.write(time.time())
        self._speak()

    def _speak(self) -> None:
        for said in (*self.coordinator.notes[self._noted :], *self.narration.news()):
            log(said)
        self._noted = len(self.coordinator.notes)

    def _flush_trace(self) -> None:
        self.run.traces.append(0, self.host.records.take())
        self.run.calls.append(0, self.host.calls.take())

    def _write_summary(self) -> None:
        counts = [self.host.count(), *self.lines.counts.values()]
        totals: dict[str, Any] = {
            "transports": sorted(self.host.transports),
            "dropped": self.host.metrics.dropped.total(),
            "duplicates": sum(count.duplicates for count in counts),
            "partial_pushes": self.coordinator.departures.partial,
            "checkpoints": self.keeper.taken,
            "checkpoint_s": self.keeper.seconds,
            "checkpoint_pause_s": self.keeper.pause_s,
            "generation": self.coordinator.generation,
            "bytes_pushed": sum(count.bytes_pushed for count in counts),
            "bytes_pulled": sum(count.bytes_pulled for count in counts),
        }
        ledger, early = self.coordinator.ledger, self.coordinator.stopped_early
        drained = ledger is not None and not ledger.finished and not early
        self._write_json("summary.json", summary(self.coordinator, self.host.metrics, totals, drained))

    def _write_json(self, name: str, content: dict[str, Any]) -> bool:
        """Writes a file of the run; returns whether the disk took it."""
        try:
            self.run.write_json(name, content)
        except OSError as error:
            note = f"{name} cannot be written: {error}"
            if note not in self.coordinator.notes:
                self.coordinator.notes.append(note)
            return False
        return True


def run_server(settings: ServerSettings) -> int:
    """Runs the process that the settings describe; returns its exit code."""
    try:
        process = ShardProcess(settings) if settings.coordinator else CoordinatorProcess(settings)
        return asyncio.run(process.serve())
    except (PortInUse, DownpourError) as error:
        log(f"error: {error}")
        return 1
    except (RunExists, NotSecured) as error:
        log(f"error: {error}")
        return FAILED
