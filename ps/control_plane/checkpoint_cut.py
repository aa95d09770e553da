"""The states of all shards at one cut, and the checkpoint that they form."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Slice
from downpour.ps.config_change import Change
from downpour.ps.control_plane.job_snapshot import with_shards
from downpour.ps.data_plane.cut import CutRound
from downpour.ps.data_plane.snapshot import Assembly, ShardState
from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED, Checkpoint, JobFacts


class CheckpointCut:
    """A cut, until its checkpoint is on the disk, or until all shards have made its change of the settings.

    Attributes:
        begun_s: The time at which the cut began.
        slices: The parts of the shards.
        saved: Whether a checkpoint of the cut is written.
        change: The change of the settings that the shards make at the cut; None if there is none.
        round: The protocol of the cut.
        states: The states of the shards that have arrived.
        generation: The generation in which the cut began.
        revision: The revision of the work that the checkpoint contains.
        completed_call: The call of `fit` whose final weights the checkpoint contains; 0 if there is none.
        assemblies: The states of the other shards that arrive in parts.
    """

    def __init__(
        self,
        number: int,
        slices: list[Slice],
        names: Iterable[str],
        now: float,
        generation: int,
        purpose: tuple[bool, Change | None],
    ) -> None:
        """Begin a cut.

        Args:
            number: The number of the cut, which is that of its checkpoint.
            slices: The parts of the shards.
            names: The names of the vectors in a shard's state.
            now: The current time in seconds.
            generation: The generation of the job.
            purpose: Whether a checkpoint is written, and the change of the settings; None if there is none.
        """
        self.begun_s, self.slices = now, slices
        self.saved, self.change = purpose
        self.round = CutRound(number, range(len(slices)))
        self.states: dict[int, ShardState] = {}
        self.revision, self.generation, self.completed_call = 0, generation, 0
        self._job: JobFacts | None = None
        self._joined: dict[str, np.ndarray] = {}
        self.assemblies: dict[int, Assembly] = {}
        if len(slices) > 1:
            n = slices[-1].stop
            self._joined = {name: np.empty(n, np.float32) for name in names if name != STATE}
            for shard, part in enumerate(slices[1:], start=1):
                views = {name: vector[part.start : part.stop] for name, vector in self._joined.items()}
                self.assemblies[shard] = Assembly(views)

    def take_job(self, job: JobFacts, revision: int, completed_call: int) -> None:
        """Take the state of the job at the cut, the revision of its work, and the call of `fit` that is complete."""
        self._job, self.revision, self.completed_call = job, revision, completed_call

    def checkpoint(self) -> Checkpoint:
        """Return the states of all shards, joined to the vectors of the whole model."""
        assert self._job is not None
        facts = with_shards(self._job, [self.states[shard].facts for shard in range(len(self.slices))])
        first, part = self.states[0].vectors, self.slices[0]
        if not self._joined:
            return Checkpoint(self.round.number, first, facts)
        for name, vector in self._joined.items():
            vector[part.start : part.stop] = first[name]
        state = {STATE: first[STATE]} if STATE in first else {}
        return Checkpoint(self.round.number, {**self._joined, **state}, facts)

    def release(self) -> None:
        """Release the memory of the states."""
        for state in self.states.values():
            state.release()


def part_of(checkpoint: Checkpoint, part: Slice, facts: pb.SnapshotInfo) -> ShardState:
    """Return the state of a shard that owns `part`; the checkpoint may be of another number of shards."""
    vectors = {
        name: vector[part.start : part.stop]
        for name, vector in checkpoint.vectors.items()
        if name == TRAINED or name.startswith(SLOT)
    }
    if part.state:
        vectors[STATE] = checkpoint.vectors[STATE]
    return ShardState(facts, vectors)
