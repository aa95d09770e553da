"""Sends the learning rates of worker 0's optimizer to the servers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.cluster.member import ScriptWorker
from downpour.worker.fit.optimizer.optimizer_spec import has_fixed_rate, rates_of

UNKNOWN_STEPS = 10_000  # in an epoch, until the first one has been counted


class RateSender:
    """The learning rates of one call of `fit`, as a table by version that worker 0 extends in every epoch.

    Attributes:
        first_iteration: The number of updates that the optimizer had made when this call of `fit` began.
        version: The version of the weights that were pulled last.
        steps_per_epoch: The number of updates that an epoch is expected to have.
        sent: The table that the servers have.
    """

    def __init__(self, optimizer: Any, member: ScriptWorker, steps: int | None) -> None:
        """Build the rates of a call of `fit` that begins.

        Args:
            optimizer: The optimizer of the model.
            member: This worker.
            steps: The expected number of updates in an epoch; None if it is not known.
        """
        self._optimizer, self._member = optimizer, member
        self.first_iteration = int(optimizer._iterations.numpy())
        self.version, self.steps_per_epoch = 0, steps or UNKNOWN_STEPS
        self.sent = pb.LearningRates()

    def begin(self, table: pb.LearningRates) -> None:
        """Begin with a table that the servers have received with the optimizer."""
        self.sent = table

    def expect(self, updates: int) -> None:
        """Expect as many updates in an epoch as the last one had; 0 changes nothing."""
        self.steps_per_epoch = updates or self.steps_per_epoch

    def pulled(self, version: int) -> None:
        """Continue at a version of the weights."""
        self.version = version

    @property
    def current(self) -> float:
        """The learning rate of the next update."""
        return float(tf.convert_to_tensor(self._optimizer.learning_rate))

    def assign(self, rate: float) -> None:
        """Assign worker 0's learning rate to the optimizer of another worker; a schedule is equal on all."""
        if isinstance(self._optimizer._learning_rate, keras.Variable):
            self._optimizer._learning_rate.assign(rate)

    def send(self, with_schedule: bool = False) -> None:
        """Send the rates, as worker 0, if they differ from the table that was sent.

        Args:
            with_schedule: Whether to compute a schedule again, which takes long.
        """
        optimizer, version = self._optimizer, self._newest_version
        if not has_fixed_rate(optimizer) and not (with_schedule or self._table_ends(version) or self._differs()):
            return
        self.steps_per_epoch = max(self.steps_per_epoch, version - self.version)
        rates = rates_of(optimizer, version, self.first_iteration + version, 2 * self.steps_per_epoch)
        if rates != self.sent:
            self.sent = rates
            self._member.set_learning_rates(rates)

    @property
    def _newest_version(self) -> int:
        """The version of the weights that this worker has pulled last, at a barrier or in a step."""
        return max(self.version, *self._member.versions[:1], 0)

    def _table_ends(self, version: int) -> bool:
        """Return whether the epoch is longer than was expected, so that the table of learning rates ends soon."""
        return version + self.steps_per_epoch // 2 > self.sent.versions[-1]

    def _differs(self) -> bool:
        """Return whether a function of the script now returns another rate than the table that was sent has."""
        if isinstance(self._optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return False
        version = int(self._optimizer._iterations.numpy()) - self.first_iteration
        expected = float(np.interp(version, self.sent.versions, self.sent.rates))
        return not np.isclose(self.current, expected, rtol=1e-3, atol=0)
