"""The weights of a shard with the state of their optimizer: committed, pinned and assigned versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from downpour.protos.errors import InvalidRequest
from downpour.ps.core.buffers import Buffer, Pool
from downpour.ps.core.optimizer import Optimizer


class CommittedWeights:
    """The newest version of a vector `float32[n + m]`, earlier versions that are pinned, and the optimizer's slots.

    A committed buffer is immutable until its last holder releases it; an update writes to another one.

    Attributes:
        version: Updates applied.
        assigned_at: The version at which weights were assigned last; -1 if never.
    """

    def __init__(self, initial: np.ndarray, optimizer: Optimizer, pool: Pool | None = None) -> None:
        """Commit the initial vector as version 0.

        Args:
            initial: `float32[n + m]`.
            optimizer: The optimizer of the first n elements.
            pool: The pool of buffers `float32[n + m]` (default: on the heap).
        """
        self.version = 0
        self._optimizer = optimizer
        self._pool = pool or Pool(len(initial))
        self._committed = self._pool.take()
        self._committed.array[:] = initial
        self.assigned_at = -1
        self._pins: dict[int, tuple[Buffer, int]] = {}
        self._replicas: dict[int, Buffer] = {}  # by worker, for its next reply

    @property
    def size(self) -> int:
        """The number of elements of the vector, n + m."""
        return self._pool.size

    def release(self, buffer: Buffer) -> None:
        """End a hold that a pull gave; the buffer may belong to a shard that this one has replaced."""
        buffer.pool.drop(buffer)

    def pin(self, number: int) -> None:
        """Keep the committed version, to be pulled under `number` until `unpin`."""
        self.unpin(number)
        self._pins[number] = self._pool.hold(self._committed), self.version

    def unpin(self, number: int) -> None:
        """Release a version that was pinned, so that its buffer may be reused."""
        pinned = self._pins.pop(number, None)
        if pinned is not None:
            self._pool.drop(pinned[0])

    def unpin_all(self) -> None:
        """Release every version that was pinned."""
        for number in list(self._pins):
            self.unpin(number)

    def assign(self, weights: np.ndarray, partial: bool = False) -> None:
        """Replace the committed weights by others `float32[n + m]`, without an update: the version stays the same.

        Args:
            weights: The weights.
            partial: Whether elements that are NaN stay as they are.
        """
        spare, now = self._pool.take(), self._committed.array
        spare.array[:] = np.where(np.isnan(weights), now, weights) if partial else weights
        self._pool.drop(self._committed)
        self._committed, self.assigned_at = spare, self.version

    def pull_slot(self, name: str) -> tuple[Buffer, int]:
        """Return a copy of an optimizer slot, `float32[n + m]` with m zeros, held as by `pull`, and the version.

        Raises:
            InvalidRequest: The optimizer has no such slot.
        """
        slot, copy = self._optimizer.slot(name), self._pool.take()
        copy.array[: len(slot)], copy.array[len(slot) :] = slot, 0
        return copy, self.version

    @property
    def updates(self) -> list[int]:
        """The number of updates that each optimizer has made."""
        return self._optimizer.updates

    @property
    def gradients(self) -> list[int]:
        """The number of gradients that the updates of each optimizer have used."""
        return self._optimizer.gradients

    def count_gradients(self, gradients: Sequence[int]) -> None:
        """Continue the numbers of gradients of a checkpoint; an empty sequence continues those of the updates."""
        self._optimizer.count_gradients(gradients)

    def assign_slot(self, name: str, content: np.ndarray) -> None:
        """Set an optimizer slot from `float32[n + m]`.

        Raises:
            InvalidRequest: The optimizer has no such slot.
        """
        slot = self._optimizer.slot(name)
        slot[:] = content[: len(slot)]

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Return a copy of every optimizer slot, `float32[n]`, and of `step`."""
        return self._optimizer.state()

    def _pinned(self, number: int) -> tuple[Buffer, int]:
        if number not in self._pins:
            raise InvalidRequest(
                f"weights must be pinned before they are pulled as pin {number}; pinned are {[*self._pins]}."
            )
        return self._pins[number]

    def _drop_replica(self, worker: int) -> None:
        replica = self._replicas.pop(worker, None)
        if replica is not None:
            self._pool.drop(replica)

    def _commit(self, spare: Buffer) -> None:
        self._pool.drop(self._committed)
        self._committed = spare
        self.version += 1
