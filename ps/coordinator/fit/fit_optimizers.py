"""The optimizers that the workers of a script's `fit` bring, and the learning rates that worker 0 sets.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.coordinator.fit.fit_admission import names_of
from downpour.ps.coordinator.fit.fit_call import LEADER
from downpour.ps.coordinator.job import Job
from downpour.ps.core.schedules import check_rates


class FitOptimizers:
    """The optimizers of one call of `fit`.

    Attributes:
        specs: The optimizers, with the rates that were set last.
        names: Their names, separated by commas.
    """

    def __init__(self, job: Job, specs: Iterable[pb.OptimizerSpec] = ()) -> None:
        """Create the optimizers of a call.

        Args:
            job: The state of the job.
            specs: The optimizers; none before the first call.
        """
        self._job, self.specs = job, list(specs)
        self.names = names_of(self.specs)

    def send(self, restored: bool = False) -> None:
        """Send settings, optimizers and rates to the shards; `restored` is whether they are those of a checkpoint."""
        self._job.send(
            settings=self._job.settings.model_dump_json(),
            optimizers=self.specs,
            learning_rates=[spec.learning_rates for spec in self.specs],
            restored_call=restored,
        )

    def set_rates(self, worker: int, rates: Sequence[pb.LearningRates]) -> None:
        """Set the learning rates of later updates, one table for each optimizer.

        Raises:
            InvalidRequest: The request does not come from worker 0, or is not a valid table.
        """
        if worker != LEADER:
            raise InvalidRequest(f"worker {LEADER} must set the learning rate; received it from {worker}.")
        if len(rates) != len(self.specs):
            raise InvalidRequest(
                f"learning rates must be set for all optimizers, {self.names}; received {len(rates)} "
                "tables. Send one for each."
            )
        for table in rates:
            check_rates(table)
        for spec, table in zip(self.specs, rates, strict=True):
            spec.learning_rates.CopyFrom(table)
        self._job.send(learning_rates=rates)
