"""A shard's whole state at one moment, and the messages that carry it between a shard and the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.frame import CHUNK_BYTES
from downpour.protos.layout import Slice
from downpour.ps.core.shard import Shard
from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED


@dataclass(frozen=True)
class ShardState:
    """The state of one shard.

    Attributes:
        facts: The version and the counts of the state.
        vectors: Vectors `float32[...]` by their names in a checkpoint; they must not be written to.
        release: A callable that releases the memory of the vectors; must be called once.
    """

    facts: pb.SnapshotInfo
    vectors: Mapping[str, np.ndarray]
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Snapshot:
    """The state of a shard that was taken for a cut.

    Attributes:
        number: The number of the cut; 0 for the state of version 0, which the replay recorder needs.
        state: The state; its receiver must release it.
    """

    number: int
    state: ShardState


def initial_state(weights: np.ndarray, part: Slice, optimizer: Mapping[str, np.ndarray]) -> ShardState:
    """Return version 0 of a shard with weights `float32[n + m]` and the optimizer's initial slots."""
    slots = {SLOT + name: slot for name, slot in optimizer.items() if name != "step"}
    facts = pb.SnapshotInfo(updates=np.atleast_1d(optimizer["step"]).tolist())
    return ShardState(facts, {**_sections(weights, part), **slots})


def weights_state(weights: np.ndarray, part: Slice, facts: pb.SnapshotInfo, release: Callable[[], None]) -> ShardState:
    """Return a state of the weights `float32[n + m]` of one shard alone, without the optimizer."""
    return ShardState(facts, _sections(weights, part), release)


def _sections(weights: np.ndarray, part: Slice) -> dict[str, np.ndarray]:
    state = {STATE: weights[part.trained :]} if part.state else {}
    return {TRAINED: weights[: part.trained], **state}


def take_state(shard: Shard, part: Slice, time_s: float, records: int) -> ShardState:
    """Return the present state of a shard: the weights by reference, the slots copied."""
    buffer, version = shard.pull()
    optimizer = shard.optimizer_state()
    facts = pb.SnapshotInfo(
        version=version,
        updates=np.atleast_1d(optimizer.pop("step")).tolist(),
        time_s=time_s,
        records=records,
        gradients=shard.gradients,
        pending=[pb.SampleRange(epoch=p.epoch, start=p.start, stop=p.stop) for p in shard.pending if p.start < p.stop],
    )
    slots = {SLOT + name: slot for name, slot in optimizer.items()}
    return ShardState(facts, {**_sections(buffer.array, part), **slots}, lambda: shard.release(buffer))


def put_state(shard: Shard, state: ShardState, generation: int) -> None:
    """Restore the shard to a state, as another generation.

    Raises:
        ValueError: The state belongs to another optimizer, or has another size.
    """
    weights = state.vectors[TRAINED]
    if STATE in state.vectors:
        weights = np.concatenate((weights, state.vectors[STATE]))
    slots = {name.removeprefix(SLOT): v for name, v in state.vectors.items() if name.startswith(SLOT)}
    step = np.array(state.facts.updates, np.int64)
    shard.restore(weights, state.facts.version, {"step": step, **slots}, generation)
    shard.count_gradients(state.facts.gradients)


def parts(state: ShardState, number: int) -> Iterator[pb.SnapshotPart]:
    """Yield a state as messages of bounded size; `number` is that of the cut."""
    yield pb.SnapshotPart(number=number, info=state.facts)
    for name, vector in state.vectors.items():
        data = np.ascontiguousarray(vector).data.cast("B")
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = bytes(data[start : start + CHUNK_BYTES])
            yield pb.SnapshotPart(number=number, vector=name, offset=start // 4, data=chunk)
    yield pb.SnapshotPart(number=number, last=True)


class Assembly:
    """Assembles the parts of one shard's state in memory that the caller provides."""

    def __init__(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Create an assembly that fills `vectors`, each `float32[...]`, by name."""
        self._vectors = vectors
        self._filled = dict.fromkeys(vectors, 0)
        self._facts: pb.SnapshotInfo | None = None

    def feed(self, part: pb.SnapshotPart) -> ShardState | None:
        """Add the next part; return the state once it is complete, else None.

        Raises:
            InvalidRequest: A part is missing, is out of order, or belongs to an unknown vector.
        """
        if part.HasField("info"):
            self._facts = part.info
        if part.data:
            self._fill(part)
        if not part.last:
            return None
        if self._facts is None or any(self._filled[name] != len(vector) for name, vector in self._vectors.items()):
            raise InvalidRequest(f"a shard's state must be complete; received, in elements: {self._filled}.")
        return ShardState(self._facts, self._vectors)

    def _fill(self, part: pb.SnapshotPart) -> None:
        vector = self._vectors.get(part.vector)
        size, odd = divmod(len(part.data), 4)
        if vector is None or odd or part.offset != self._filled[part.vector] or part.offset + size > len(vector):
            raise InvalidRequest(
                f"a part of a shard's state must continue one of {', '.join(self._vectors)}; received "
                f"{len(part.data):,} bytes of {part.vector!r} at {part.offset:,}."
            )
        vector[part.offset : part.offset + size] = np.frombuffer(part.data, np.float32)
        self._filled[part.vector] += size
