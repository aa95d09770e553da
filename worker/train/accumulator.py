"""The sum of the gradients that have been computed since the last push."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.exchange.push_info import PushInfo


class GradientResult(Protocol):
    """The sum of the gradients of some batches."""

    @property
    def vector(self) -> np.ndarray | ChunkedVector:
        """`float32[n + m]`: the sum, then the differences of the state."""

    @property
    def norm(self) -> float:
        """Of the sum."""

    @property
    def loss(self) -> float:
        """Mean over the samples."""

    @property
    def correct(self) -> int:
        """Samples whose largest output is their class."""


Compute = Callable[[np.ndarray, np.ndarray, Sequence[int], int], GradientResult]  # weights, samples, seed, step


class ManySteps(Protocol):
    """A `Compute` of several whole batches."""

    @property
    def most(self) -> int:
        """Batches that it takes at once."""

    def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int], step: int) -> GradientResult:
        """The sum of their gradients."""


@dataclass(frozen=True, slots=True)
class AccumulatedGradient:
    """The gradient of one batch, or the sum of several.

    Attributes:
        gradient: `float32[n + m]`, perhaps in several arrays.
        info: What it was computed from.
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
            trained: n, the length of the part that the norm is taken of.
        """
        vector = self.vector + other.vector
        norm = float(np.linalg.norm(vector[:trained]))
        return AccumulatedGradient(vector, self.info.followed_by(other.info, norm))
