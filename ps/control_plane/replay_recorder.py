"""The coordinator's part of a record: the initial weights of all shards in one file, and the calls on each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Layout
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.data_plane.snapshot import Assembly, ShardState
from downpour.ps.storage.atomic_file import atomic_write
from downpour.ps.storage.checkpoint_file import STATE, TRAINED
from downpour.ps.storage.run_directory import RunDirectory
from downpour.ps.storage.safetensors_file import write_tensors
from downpour.ps.trace.call_log import DTYPE, is_recorded

FORMAT = "downpour initial weights 1"


class ReplayRecorder:
    """Puts together what the shards began with, and writes down the calls on them."""

    def __init__(self, coordinator: Coordinator, run: RunDirectory) -> None:
        """Nothing is there yet.

        Args:
            coordinator: Knows the layout.
            run: Where the files go.
        """
        self._coordinator, self._run = coordinator, run
        self._initialisation = -1
        self._whole: dict[str, np.ndarray] = {}
        self._assemblies: dict[int, Assembly] = {}
        self._missing: set[int] = set()

    def event(self, shard: int, event: pb.ShardEvent) -> None:
        """Takes what another shard says of calls and of its version 0.

        Raises:
            InvalidRequest: It is not whole.
        """
        if not self._wanted:
            return
        if len(event.call_log) % DTYPE.itemsize:
            size = len(event.call_log)
            raise InvalidRequest(f"calls must be whole, {DTYPE.itemsize} bytes each; received {size} bytes.")
        self._run.calls.append(shard, event.call_log)
        if event.HasField("part") and not event.part.number:
            self._part(shard, event.part)

    def took(self, state: ShardState) -> None:
        """Takes version 0 of shard 0."""
        if self._wanted and self._begin(0, state.facts.initialisation):
            for name, vector in state.vectors.items():
                self._whole[name][: len(vector)] = vector
            self._got(0)
        state.release()

    @property
    def _wanted(self) -> bool:
        layout, settings = self._coordinator.layout, self._coordinator.settings
        return layout is not None and self._coordinator.generation == 1 and is_recorded(settings, layout.size)

    def _part(self, shard: int, part: pb.SnapshotPart) -> None:
        if part.HasField("info") and not self._begin(shard, part.info.initialisation):
            self._assemblies.pop(shard, None)
        assembly = self._assemblies.get(shard)
        if assembly is not None and assembly.feed(part) is not None:
            self._got(shard)

    def _begin(self, shard: int, initialisation: int) -> bool:
        """Makes room for what a shard began with; False if all have begun anew since, or it is written already."""
        layout, shards = self._coordinator.layout, self._coordinator.settings.shards
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

    def _got(self, shard: int) -> None:
        self._missing.discard(shard)
        del self._assemblies[shard]
        layout = self._coordinator.layout
        if self._missing or layout is None:
            return
        try:
            with atomic_write(self._run.path / "initial.safetensors") as place:
                save_initial(place, self._whole, layout)
        except OSError as error:
            self._coordinator.notes.append(f"the run cannot be replayed: its initial weights were not written: {error}")
        self._whole = {}


def save_initial(path: Path, vectors: dict[str, np.ndarray], layout: Layout) -> None:
    """Writes `trained`, `float32[n]`, and `state`, `float32[m]` if there is any, and the layout beside them.

    Raises:
        OSError: It cannot be written.
    """
    tensors = [[tensor.name, list(tensor.shape), tensor.section] for tensor in layout.tensors]
    write_tensors(path, vectors, {"format": FORMAT, "layout": json.dumps(tensors)})
