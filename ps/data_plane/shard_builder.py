"""Builds a shard from the coordinator's commands: the job's settings, the layout, a script's learning rates."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout, Slice
from downpour.ps.config import JobSettings, ServerSettings
from downpour.ps.core.apply import UpdateOptions
from downpour.ps.core.buffers import Arena, Pool
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.consistency_base import Consistency
from downpour.ps.core.push import Push, Result
from downpour.ps.core.schedules import RateTable, schedule_of
from downpour.ps.core.shard import Shard
from downpour.ps.core.staleness import compensation_of, needs_old_weights
from downpour.ps.core.tensor_optimizer import OptimizerSpec, TensorOptimizer
from downpour.ps.data_plane.snapshot import ShardState, initial_state
from downpour.ps.storage.checkpoint_file import SLOT, STATE, TRAINED
from downpour.ps.trace.call_log import is_recorded


@functools.lru_cache(maxsize=8)
def settings_of(text: str) -> ServerSettings:
    """Return the settings of a job from the JSON in which the coordinator sends them."""
    return ServerSettings.of_values(json.loads(text))


class ShardBuilder:
    """Holds the settings and the layout that a shard is built from, and whether the present shard must be rebuilt.

    Attributes:
        slice: The part of the weights that this shard owns; None until the layout is known.
        arena: The memory for weights that workers on this host can map; None if weights are on the heap.
        recorded: Whether the calls on the shard are recorded for replay.
        stale: Whether the settings have changed since the shard was built.
    """

    def __init__(self, index: int) -> None:
        """Create a builder of shard `index` that has no settings yet."""
        self._index = index
        self._settings: JobSettings | None = None
        self._layout: Layout | None = None
        self._optimizers: Sequence[OptimizerSpec] = ()  # of a script
        self._shared = False
        self._built: TensorOptimizer | None = None  # of the present shard
        self.slice: Slice | None = None
        self.arena: Arena | None = None
        self.recorded = self.stale = False

    @property
    def settings(self) -> JobSettings:
        """Return the settings of the job, which must be known."""
        assert self._settings is not None
        return self._settings

    @property
    def codec(self) -> str:
        """Return the job's codec; float32 until the settings are known."""
        return self._settings.codec if self._settings else "float32"

    @property
    def layout(self) -> Layout | None:
        """Return the layout of the whole model; None until it is known."""
        return self._layout

    @property
    def size(self) -> int:
        """Return the number of elements that this shard owns; 0 until the layout is known."""
        return self.slice.size if self.slice else 0

    @property
    def counts_in_pulls(self) -> bool:
        """Return whether replies to pulls contain the counts of updates, which a script's model takes over."""
        return self._from_workers

    @property
    def counts_in_replies(self) -> bool:
        """Return whether replies to pushes contain the counts of updates, because a push may be of several batches."""
        if not self._from_workers or self._settings is None:
            return False
        mode = consistency_of(self._settings.mode)
        return mode.payload != "gradient" or self._settings.push_every > 1 or (self._settings.fetch_every or 1) > 1

    @property
    def takes_assignments(self) -> bool:
        """Return whether workers may assign weights and slots during training, as a script's callbacks do."""
        return self._from_workers

    @property
    def records_initial_weights(self) -> bool:
        """Return whether a replay needs the initial weights; a script that is replayed sets them itself."""
        return not self._from_workers

    @property
    def state_rewinds_trace(self) -> bool:
        """Return whether a new state undoes updates in the trace; that of a script's next call of `fit` does not."""
        return not self._from_workers

    def records_pulls(self, settings: JobSettings) -> bool:
        """Return whether a replay with these settings needs the order of pulls.

        It does if the staleness policy needs the weights that gradients were computed from, or if a script is replayed,
        whose workers receive the weights anew.
        """
        return needs_old_weights(settings.staleness_policy) or self._from_workers

    def consistency(self, settings: JobSettings) -> Consistency:
        """Return the mode as this shard follows it.

        The workers of a script wait for their updates on every shard: a replay of a script whose workers go on while
        their pushes are buffered is not always exact.
        """
        return consistency_of(settings.mode, 0 if self._from_workers else self._index)

    def learning_rate_of(self, settings: JobSettings) -> float | None:
        """Return the learning rate of a shard with these settings; None if its workers set their optimizers' rates."""
        return None if self._from_workers else settings.effective_learning_rate

    @property
    def _from_workers(self) -> bool:
        """Return whether the optimizers have come from a script's workers, rather than from the settings."""
        return bool(self._optimizers)

    # ------------------------------------------------------------------ what the coordinator sends

    def share_weights(self) -> None:
        """Keep the weights of later layouts in memory that other processes on this host can map."""
        self._shared = True

    def set_settings(self, settings: str, built: bool) -> None:
        """Take the settings of the job as JSON; `built` is whether a shard was built from earlier ones."""
        # The class of the sender: of a script, whose optimizer comes later, it accepts more than its base class.
        self._settings = settings_of(settings)
        self.stale = built

    def set_layout(self, message: pb.Layout) -> None:
        """Take the layout of the whole model."""
        self._layout = layout = Layout.from_proto(message)
        self.slice = layout.cut(self.settings.shards)[self._index]
        self.recorded = is_recorded(self.settings, layout.size)
        if self.arena is not None and self.stale:
            self.arena.close()
            self.arena = None
        if self._shared and self.arena is None:
            self.arena = Arena(self.slice.size)

    def set_optimizers(self, specs: Sequence[pb.OptimizerSpec]) -> None:
        """Take the optimizers of a script's next call of `fit`."""
        self._optimizers = [OptimizerSpec.from_proto(spec) for spec in specs]

    def set_rates(self, tables: Sequence[pb.LearningRates]) -> None:
        """Take the learning rates of a script's optimizers, valid from now on for the next shard that is built."""
        pairs = zip(self._optimizers, tables, strict=True)
        self._optimizers = [settings._replace(rates=RateTable(table)) for settings, table in pairs]
        if self._built is not None and not self.stale:
            self._built.replace_rates(tables)

    # ------------------------------------------------------------------ what is built

    def build(self, on_outcome: Callable[[Push, Result], None]) -> Shard:
        """Return a shard of zeros that passes every final outcome to `on_outcome`."""
        settings = self.settings
        self.stale = False
        self._built = self._optimizer()
        return Shard(
            np.zeros(self.size, np.float32),
            self._built,
            self.consistency(settings),
            compensation_of(settings.staleness_policy),
            on_outcome,
            pool=Pool(self.size, self.arena.allocate if self.arena else None),
            options=UpdateOptions(
                schedule_of("constant") if self._from_workers else schedule_of(settings.schedule, settings.warm_up),
                settings.momentum_correction,
                settings.version_memory << 20,
                version_depth=2 if settings.overlap else 1,
            ),
        )

    def initial_state(self, payload: memoryview) -> ShardState:
        """Return the state at version 0 with the weights of a payload, `float32[n + m]`."""
        assert self.slice is not None
        return initial_state(np.frombuffer(payload, np.float32), self.slice, self._optimizer().state())

    def state_sizes(self) -> dict[str, int]:
        """Return the number of elements of each vector of this shard's state, by name."""
        assert self.slice is not None
        sizes = {TRAINED: self.slice.trained, **{SLOT + name: self.slice.trained for name in self._optimizer().slots}}
        return {**sizes, STATE: self.slice.state} if self.slice.state else sizes

    def _optimizer(self) -> TensorOptimizer:
        assert self.slice is not None and self._layout is not None
        ofs = self._optimizers or [OptimizerSpec(self.settings.optimizer, self.settings.hyper)]
        return TensorOptimizer(ofs, self._layout, self.slice)
