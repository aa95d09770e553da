"""Sends the learning rates of worker 0's optimizers to the servers."""

from __future__ import annotations

from downpour.worker.fit.cluster.learning_rates import kept_for_next_session, send_rates
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers

UNKNOWN_STEPS = 10_000  # in an epoch, until the first one has been counted


class RateSender:
    """The learning rates of one call of `fit`, as tables by updates that worker 0 extends in every epoch.

    Attributes:
        steps_per_epoch: The number of updates that an epoch is expected to have.
    """

    def __init__(self, optimizers: ModelOptimizers, member: ScriptWorker, steps: int | None) -> None:
        """Build the rates of a call of `fit` that begins.

        Args:
            optimizers: The optimizers of the model.
            member: This worker.
            steps: The expected number of updates in an epoch; None if it is not known.
        """
        self._optimizers, self._member = optimizers, member
        self._version, self.steps_per_epoch = 0, steps or UNKNOWN_STEPS

    def expect(self, updates: int) -> None:
        """Expect as many updates in an epoch as the last one had; 0 changes nothing."""
        self.steps_per_epoch = updates or self.steps_per_epoch

    def pulled(self) -> None:
        """Continue at the version of the weights that was pulled last."""
        self._version = self._newest_version

    def send(self, with_schedule: bool = False) -> None:
        """Send the rates, as worker 0, if they differ from the tables that were sent.

        Args:
            with_schedule: Whether to compute a schedule again, which takes long.

        Raises:
            DownpourError: They were not sent, and the next call sends them.
        """
        newer = self._newest_version - self._version
        self.steps_per_epoch = max(self.steps_per_epoch, newer)
        rates = self._optimizers.new_rates(2 * self.steps_per_epoch, newer, with_schedule)
        if rates:
            send_rates(self._member, self._optimizers, rates)

    def send_in_epoch(self, with_schedule: bool = False) -> None:
        """Send the rates as `send` does, between two barriers; after a lost session, `send_again` does it.

        The next push begins another session. No call of the script may raise the error that has ended this one.
        """
        with kept_for_next_session():
            self.send(with_schedule)

    def send_again(self) -> None:
        """Send the rates, as worker 0, to servers that have returned to an earlier state of this epoch."""
        send_rates(self._member, self._optimizers, self._optimizers.rates_since_barrier())

    @property
    def _newest_version(self) -> int:
        """The version of the weights that this worker has pulled last, at a barrier or in a step."""
        return max(self._version, *self._member.versions[:1], 0)
