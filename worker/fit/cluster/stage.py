"""What a worker registers for one call of `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.leases import Leases


class UpdateCounts(NamedTuple):
    """The servers' counts for each optimizer.

    Attributes:
        updates: The number of updates of each optimizer.
        gradients: The number of gradients that these updates used, which is larger in modes that average.
    """

    updates: Sequence[int]
    gradients: Sequence[int]


@dataclass(frozen=True)
class Stage:
    """One call of `fit`, as a worker registers for it.

    Attributes:
        layout: The layout of the model.
        optimizers: The specifications of its optimizers.
        fingerprint: SHA-256 (hex) of the frozen weights, which must be equal on all workers.
        initial: The initial weights `float32[n + m]`; those of worker 0 are used.
        environment: The versions that the result may depend on.
        samples: The number of samples of data that are leased; 1 otherwise.
        lease_samples: The largest number of samples in a lease; 0 if each worker has a fixed part of the data.
        batch_samples: The number of samples in a batch of data that are leased; 0 for leases of one size.
        epoch_batches: The number of batches in an epoch, if a pass over the samples lasts several; 0 otherwise.
        slots: The slots of the optimizers by name, `float32[n]`, if one has been used before; those of worker 0 are
            used.
        leases: The leases of this worker; None if each worker has a fixed part of the data.
        description: What the call trains, for reports.
        data: Fingerprints of the arrays given to `fit`, by name, which must be equal on all workers.
    """

    layout: Layout
    optimizers: Sequence[pb.OptimizerSpec]
    fingerprint: str
    initial: np.ndarray
    environment: dict[str, str]
    samples: int = 1
    lease_samples: int = 0
    batch_samples: int = 0
    epoch_batches: int = 0
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    leases: Leases | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    description: pb.FitDescription | None = None
