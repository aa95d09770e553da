"""The arguments of `fit` that concern all workers, and what a worker registers for one call."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.cluster.leases import Leases
from downpour.worker.fit.cluster.stage import Stage
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.fit.rate_sender import UNKNOWN_STEPS, RateSender


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
        epoch_samples: The number of samples that are leased in an epoch; 0 if each worker has a fixed part of the data.
        lease_samples: The number of samples in a lease.
        leases: The leases of this worker; None if each worker has a fixed part of the data.
        fingerprints: Fingerprints of the data of all workers.
        batch_size: The number of samples in a batch; 0 if the data are batched already.
        assigned: The variables that the train step assigns; None if it assigns moving statistics at most.
    """

    initial_epoch: int
    epochs: int
    optimizers: ModelOptimizers
    callbacks: Sequence[Any] = ()
    epoch_samples: int = 0
    lease_samples: int = 0
    leases: Leases | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 0
    assigned: Assignments | None = None

    def stage(self, op: GradientOp, model: keras.Model, rates: RateSender) -> Stage:
        """Return what a worker registers for this call of `fit`.

        Args:
            op: The exchange of the model's gradients.
            model: The model.
            rates: The learning rates of this call of `fit`.
        """
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
            samples=self.epoch_samples or 1,
            lease_samples=self.lease_samples,
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
