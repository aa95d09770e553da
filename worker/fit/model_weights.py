"""The weights of a model between its steps: as they were pulled last, and as callbacks have changed them since."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.cluster.stage import UpdateCounts
from downpour.worker.fit.optimizer.gradient_op import GradientOp


class ModelWeights:
    """The weights and moving statistics of a model on one worker, during one call of `fit`."""

    def __init__(self, op: GradientOp, member: ScriptWorker, callbacks: Sequence[Any]) -> None:
        """Begin with weights that have not been pulled yet.

        Args:
            op: The exchange of the model's gradients.
            member: This worker.
            callbacks: The callbacks of the script, which may assign weights.
        """
        self._op, self._member, self._callbacks = op, member, callbacks
        self._flat = np.empty(0, np.float32)  # as the model holds them
        self._warned = False

    def write(self, flat: np.ndarray) -> None:
        """Assign weights `float32[n + m]` of the servers to the model."""
        self._op.write(flat)
        self._flat = flat if self._op.is_exact else self._op.read()

    def pull(self, pin: int) -> UpdateCounts:
        """Pull weights into the model, and return the updates of each optimizer.

        Args:
            pin: The number of a pinned version; 0 for the current version.
        """
        flat, counts = self._member.pull(pin)
        self.write(flat.copy())
        return counts

    def assigned(self) -> np.ndarray | None:
        """Return the model's weights if a callback has assigned others since they were written, else None."""
        now = self._op.read()
        return None if np.array_equal(now, self._flat, equal_nan=True) else now

    def restore(self) -> None:
        """Assign the weights that were written last, if a callback has assigned others since."""
        if self.assigned() is not None:
            self._op.write(self._flat)

    def send(self, assigned: np.ndarray) -> None:
        """Send weights that a callback has assigned to the servers."""
        self._member.assign(assigned)
        self._flat = assigned

    def warn_of(self, assigned: np.ndarray) -> None:
        """Print a warning if the callbacks of this worker have assigned other weights than those of worker 0."""
        if self._warned or np.allclose(assigned, self._flat, rtol=1e-5, atol=1e-7, equal_nan=True):
            return
        self._warned = True
        names = ", ".join(type(callback).__name__ for callback in self._callbacks)
        print(
            "downpour: callbacks must assign the same weights on all workers. Received: others on worker "
            f"{self._member.rank} than on worker 0, whose weights are used, from one of {names}. Seed what is drawn.",
            file=sys.stderr,
            flush=True,
        )
