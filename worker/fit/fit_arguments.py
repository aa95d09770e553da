"""The arguments of `fit` that concern all workers, and what a worker registers for one call."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.cluster.leases import Leases
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.cluster.stage import Stage
from downpour.worker.fit.data.leased_batches import LeasedSamples
from downpour.worker.fit.metrics.validation_parts import ValidationParts
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.fit.rate_sender import UNKNOWN_STEPS, RateSender


def other_verbosity(given: Any) -> Any:
    """Return the verbosity of a worker other than 0: the given one where the script captures what it prints, else 0."""
    return 0 if sys.stdout is sys.__stdout__ else given


class FirstEpoch(int):
    """The number of an epoch that Keras's loop begins with even if it is 0."""

    def __bool__(self) -> bool:
        """Return True, because the number is set."""
        return True


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `fit` that concern all workers.

    Attributes:
        initial_epoch: The number of the first epoch.
        epochs: The number of the last epoch, plus 1.
        optimizers: The optimizers of the model.
        callbacks: The callbacks of the script.
        leased: The samples that are leased and their order; None if each worker has a fixed part of the data.
        leases: The leases of this worker; None if each worker has a fixed part of the data.
        fingerprints: Fingerprints of the data of all workers.
        batch_size: The number of samples in a batch; 0 if the data are batched already.
        assigned: The variables that the train step assigns; None if it assigns moving statistics at most.
        validation: The parts of the validation data that the workers evaluate; None if worker 0 evaluates all.
    """

    initial_epoch: int
    epochs: int
    optimizers: ModelOptimizers
    callbacks: Sequence[Any] = ()
    leased: LeasedSamples | None = None
    leases: Leases | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 0
    assigned: Assignments | None = None
    validation: ValidationParts | None = None

    @property
    def job_steps(self) -> int | None:
        """The number of batches of all workers in the first epoch, if the samples are leased."""
        return -(-self.leased.epoch_samples // self.leased.batch_samples) if self.leased is not None else None

    def _lease_samples(self, member: ScriptWorker) -> int:
        if self.leased is None:
            return 0
        return self.leased.lease_samples(member.size, member.lease_batches, member.plan.push_every)

    def stage(self, op: GradientOp, model: keras.Model, rates: RateSender, member: ScriptWorker) -> Stage:
        """Return what a worker registers for this call of `fit`.

        Args:
            op: The exchange of the model's gradients.
            model: The model.
            rates: The learning rates of this call of `fit`.
            member: This worker.
        """
        samples = (self.leased.drawn or self.leased.samples) if self.leased else 1
        environment = {
            "tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version(),
            "machine": platform.machine(),
        }  # fmt: skip
        return Stage(
            op.layout,
            self.optimizers.specs(2 * rates.steps_per_epoch),
            op.fingerprint,
            op.read(),
            environment,
            samples=samples,
            lease_samples=self._lease_samples(member),
            batch_samples=self.leased.batch_samples if self.leased else 0,
            epoch_batches=self.leased.epoch_batches if self.leased else 0,
            slots=self.optimizers.slot_vectors(op.trained),
            leases=self.leases,
            data=self.fingerprints,
            description=pb.FitDescription(
                model=model.name,
                initial_epoch=self.initial_epoch,
                epochs=self.epochs,
                batch_size=self.batch_size,
                steps_per_epoch=rates.steps_per_epoch if rates.steps_per_epoch != UNKNOWN_STEPS else 0,
            ),
        )
