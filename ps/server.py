"""Builds a parameter-server process and runs it until the job is over."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos import parameter_server_pb2_grpc as rpc
from downpour.protos.credentials import NotSecured
from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.logs import identify, log, reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.protos.system import clock, descriptors, entropy
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import continued
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.control_plane.effects import Effects, JobChange, LeaseLedger
from downpour.ps.control_plane.messages import ProgressReport
from downpour.ps.control_plane.recorded_leases import RecordedLeases
from downpour.ps.control_plane.recovery import RETRY_S, Recovery
from downpour.ps.control_plane.replay_recorder import ReplayRecorder
from downpour.ps.control_plane.replay_target import ReplayTarget, followed_order
from downpour.ps.control_plane.servicer import CoordinatorServicer
from downpour.ps.control_plane.shard_link import ShardLinks
from downpour.ps.coordinator.job_factory import new_coordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.data_plane.listeners import Listeners, ListenRequest, open_listeners
from downpour.ps.data_plane.request_handler import RequestHandler
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.endpoints import PortInUse, announce, listen_or_close, on_signals, open_exporter
from downpour.ps.monitoring.prometheus import Durations, ShardMetrics
from downpour.ps.monitoring.run_reports import RunReports
from downpour.ps.shard_server import ShardProcess
from downpour.ps.storage.checkpoint_file import numbers
from downpour.ps.storage.ended_run import RunEnded, has_ended
from downpour.ps.storage.run_directory import RunDirectory, UnusableDirectory, read_changes, run_directory

TICK_S = 0.1
SAME_SIGNAL_S = 1.0  # signals within this time count as one: each thread of a dying launcher causes one
FLUSH_EVERY_S = 0.5
LEAVE_TIMEOUT_S = 3.0
HURRIED_LEAVE_S = 1.0  # if a user has requested the end
STOP_TIMEOUT_S = 1.5
LAST_CHECKPOINT_S = 3.0
LOCK_TIMEOUT_S = 15.0  # longer than a server may take to end
# Errors of a disk that an operator may mend while the server waits.
TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE)
FAILED = 3  # exit code of a server whose job has failed: a restart would not help


class RunExists(Exception):
    """The run directory holds another run's checkpoints."""


class CoordinatorProcess:
    """Shard 0 and the coordinator of the job, in one process on one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        """Create the run directory and all parts of this process.

        Raises:
            RunExists: The run directory holds the checkpoints of an earlier run, and --resume is not given.
            RunEnded: The run that is to be resumed has ended.
        """
        self._settings = settings
        parent = Path(settings.runs_dir)
        new = () if settings.run_dir or parent.exists() else (parent,)
        path = run_directory(settings)
        if settings.resume and has_ended(path / "summary.json", 0 if settings.script else settings.epochs):
            raise RunEnded(
                f"the run in {path} has ended, and its model is complete: there is nothing to resume. Give more "
                "--epochs than it has, or choose another --run-dir."
            )
        self.run = RunDirectory(path, new)
        if not settings.resume and numbers(self.run.checkpoints):
            raise RunExists(
                f"--run-dir must not hold the checkpoints of an earlier run; {path} does. "
                "Use --resume to continue that run, or choose another folder."
            )
        changes = read_changes(path) if settings.resume else []
        settings = self._settings = continued(settings, changes)
        self.coordinator = new_coordinator(settings, path.name, lambda: entropy.random_bits(63) + 1)
        self.coordinator.job.continue_changes(changes)
        self.coordinator.job.send(
            settings=settings.model_dump_json(), job=pb.JobDescription(job=self.coordinator.job.name)
        )
        self._push_times, self._change = Durations(), JobChange()
        order = followed_order(settings)
        self.runtime = ShardRuntime(0, LeaseLedger(self.coordinator), self._push_times.add, order)
        self._target = ReplayTarget(settings, order, self.runtime) if order is not None else None
        if order is not None:
            order.add_advance_callback(self._change.notify)
        self.links = ShardLinks(self._joined, self._shard_event, self._lost)
        self.checkpointer = Checkpointer(
            self.coordinator, self.runtime, self.run, self._flush_trace, self._change.notify
        )
        recorder = ReplayRecorder(self.coordinator, self.run)
        self.effects = Effects(self.coordinator, self.runtime, self.links, self.checkpointer, recorder, self._change)
        self.handler = RequestHandler(self.runtime, self.effects.deliver)
        self.recovery = Recovery(
            self.coordinator, self.runtime.metrics, self.effects, self.checkpointer, self.run, self._change
        )
        self._progress = ProgressReport(
            self.coordinator, self.runtime.records, path.name, self.run.traces.feed, self._flush_trace,
            self.links.counts,
        )  # fmt: skip
        self.servicer = CoordinatorServicer(
            self.coordinator, self.effects, self.links, self._change, self._progress, path / "model.keras",
            RecordedLeases(self.coordinator, self.runtime.calls),
        )  # fmt: skip
        self.reports = RunReports(self.coordinator, self.runtime.metrics, self.run)
        self._listeners = Listeners(())
        self._drained_s: float | None = None
        self.effects.deliver()

    async def serve(self) -> int:
        """Run the job and return the exit code."""
        await self._lock_run()
        try:
            metrics = ShardMetrics(self.runtime, self._push_times, self.coordinator, self.checkpointer)
            exporter = open_exporter(self._settings, metrics)  # first: if it fails, no server has to be stopped
            server, address = await listen_or_close(self._settings, self._add_services, exporter)
        except (PortInUse, NotSecured, Unsupported):
            self._listeners.close()
            self.run.discard()
            raise
        self.run.announce(address)
        self._joined(self._listeners.address(0, address))
        job = self.coordinator.job
        identify(job=job.name, process="ps-0")
        try:
            await self._begin()
        except UnusableDirectory:
            await server.stop(grace=None)
            raise
        facts = {"metrics": f"{self._settings.metrics_host}:{exporter.port}"} if exporter else {}
        on_signals(self._signalled)  # who reads the announcement may send a signal at once
        announce(address=address, shard=0, run=str(self.run.path), job=job.name, **facts)
        try:
            await self._run_job()
            await self._end_job()
        finally:
            self._flush()
            self._write_summary()
            self.reports.close(clock.wall())
            self.checkpointer.close()
            self.run.traces.close()
            self.run.calls.close()
            if exporter:
                exporter.close()
            self.run.withdraw()
            await server.stop(grace=0.5)
            self._listeners.close()
        self.reports.write_log()
        return 0 if job.phase == Phase.ENDED else FAILED

    async def _begin(self) -> None:
        """Begin the generation of this process; while the disk is full or read-only, wait for `--reconnect-s`.

        Raises:
            UnusableDirectory: The disk could not be written for that time.
        """
        give_up_s, reported = clock.monotonic() + self._settings.reconnect_s, ""
        while True:
            try:
                return self.recovery.begin(self._settings.resume)
            except OSError as error:
                if reason_of(error) != reported:
                    reported = reason_of(error)
                    log(f"the run directory cannot be written, and the server waits: {reason_of(error)}")
                if clock.monotonic() > give_up_s or error.errno not in TRANSIENT:
                    raise UnusableDirectory(
                        f"--run-dir must be a folder whose files can be written; {reason_of(error)}. Make room, remove "
                        "what is in the way, or choose another folder."
                    ) from error
            await asyncio.sleep(RETRY_S)

    async def _lock_run(self) -> None:
        """Wait for an earlier process that still writes to the run directory to end."""
        deadline = clock.monotonic() + LOCK_TIMEOUT_S
        while not self.run.lock():
            if clock.monotonic() > deadline:
                raise RunExists(
                    f"--run-dir must not be used by another running server; {self.run.path} is: stop that server first."
                )
            await asyncio.sleep(TICK_S)

    def _add_services(self, server: grpc.aio.Server) -> None:
        rpc.add_CoordinatorServicer_to_server(self.servicer, server)
        request = ListenRequest(self._settings, self.handler, self._connection_lost, server)
        self._listeners = open_listeners(request)

    # ------------------------------------------------------------------ turns that begin outside of the coordinator

    def _joined(self, address: pb.ShardAddress) -> None:
        self.coordinator.job.shards.add(address)
        self.recovery.joined()
        self._change.notify()

    def _shard_event(self, shard: int, event: pb.ShardEvent) -> None:
        self.effects.shard_event(shard, event)

    def _lost(self, shard: int) -> None:
        self.recovery.lost(shard)
        self._change.notify()

    def _connection_lost(self, worker: int) -> None:
        self.coordinator.connection_lost(worker, clock.monotonic())

    def _signalled(self, name: str) -> None:
        now = clock.monotonic()
        if self._drained_s is None:
            self._drained_s = now
            self.coordinator.work.interrupt()
            self.coordinator.drain(name, now)
            self.effects.deliver()
        elif now > self._drained_s + SAME_SIGNAL_S:
            self.coordinator.stop_at_once(f"{name} again")
        self._change.notify()

    # ------------------------------------------------------------------ the course of the job

    async def _run_job(self) -> None:
        job, flushed_s = self.coordinator.job, 0.0
        while job.phase not in OVER:
            now = clock.monotonic()
            self.coordinator.blocked(self.runtime.waiters.workers, now)
            for worker, totals in self.runtime.metrics.workers.items():
                self.coordinator.pushed(worker, totals.updates + totals.dropped)
            self.coordinator.tick(now)
            if self._target is not None and (stalled := self._target.stalled(now)):
                self.coordinator.fail(stalled)
            if self._settings.script and self._drained_s is not None and not len(job.membership):
                self.coordinator.drain(sentence("no_worker_left"), now)  # the launcher is gone, too
            self.effects.deliver()
            self.checkpointer.tick(now)
            self.effects.deliver()
            self._change.notify()
            if now - flushed_s >= FLUSH_EVERY_S:
                flushed_s = now
                self._progress.sample(now)
                self._flush()
            await self._change.wait_until(lambda: job.phase in OVER, TICK_S)

    async def _end_job(self) -> None:
        """Take a last checkpoint, write the summary, wait for the workers to leave, then stop the other shards."""
        job = self.coordinator.job
        if job.phase == Phase.ENDED or self._drained_s is not None:
            await self._last_checkpoint()
        self._flush()
        self._write_summary()
        leave_s = HURRIED_LEAVE_S if job.deadlines.hurried else LEAVE_TIMEOUT_S
        await self._change.wait_until(lambda: not len(job.membership), 0.0 if job.stopped_at_once else leave_s)
        job.send(stop=True)
        self.effects.deliver()
        await self._change.wait_until(lambda: not self.links.unconfirmed, STOP_TIMEOUT_S)
        job.notes.extend(sentence("shard_not_confirmed", shard=str(shard)) for shard in self.links.unconfirmed)

    async def _last_checkpoint(self) -> None:
        """Take a checkpoint of the present state if it has changed since the last one, and wait until it is written."""
        deadline = clock.monotonic() + LAST_CHECKPOINT_S
        while clock.monotonic() < deadline:
            if self.checkpointer.begin_last(clock.monotonic()):
                return
            self.effects.deliver()
            if await self.checkpointer.settled(0.01):
                await asyncio.sleep(0.01)  # shards have yet to report on workers that have just left

    # ------------------------------------------------------------------ files

    def _flush(self) -> None:
        """Write new results to the run directory and to the log."""
        self._flush_trace()
        self.reports.flush(clock.wall())
        if self.runtime.metrics.updates:  # an attempt that trains nothing does not replace the newest run
            self.run.publish()
        self.coordinator.job.notes.extend(self.run.take_notes())

    def _flush_trace(self) -> None:
        self.run.traces.append(0, self.runtime.records.take())
        self.run.calls.append(0, self.runtime.calls.take())

    def _write_summary(self) -> None:
        counts = [self.runtime.count(), *self.links.counts.values()]
        totals: dict[str, Any] = {
            "transports": sorted(self.runtime.transports),
            "dropped": self.runtime.metrics.dropped.total(),
            "duplicates": sum(count.duplicates for count in counts),
            "uncorrected": sum(count.uncorrected for count in counts),
            "partial_pushes": self.coordinator.job.orphans.partial,
            "checkpoints": self.checkpointer.taken,
            "checkpoint_s": self.checkpointer.seconds,
            "checkpoint_pause_s": self.checkpointer.pause_s,
            "generation": self.coordinator.job.generation,
            "bytes_pushed": sum(count.bytes_pushed for count in counts),
            "bytes_pulled": sum(count.bytes_pulled for count in counts),
        }
        self.reports.write_summary(totals)


def run_server(settings: ServerSettings) -> int:
    """Run the process that the settings describe, and return its exit code."""
    descriptors.raise_limit()
    descriptors.reserve.hold()
    return asyncio.run(serve(settings))


async def serve(
    settings: ServerSettings, built: Callable[[CoordinatorProcess | ShardProcess], None] = lambda process: None
) -> int:
    """Run the process that the settings describe on this event loop, and return its exit code.

    Args:
        settings: The settings of the process.
        built: A callback that receives the process before it serves.
    """
    try:
        process = ShardProcess(settings) if settings.coordinator else CoordinatorProcess(settings)
        built(process)
        return await process.serve()
    except RunEnded as error:  # a server that was killed while it ended, and started again
        log(str(error))
        return 0
    except (PortInUse, DownpourError) as error:
        log(f"error: {error}")
        return 1
    except (RunExists, UnusableDirectory, NotSecured) as error:
        log(f"error: {error}")
        return FAILED
