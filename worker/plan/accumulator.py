"""The sum of the gradients that have been computed since the last push."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector, euclidean_norm
from downpour.worker.exchange.push_info import PushInfo


class GradientResult(Protocol):
    """The sum of the gradients of some batches."""

    @property
    def vector(self) -> np.ndarray | ChunkedVector:
        """The sum of the gradients, then the differences of the state: `float32[n + m]`."""

    @property
    def norm(self) -> float:
        """The Euclidean norm of the sum."""

    @property
    def loss(self) -> float:
        """The mean loss of the samples."""

    @property
    def correct(self) -> int:
        """The number of samples whose largest output is their class."""


Compute = Callable[[np.ndarray, np.ndarray, Sequence[int], int], GradientResult]  # weights, samples, seed, step


class ManySteps(Protocol):
    """The interface of a `Compute` for several whole batches."""

    @property
    def most(self) -> int:
        """The largest number of batches in one call."""

    def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int], step: int) -> GradientResult:
        """Return the sum of the gradients of the batches."""


@dataclass(frozen=True, slots=True)
class AccumulatedGradient:
    """The gradient of one batch, or the sum of several.

    Attributes:
        gradient: The gradient `float32[n + m]`, in one or several arrays.
        info: The samples, the loss and the versions that belong to it.
    """

    gradient: np.ndarray | ChunkedVector
    info: PushInfo

    @property
    def vector(self) -> np.ndarray:
        """The gradient as one array; a copy if it has several."""
        return self.gradient[:]

    def add(self, other: AccumulatedGradient, trained: int) -> AccumulatedGradient:
        """Return the sum of this gradient and the next one.

        Args:
            other: The next gradient.
            trained: The length n of the part whose norm is computed.
        """
        vector = self.vector + other.vector
        norm = euclidean_norm(vector[:trained])
        return AccumulatedGradient(vector, self.info.followed_by(other.info, norm))
