"""What a script's calls of `fit` train and have reached, for reports.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.work import WorkProgress


class FitRecord:
    """What a script's calls of `fit` train and have reached, for reports.

    Attributes:
        planned: The number of epochs of all calls so far; None if that of one is not known.
        history: The logs of every complete epoch of all calls, by name.
    """

    def __init__(self) -> None:
        """Build the record of a script that has not called `fit` yet."""
        self.planned: int | None = 0
        self.history: list[dict[str, float]] = []
        self._fit = pb.FitDescription()

    @property
    def initial_epoch(self) -> int:
        """Return the number of the first epoch of the current call."""
        return self._fit.initial_epoch

    @property
    def batch_size(self) -> int | None:
        """Return the number of samples in a batch of the current call, or None if it is not known."""
        return self._fit.batch_size or None

    def begin(self, fit: pb.FitDescription) -> None:
        """Begin the next call of `fit` of the job's script."""
        self._fit = fit
        known = self.planned is not None and fit.epochs
        self.planned = (self.planned or 0) + max(0, fit.epochs - fit.initial_epoch) if known else None

    def add(self, logs: Mapping[str, float]) -> None:
        """Add the logs of an epoch that is complete."""
        self.history.append(dict(sorted(logs.items())))

    def put_state(self, state: pb.FitState) -> None:
        """Write the record into the state of a checkpoint."""
        state.fit.CopyFrom(self._fit)
        state.history.extend(pb.EpochLogs(logs=logs) for logs in self.history)
        if self.planned is not None:
            state.planned = self.planned

    @classmethod
    def restored(cls, state: pb.FitState) -> FitRecord:
        """Return the record in the state of a checkpoint."""
        record = cls()
        record._fit = state.fit
        record.history = [dict(sorted(epoch.logs.items())) for epoch in state.history]
        record.planned = state.planned if state.HasField("planned") else None
        return record

    def progress(self, complete: int) -> WorkProgress:
        """Return the place that the current call has reached, of which some epochs are complete."""
        fit = self._fit
        return WorkProgress(
            epoch=fit.initial_epoch + complete,
            epochs=fit.epochs,
            batch_size=fit.batch_size,
            remaining_from=fit.initial_epoch,
            samples_per_epoch=fit.steps_per_epoch * fit.batch_size,
            metrics=self.history[-1] if complete else {},
        )
