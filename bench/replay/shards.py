"""Repeats a recorded job: the same calls on new shards, with gradients computed again from the same versions.

This module does not import TensorFlow; the function that computes gradients is an argument. The shards advance in
turns, each as far as possible: a push needs the weights of all shards at its base versions, as it did for its worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from downpour.bench.replay.differences import Computed, Differences, Name, push_text
from downpour.bench.replay.record import CannotReplay, Recorded
from downpour.bench.replay.shard_replay import RecordBroken, ShardReplay, names_of
from downpour.protos.errors import DownpourError
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.push import Outcome, Push

Compute = Callable[[np.void, np.ndarray], Computed]  # shard 0's record of a push, weights `float32[n + m]`


class Replay:
    """The replay of all shards of a recorded job.

    Attributes:
        differences: The differences from the record.
        pushes: The number of pushes computed so far.
    """

    def __init__(self, recorded: Recorded, compute: Compute, until: int | None = None) -> None:
        """Build a replay that has not repeated any call yet.

        Args:
            recorded: The run.
            compute: A function that computes a push again.
            until: Version of shard 0 at which to stop (default: the end of the run). The other shards stop after the
                last push that this version contains.

        Raises:
            CannotReplay: Shard 0 never had the version `until`.
            RecordBroken: A push is missing in a trace, and `until` is None.
        """
        self.differences, self.pushes = Differences(), 0
        self._recorded, self._compute, self._until = recorded, compute, until
        self._slices = recorded.layout.cut(recorded.settings.shards)
        self._replays = [ShardReplay(recorded, number, self.differences) for number in range(len(self._slices))]
        self._computed: dict[Name, tuple[Computed, int]] = {}  # with the number of shards that still need it
        self._flat = np.empty(recorded.layout.size, np.float32)
        self._target: Buffer | None = None  # weights of shard 0 at the version `until`
        known = set.intersection(*(replay.names for replay in self._replays))
        for replay in self._replays:
            replay.begin(known, whole=until is None)
        if until is not None:
            self._shorten(until)
        self._look()

    @property
    def versions(self) -> list[int]:
        """The version of every shard's weights."""
        versions = [replay.shard.version for replay in self._replays]
        return versions if self._until is None else [self._until, *versions[1:]]

    @property
    def weights(self) -> np.ndarray:
        """A copy of the current weights `float32[n + m]`."""
        buffers = [replay.shard.pull()[0] for replay in self._replays]
        return self._joined([(self._target or buffers[0]).array, *(buffer.array for buffer in buffers[1:])]).copy()

    def run(self, progress: Callable[[int], None] = lambda pushes: None) -> None:
        """Repeat all calls; `progress` receives the number of pushes computed so far.

        Raises:
            RecordBroken: A push was computed from a version that its shard does not reach.
        """
        while not self._done():
            before = [replay.at for replay in self._replays]
            for number, replay in enumerate(self._replays):
                self._move_on(number, replay, progress)
            if before == [replay.at for replay in self._replays]:
                raise RecordBroken(self._stuck())
        if self._until is None:
            for replay in self._replays:
                replay.end()

    # ------------------------------------------------------------------ calls

    def _move_on(self, number: int, replay: ShardReplay, progress: Callable[[int], None]) -> None:
        """Repeat calls on a shard until it has to wait for another shard."""
        try:
            while replay.at < replay.stop and not self._done() and self._call(number, replay):
                progress(self.pushes)
        except (DownpourError, ValueError) as error:
            raise RecordBroken(f"call {replay.at} on shard {number} cannot be repeated: {error}") from error

    def _call(self, number: int, replay: ShardReplay) -> bool:
        """Repeat a shard's next call; return False if the weights for it are not available yet."""
        name = replay.next_push
        if name is None:
            replay.call()
        else:
            computed = self._push_of(name)
            if computed is None:
                return False
            replay.push(_push(name, replay.record(name), computed), self._part(number, computed.vector))
        self._look()
        return True

    def _push_of(self, name: Name) -> Computed | None:
        """Return a push, computed when the first shard needs it, or None if its weights are not available yet."""
        if name not in self._computed:
            versions = self._bases(name)
            bases = [replay.base(version) for replay, version in zip(self._replays, versions, strict=True)]
            arrays = [base for base in bases if base is not None]
            if len(arrays) < len(bases):
                return None
            record = self._replays[0].record(name)
            computed = self._compute(record, self._joined(arrays))
            self.differences.compare_gradient(name, record, computed)
            for replay, version in zip(self._replays, versions, strict=True):
                replay.used(version)
            self._computed[name] = computed, len(self._replays)
            self.pushes += 1
        computed, left = self._computed.pop(name)
        if left > 1:
            self._computed[name] = computed, left - 1
        return computed

    def _bases(self, name: Name) -> list[int]:
        return [int(replay.record(name)["base_version"]) for replay in self._replays]

    def _joined(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the flat vector `float32[n + m]` of all shards' parts, which is valid until the next call."""
        if len(arrays) == 1:
            return arrays[0]
        for part, array in zip(self._slices, arrays, strict=True):
            self._flat[part.start : part.stop] = array[: part.trained]
        self._flat[self._recorded.layout.trained :] = arrays[0][self._slices[0].trained :]
        return self._flat

    def _part(self, number: int, vector: np.ndarray) -> np.ndarray:
        """Return a shard's part of a push."""
        if len(self._slices) == 1:
            return vector
        part = self._slices[number]
        trained = vector[part.start : part.stop]
        return np.concatenate((trained, vector[self._recorded.layout.trained :])) if part.state else trained

    # ------------------------------------------------------------------ where it ends

    def _done(self) -> bool:
        first, *others = self._replays
        reached = first.at == first.stop if self._until is None else self._target is not None
        return reached and all(replay.at == replay.stop for replay in others)

    def _look(self) -> None:
        """Keep the weights of shard 0 at the version `until`, because it may have to continue for the other shards."""
        shard = self._replays[0].shard
        if self._target is None and shard.version == self._until:
            self._target, _ = shard.pull()

    def _shorten(self, until: int) -> None:
        trace = self._recorded.traces[0]
        applied = trace[trace["outcome"] == int(Outcome.APPLIED)]
        newest = int(applied["version"].max()) if len(applied) else 0
        if not 0 <= until <= newest:
            raise CannotReplay(f"--until must be a version that the run had, 0 to {newest:,}; received {until:,}.")
        contained = set(names_of(applied[applied["version"] <= until]))
        for replay in self._replays[1:]:
            last = max((at for at, name in enumerate(replay.pushes) if name in contained), default=-1)
            replay.stop = min(replay.stop, last + 1)

    def _stuck(self) -> str:
        versions = [replay.shard.version for replay in self._replays]
        for number, replay in enumerate(self._replays):
            name = replay.next_push if replay.at < replay.stop else None
            if name is not None:
                return (
                    f"{push_text(name)}, call {replay.at} on shard {number}, was computed from versions "
                    f"{self._bases(name)} of the shards, but in the replay the shards are at {versions} before it"
                )
        return f"version {self._until} was not reached; the shards are at {versions}"


def _push(name: Name, record: np.void, computed: Computed) -> Push:
    """Return the push with which the worker reached the shard of this record."""
    return Push(
        *name,
        base_version=int(record["base_version"]),
        samples=computed.samples,
        norm=computed.norm,
        nonfinite=not computed.finite,
        loss=computed.loss,
        lease=int(record["lease"]),
        epoch=int(record["epoch"]),
        start=int(record["start"]),
        stop=int(record["stop"]),
        steps=computed.steps,
    )
