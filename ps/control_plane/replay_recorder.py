"""Writes the files that replay needs: traces and calls of other shards, and the initial weights of all shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Layout
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.data_plane.snapshot import Assembly, ShardState
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.storage.checkpoint_file import STATE, TRAINED
from downpour.ps.storage.run_directory import RunDirectory
from downpour.ps.storage.safetensors_file import write_tensors
from downpour.ps.trace import format as trace
from downpour.ps.trace.call_log import DTYPE, is_recorded

FORMAT = "downpour initial weights 1"


class ReplayRecorder:
    """Assembles the initial weights of all shards, and writes the traces and calls of the other shards."""

    def __init__(self, coordinator: Coordinator, run: RunDirectory) -> None:
        """Create a recorder of one job.

        Args:
            coordinator: The job.
            run: The run directory.
        """
        self._coordinator, self._run = coordinator, run
        self._initialisation = -1
        self._whole: dict[str, np.ndarray] = {}
        self._assemblies: dict[int, Assembly] = {}
        self._missing: set[int] = set()

    def event(self, shard: int, event: pb.ShardEvent) -> None:
        """Write the trace and the calls, and collect the parts of version 0, in an event of another shard.

        Raises:
            InvalidRequest: A record is incomplete.
        """
        size = trace.DTYPE.itemsize
        if len(event.trace) % size:
            raise InvalidRequest(f"records must be whole, {size} bytes each; received {len(event.trace)} bytes.")
        if event.trace:
            self._run.traces.append(shard, event.trace)
        if not self._wanted:
            return
        if len(event.call_log) % DTYPE.itemsize:
            raise InvalidRequest(
                f"calls must be whole, {DTYPE.itemsize} bytes each; received {len(event.call_log)} bytes."
            )
        self._run.calls.append(shard, event.call_log)
        if event.HasField("part") and not event.part.number:
            self._part(shard, event.part)

    def take_initial_state(self, state: ShardState) -> None:
        """Add version 0 of shard 0 to the initial weights, and release it."""
        if self._wanted and self._begin(0, state.facts.initialisation):
            for name, vector in state.vectors.items():
                self._whole[name][: len(vector)] = vector
            self._complete(0)
        state.release()

    @property
    def _wanted(self) -> bool:
        job = self._coordinator.job
        of_recorded = job.generation == 1 or self._coordinator.work.records_generations
        return job.layout is not None and of_recorded and is_recorded(job.settings, job.layout.size)

    def _part(self, shard: int, part: pb.SnapshotPart) -> None:
        if part.HasField("info") and not self._begin(shard, part.info.initialisation):
            self._assemblies.pop(shard, None)
        assembly = self._assemblies.get(shard)
        if assembly is not None and assembly.feed(part) is not None:
            self._complete(shard)

    def _begin(self, shard: int, initialisation: int) -> bool:
        """Prepare for a shard's version 0; return False if it is outdated or written already."""
        layout, shards = self._coordinator.job.layout, self._coordinator.job.settings.shards
        assert layout is not None
        if initialisation > self._initialisation:
            self._initialisation, self._missing = initialisation, set(range(shards))
            self._whole = {TRAINED: np.empty(layout.trained, np.float32)}
            if layout.state:
                self._whole[STATE] = np.empty(layout.state, np.float32)
        if initialisation < self._initialisation or shard not in self._missing:
            return False
        part = layout.cut(shards)[shard]
        self._assemblies[shard] = Assembly({TRAINED: self._whole[TRAINED][part.start : part.stop]})
        return True

    def _complete(self, shard: int) -> None:
        self._missing.discard(shard)
        del self._assemblies[shard]
        layout = self._coordinator.job.layout
        if self._missing or layout is None:
            return
        try:
            with atomic_write(self._run.path / "initial.safetensors") as place:
                save_initial(place, self._whole, layout)
        except OSError as error:
            self._coordinator.job.notes.append(sentence("initial_weights_not_written", reason=reason_of(error)))
        self._whole = {}


def save_initial(path: Path, vectors: dict[str, np.ndarray], layout: Layout) -> None:
    """Write `trained`, `float32[n]`, and `state`, `float32[m]` if there is any, with the layout in the metadata.

    Raises:
        OSError: The file cannot be written.
    """
    tensors = [[tensor.name, list(tensor.shape), tensor.section] for tensor in layout.tensors]
    write_tensors(path, vectors, {"format": FORMAT, "layout": json.dumps(tensors)})
