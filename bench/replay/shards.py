"""Does a recorded job again: the same calls on the same shards, with gradients computed anew from the same versions.

Knows no TensorFlow: whoever computes the gradients is given. Shards move on in turns, each as far as it can: a push
needs the weights of all of them at its base versions, as its worker did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from downpour.bench.replay.differences import Computed, Differences, Name, who
from downpour.bench.replay.record import CannotReplay, Recorded
from downpour.bench.replay.shard_replay import Line, RecordBroken, names_of
from downpour.protos.errors import DownpourError
from downpour.ps.core.buffers import Buffer
from downpour.ps.core.push import Outcome, Push

Compute = Callable[[np.void, np.ndarray], Computed]  # shard 0's record of a push, weights `float32[n + m]`


class Replay:
    """The shards of a recorded job, made anew.

    Attributes:
        differences: From the record.
        pushes: Computed so far.
    """

    def __init__(self, recorded: Recorded, compute: Compute, until: int | None = None) -> None:
        """Makes no call yet.

        Args:
            recorded: The run.
            compute: Computes a push again.
            until: Version of shard 0 to stop at (default: the end). The other shards stop after the last push that
                this version contains.

        Raises:
            RecordBroken: Shard 0 never had that version; or, without one, a push is not in all traces.
        """
        self.differences, self.pushes = Differences(), 0
        self._recorded, self._compute, self._until = recorded, compute, until
        self._slices = recorded.layout.cut(recorded.settings.shards)
        self._lines = [Line(recorded, number, self.differences) for number in range(len(self._slices))]
        self._computed: dict[Name, tuple[Computed, int]] = {}  # with the shards that have not had it yet
        self._flat = np.empty(recorded.layout.size, np.float32)
        self._target: Buffer | None = None  # shard 0 at the version to stop at
        known = set.intersection(*(line.names for line in self._lines))
        for line in self._lines:
            line.begin(known, whole=until is None)
        if until is not None:
            self._shorten(until)
        self._look()

    @property
    def versions(self) -> list[int]:
        """Of every shard's weights."""
        versions = [line.shard.version for line in self._lines]
        return versions if self._until is None else [self._until, *versions[1:]]

    @property
    def weights(self) -> np.ndarray:
        """`float32[n + m]`, as far as it has come."""
        buffers = [line.shard.pull()[0] for line in self._lines]
        return self._joined([(self._target or buffers[0]).array, *(buffer.array for buffer in buffers[1:])]).copy()

    def run(self, progress: Callable[[int], None] = lambda pushes: None) -> None:
        """Makes all calls; `progress` is told of the pushes computed so far.

        Raises:
            RecordBroken: A push was computed from a version that its shard does not reach.
        """
        while not self._done():
            before = [line.at for line in self._lines]
            for number, line in enumerate(self._lines):
                self._move_on(number, line, progress)
            if before == [line.at for line in self._lines]:
                raise RecordBroken(self._stuck())
        if self._until is None:
            for line in self._lines:
                line.end()

    # ------------------------------------------------------------------ calls

    def _move_on(self, number: int, line: Line, progress: Callable[[int], None]) -> None:
        """Makes calls on a shard until it has to wait for another."""
        try:
            while line.at < line.stop and not self._done() and self._call(number, line):
                progress(self.pushes)
        except (DownpourError, ValueError) as error:
            raise RecordBroken(f"call {line.at} on shard {number} cannot be made again: {error}") from error

    def _call(self, number: int, line: Line) -> bool:
        """Makes a shard's next call; False if the weights for it are not there yet."""
        name = line.next_push
        if name is None:
            line.call()
        else:
            computed = self._push_of(name)
            if computed is None:
                return False
            line.push(_push(name, line.record(name), computed), self._part(number, computed.vector))
        self._look()
        return True

    def _push_of(self, name: Name) -> Computed | None:
        """A push, computed when the first shard comes to it; None if the weights for it are not there yet."""
        if name not in self._computed:
            versions = self._bases(name)
            bases = [line.base(version) for line, version in zip(self._lines, versions, strict=True)]
            arrays = [base for base in bases if base is not None]
            if len(arrays) < len(bases):
                return None
            record = self._lines[0].record(name)
            computed = self._compute(record, self._joined(arrays))
            self.differences.computed(name, record, computed)
            for line, version in zip(self._lines, versions, strict=True):
                line.used(version)
            self._computed[name] = computed, len(self._lines)
            self.pushes += 1
        computed, left = self._computed.pop(name)
        if left > 1:
            self._computed[name] = computed, left - 1
        return computed

    def _bases(self, name: Name) -> list[int]:
        return [int(line.record(name)["base_version"]) for line in self._lines]

    def _joined(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The flat vector `float32[n + m]` of every shard's part; valid until the next call."""
        if len(arrays) == 1:
            return arrays[0]
        for part, array in zip(self._slices, arrays, strict=True):
            self._flat[part.start : part.stop] = array[: part.trained]
        self._flat[self._recorded.layout.trained :] = arrays[0][self._slices[0].trained :]
        return self._flat

    def _part(self, number: int, vector: np.ndarray) -> np.ndarray:
        """What a shard gets of a push."""
        if len(self._slices) == 1:
            return vector
        part = self._slices[number]
        trained = vector[part.start : part.stop]
        return np.concatenate((trained, vector[self._recorded.layout.trained :])) if part.state else trained

    # ------------------------------------------------------------------ where it ends

    def _done(self) -> bool:
        first, *others = self._lines
        reached = first.at == first.stop if self._until is None else self._target is not None
        return reached and all(line.at == line.stop for line in others)

    def _look(self) -> None:
        """Holds the version to stop at once shard 0 has it: it may have to go on for the other shards' sake."""
        shard = self._lines[0].shard
        if self._target is None and shard.version == self._until:
            self._target, _ = shard.pull()

    def _shorten(self, until: int) -> None:
        trace = self._recorded.traces[0]
        applied = trace[trace["outcome"] == int(Outcome.APPLIED)]
        newest = int(applied["version"].max()) if len(applied) else 0
        if not 0 <= until <= newest:
            raise CannotReplay(f"--until must be a version that the run had, 0 to {newest:,}; received {until:,}.")
        contained = set(names_of(applied[applied["version"] <= until]))
        for line in self._lines[1:]:
            last = max((at for at, name in enumerate(line.pushes) if name in contained), default=-1)
            line.stop = min(line.stop, last + 1)

    def _stuck(self) -> str:
        versions = [line.shard.version for line in self._lines]
        for number, line in enumerate(self._lines):
            name = line.next_push if line.at < line.stop else None
            if name is not None:
                return (
                    f"{who(name)} was computed from versions {self._bases(name)} of the shards, which cannot be had: "
                    f"done again, they are at {versions} before it, call {line.at} on shard {number}"
                )
        return f"version {self._until} was not reached; shards are at {versions}"


def _push(name: Name, record: np.void, computed: Computed) -> Push:
    """What the worker said of its push to the shard whose record it is."""
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
