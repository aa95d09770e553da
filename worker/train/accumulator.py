"""What has been computed since the last push: a sum of gradients, and the numbers that go with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector
from downpour.worker.exchange.client import Samples


class GradientResult(Protocol):
    """The sum of the gradients of some batches, and its numbers."""

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


@dataclass
class AccumulatedGradient:
    """What has been computed since the last push.

    Attributes:
        gradient: `float32[n + m]`, perhaps in pieces.
        start: With `stop`, positions of the epoch's permutation.
    """

    gradient: np.ndarray | ChunkedVector
    norm: float
    loss: float
    correct: int
    steps: int
    start: int
    stop: int

    @property
    def vector(self) -> np.ndarray:
        """The gradient in one piece; a copy if it has several."""
        return self.gradient[:]

    @property
    def finite(self) -> bool:
        """Whether every element is a number."""
        return math.isfinite(self.norm)

    def add(self, other: AccumulatedGradient, trained: int) -> AccumulatedGradient:
        """The sum of this and what follows it."""
        count, more = self.stop - self.start, other.stop - other.start
        vector = self.vector + other.vector
        norm = float(np.linalg.norm(vector[:trained]))
        loss = (self.loss * count + other.loss * more) / (count + more)
        steps, correct = self.steps + other.steps, self.correct + other.correct
        return AccumulatedGradient(vector, norm, loss, correct, steps, self.start, other.stop)

    def samples(self, task: pb.Task) -> Samples:
        """As the push's header tells it."""
        return Samples(
            count=self.stop - self.start,
            lease=task.lease,
            epoch=task.epoch,
            start=self.start,
            stop=self.stop,
            loss=self.loss,
            correct=self.correct,
            steps=self.steps,
        )
