"""The interface between a worker's loop and what it computes: a model and its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.worker.exchange.client import Client
from downpour.worker.plan.accumulator import Compute, ManySteps


class Examiner(Protocol):
    """Evaluates weights that the coordinator has pinned."""

    def validate(self, task: pb.Task, client: Client, deadline: Callable[[], float]) -> pb.ReportRequest | None:
        """Return the result on the validation data; None if it was not complete by the deadline."""

    def finish(
        self, task: pb.Task, client: Client, upload: Callable[[Path], None], deadline: Callable[[], float]
    ) -> pb.ReportRequest:
        """Upload the model with the last weights; return the results on both splits, as far as the deadline permits."""


class Computation(Protocol):
    """A model with its data, whose gradients a worker pushes.

    Attributes:
        layout: The layout of the flat vector.
        samples: The number of samples in an epoch.
        initial: The initial weights, `float32[n + m]`.
        one: A function that computes the gradient of one batch.
        many: A function that computes the sum over several batches with local steps between them; None if there are no
            local steps.
        examiner: The evaluations.
    """

    layout: Layout
    samples: int
    initial: np.ndarray
    one: Compute
    many: ManySteps | None
    examiner: Examiner

    def registration(self) -> pb.RegisterRequest:
        """Return the request to register, with layout, data and environment."""

    def warm_up(self) -> dict[str, str]:
        """Compile the gradient; return the facts that its bits depend on."""
