"""The coordinator's side of checkpoints: when one is due, the cut over all shards, the writing beside training."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Slice
from downpour.ps.config import interval_of
from downpour.ps.control_plane.checkpoint_interval import CheckpointInterval
from downpour.ps.control_plane.job_snapshot import job_facts, with_shards
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.data_plane.hold import CutRound
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.data_plane.snapshot import Assembly, ShardState
from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED, Checkpoint, JobFacts, numbers, prune, save
from downpour.ps.storage.run_directory import RunDirectory

CUT_TIMEOUT_S = 5.0  # for a cut over several shards: then it is given up, and tried again later
KEPT_PHASES = (Phase.WARMING, Phase.TRAINING, Phase.DRAINING, Phase.FINISHING, Phase.ENDED, Phase.FAILED)


class Checkpointer:
    """Takes checkpoints of one job.

    Attributes:
        taken: Checkpoints written by this process.
        failed: Those that the disk did not take.
        last_s: When the last one was written, monotonic; None before.
        seconds: What the last one took, from the word to hold until it was on the disk.
        pause_s: How long the last cut held pushes back on this shard.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        host: ShardRuntime,
        run: RunDirectory,
        send: Callable[[pb.ShardCommand], None],
        flush_trace: Callable[[], None],
    ) -> None:
        """Keeps the checkpoints of a job.

        Args:
            coordinator: The job.
            host: Shard 0.
            run: Where checkpoints go.
            send: Sends a command to every shard.
            flush_trace: Writes the records of shard 0 that are not written yet.
        """
        self._coordinator, self._host, self._run = coordinator, host, run
        self._send, self._flush_trace = send, flush_trace
        settings = coordinator.settings
        self._interval = CheckpointInterval(*interval_of(settings.checkpoint_every))
        self._keep = settings.checkpoint_keep
        self.taken, self.failed, self.last_s, self.seconds, self.pause_s = 0, 0, None, 0.0, 0.0
        self._number = max(numbers(run.checkpoints), default=0)
        self._cut: _Cut | None = None
        self._writing: asyncio.Future[None] | None = None
        self._seen: object = None
        self._failing = ""
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        host.took = self._took

    last_s: float | None

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._cut is not None or self._writing is not None

    def tick(self, now: float) -> None:
        """Begins a checkpoint if one is due; gives up a cut that does not come about."""
        if self._cut is not None and now > self._cut.begun_s + CUT_TIMEOUT_S:
            self.abandon(now)
        version = self._host.shard.version if self._host.shard else 0
        if self._interval.is_due(now, version) and self._may_begin() and self._news() != self._seen:
            self._begin(now)

    async def last(self, timeout_s: float) -> None:
        """Takes one of what there is now, if anything has changed; waits until it is written."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.busy:
                if not self._interval.enabled or self._news() == self._seen or not self._is_kept():
                    return
                if self._may_begin():
                    self._begin(time.monotonic())
                else:  # the shards have yet to say how far the workers came that have just left
                    await asyncio.sleep(0.01)
            await self.settled(0.01)

    async def settled(self, timeout_s: float) -> bool:
        """Waits until none is being written; returns whether that is so."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=timeout_s)
        else:
            await asyncio.sleep(timeout_s if self._cut is not None else 0)
        return not self.busy

    def close(self) -> None:
        """Ends the writing thread."""
        self._executor.shutdown(wait=True)

    # ------------------------------------------------------------------ the cut

    def event(self, shard: int, event: pb.ShardEvent, now: float) -> None:
        """Takes what a shard says of a cut."""
        cut = self._cut
        if event.HasField("departed") and self._coordinator.settings.shards > 1:
            self.abandon(now)  # some of its pushes may have reached some shards only
        elif cut is None:
            return
        elif event.HasField("held"):
            targets = cut.round.held(shard, event.held)
            if targets is not None:
                self._send(pb.ShardCommand(cut=targets))
        elif event.HasField("part") and event.part.number == cut.round.number:
            state = cut.assemblies[shard].feed(event.part)
            if state is not None:
                cut.states[shard] = state
                self._write_if_whole(now)

    def abandon(self, now: float) -> None:
        """There will be no such cut: a worker left, a shard was lost, or it takes too long."""
        cut, self._cut = self._cut, None
        if cut is None:
            return
        self._send(pb.ShardCommand(cut=pb.Cut(number=cut.round.number, abandon=True)))
        cut.release()
        self._seen = None  # what there is has not been kept
        self._interval.put_off(now + 0.1)

    def _may_begin(self) -> bool:
        return self._is_kept() and not self.busy and not len(self._coordinator.departures)

    def _is_kept(self) -> bool:
        """Whether this is a job of which checkpoints are taken, at a time when they can be."""
        coordinator = self._coordinator
        ready = coordinator.phase in KEPT_PHASES and coordinator.shards.initialised and coordinator.shards.joined
        return ready and coordinator.ledger is not None  # a script's job has none, and no checkpoints

    def _news(self) -> object:
        """What makes a checkpoint differ from the one before."""
        coordinator, shard = self._coordinator, self._host.shard
        results = tuple(coordinator.evaluations)
        used = coordinator.ledger.used_total if coordinator.ledger else 0
        return shard and shard.version, used, results, coordinator.generation

    def _begin(self, now: float) -> None:
        self._number += 1
        layout, shards = self._coordinator.layout, self._coordinator.settings.shards
        assert layout is not None
        self._cut = _Cut(self._number, layout.cut(shards), self._host.state_sizes(), now)
        self._seen = self._news()
        self._send(pb.ShardCommand(hold=self._number))

    def _took(self, number: int, state: ShardState) -> None:
        """Takes shard 0's state and, in the same turn of the loop, that of the job."""
        now, cut = time.monotonic(), self._cut
        if cut is None or cut.round.number != number:
            state.release()
            return
        cut.job = job_facts(self._coordinator, self._host.metrics, now)
        cut.states[0] = state
        self.pause_s = now - cut.begun_s
        self._flush_trace()
        self._write_if_whole(now)

    # ------------------------------------------------------------------ the file

    def _write_if_whole(self, now: float) -> None:
        cut = self._cut
        if cut is None or len(cut.states) < len(cut.slices):
            return
        self._cut = None
        self._writing = asyncio.get_running_loop().run_in_executor(self._executor, self._write, cut)
        self._writing.add_done_callback(lambda done: self._written(cut, done))

    def _write(self, cut: _Cut) -> None:
        """In a thread of its own."""
        self._run.traces.sync()
        save(self._run.checkpoints, cut.checkpoint())
        prune(self._run.checkpoints, self._keep)

    def _written(self, cut: _Cut, done: asyncio.Future[None]) -> None:
        now, failure = time.monotonic(), done.exception()
        cut.release()
        self._writing = None
        self.seconds = now - cut.begun_s
        self._interval.took(cut.begun_s, now, cut.states[0].facts.version)
        if failure is None:
            self.taken, self.last_s = self.taken + 1, now
            if self._failing:
                self._coordinator.notes.append("checkpoints are written again")
            self._failing = ""
            return
        self._seen, self.failed = None, self.failed + 1
        if str(failure) != self._failing:
            self._failing = str(failure)
            self._coordinator.notes.append(f"no checkpoint could be written, training goes on: {failure}")


class _Cut:
    """One cut on its way to the disk."""

    def __init__(self, number: int, slices: list[Slice], names: Iterable[str], now: float) -> None:
        self.begun_s, self.slices = now, slices
        self.round = CutRound(number, range(len(slices)))
        self.states: dict[int, ShardState] = {}
        self.job: JobFacts | None = None
        self.whole: dict[str, np.ndarray] = {}
        self.assemblies: dict[int, Assembly] = {}
        if len(slices) > 1:
            n = slices[-1].stop
            self.whole = {name: np.empty(n, np.float32) for name in names if name != STATE}
            for shard, part in enumerate(slices[1:], start=1):
                views = {name: vector[part.start : part.stop] for name, vector in self.whole.items()}
                self.assemblies[shard] = Assembly(views)

    def checkpoint(self) -> Checkpoint:
        """What all shards gave, as whole vectors."""
        assert self.job is not None
        facts = with_shards(self.job, [self.states[shard].facts for shard in range(len(self.slices))])
        first, part = self.states[0].vectors, self.slices[0]
        if not self.whole:
            return Checkpoint(self.round.number, first, facts)
        for name, vector in self.whole.items():
            vector[part.start : part.stop] = first[name]
        state = {STATE: first[STATE]} if STATE in first else {}
        return Checkpoint(self.round.number, {**self.whole, **state}, facts)

    def release(self) -> None:
        """Gives back what the states lie in."""
        for state in self.states.values():
            state.release()


def part_of(checkpoint: Checkpoint, part: Slice, facts: pb.SnapshotInfo) -> ShardState:
    """What one shard of any number gets of a checkpoint."""
    vectors = {
        name: vector[part.start : part.stop]
        for name, vector in checkpoint.vectors.items()
        if name == TRAINED or name.startswith(SLOT)
    }
    if part.state:
        vectors[STATE] = checkpoint.vectors[STATE]
    return ShardState(facts, vectors)
