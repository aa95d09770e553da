"""How pushes become the next vector of a shard: schedule, staleness, and the rule for what they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from downpour.protos.chunked_vector import ChunkedVector
from downpour.ps.core.consistency import Consistency
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.schedules import Schedule
from downpour.ps.core.staleness import Compensation

Vector = NDArray[np.float32]


class Weighed(Protocol):
    """What an update must know of a push."""

    @property
    def worker(self) -> int:
        """Who pushed."""

    @property
    def base_version(self) -> int:
        """The version that it was computed from."""

    @property
    def samples(self) -> int:
        """That it averages over."""

    @property
    def steps(self) -> int:
        """Local steps that it sums up."""


class Update:
    """Turns groups of pushes into new vectors.

    Attributes:
        uncorrected: Gradients that counted as they were because the weights they came from are not kept.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        consistency: Consistency,
        compensation: Compensation,
        schedule: Schedule,
        base: Callable[[int], Vector | None],
        momentum_correction: bool,
    ) -> None:
        """An update rule.

        Args:
            optimizer: Of the n trained weights.
            consistency: The mode.
            compensation: What a stale gradient is worth.
            schedule: The factor on the learning rate by version.
            base: The weights `float32[n + m]` of a version, where they are kept.
            momentum_correction: Whether explicit momentum makes room for that of asynchrony.
        """
        self.uncorrected = 0
        self._optimizer, self._consistency, self._compensation = optimizer, consistency, compensation
        self._schedule, self._base, self._momentum_correction = schedule, base, momentum_correction
        self._compensates = type(compensation) is not Compensation

    def learning_rate(self, version: int) -> float:
        """η at a version, before the staleness policy."""
        return self._optimizer.learning_rate * self._schedule(version)

    @property
    def reads_once(self) -> bool:
        """Whether what `one` is given is read from its beginning to its end: then it may come in pieces."""
        return not self._compensates and self._consistency.payload == "gradient"

    def one(self, push: Weighed, payload: Vector | ChunkedVector, version: int, old: Vector, new: Vector) -> float:
        """Writes into `new` what a push makes of `old` (all `float32[n + m]`); returns its effective η."""
        optimizer, scale = self._optimizer, 1.0
        η, n = self.learning_rate(version), optimizer.size
        if self._compensates:
            scale = self._compensation.scale(version - push.base_version, self._consistency.live, η)
        if self._consistency.payload == "difference":
            assert isinstance(payload, np.ndarray)
            self._add(payload, scale, old, new)
            return η * scale
        gradient, momentum = payload, self._momentum() if self._momentum_correction else None
        if len(new) != n:
            np.add(old[n:], payload[n:], out=new[n:])
            old, new = old[:n], new[:n]
            gradient = payload[:n] if isinstance(payload, np.ndarray) else payload
        if self._compensates:
            assert isinstance(gradient, np.ndarray)
            gradient = self._gradient(push, gradient, version, old)
        optimizer.advance(old, gradient, new, η * scale, None, momentum)
        return η * scale

    def several(self, group: Sequence[tuple[Weighed, Vector]], version: int, old: Vector, new: Vector) -> list[float]:
        """Writes into `new` what the mean of a group makes of `old`; returns every push's effective η.

        Gradients are weighted by samples and by what their staleness leaves of them, differences of the
        state by samples alone; they are summed in the order of the group.
        """
        if len(group) == 1:
            return [self.one(*group[0], version, old, new)]
        η, n = self.learning_rate(version), self._optimizer.size
        total = sum(push.samples for push, _ in group)
        mean, rates = np.zeros(len(old), np.float32), []
        for push, payload in group:
            scale = self._compensation.scale(version - push.base_version, self._consistency.live, η)
            gradient = self._gradient(push, payload[:n], version, old[:n])
            mean[:n] += gradient * np.float32(scale * push.samples / total)
            mean[n:] += payload[n:] * np.float32(push.samples / total)
            rates.append(η * scale)
        self._optimizer.apply(old[:n], mean[:n], new[:n], learning_rate=η, momentum=self._momentum())
        np.add(old[n:], mean[n:], out=new[n:])
        return rates

    def elastic(self, replica: Vector, version: int, old: Vector, new: Vector, answer: Vector) -> float:
        """Pulls a worker's weights and the shard's together: x̃' = x̃ + α(x − x̃), x' = x − α(x − x̃); returns η.

        Args:
            replica: `float32[n + m]`, the worker's x.
            version: Of the shard.
            old: x̃.
            new: Receives x̃'.
            answer: Receives x', so that x̃' + x' = x̃ + x.
        """
        η = self.learning_rate(version)
        np.subtract(replica, old, new)
        np.multiply(new, np.float32(η * self._consistency.rho), new)
        np.subtract(replica, new, answer)
        np.add(old, new, new)
        return η

    def _add(self, difference: Vector, scale: float, old: Vector, new: Vector) -> None:
        """W' = w + Δ, with the trained part of Δ scaled."""
        n = self._optimizer.size
        if scale == 1.0:
            np.add(old, difference, new)
            return
        np.multiply(difference[:n], np.float32(scale), new[:n])
        np.add(old[:n], new[:n], new[:n])
        np.add(old[n:], difference[n:], new[n:])

    def _gradient(self, push: Weighed, gradient: Vector, version: int, weights: Vector) -> Vector:
        """The gradient `float32[n]` that counts for a push, corrected for its delay if the mode says so."""
        if not self._compensation.corrects:
            return gradient
        base = weights if push.base_version == version else self._base(push.base_version)
        if base is None:
            self.uncorrected += 1
            return gradient
        batch = push.samples / max(1, push.steps)
        return self._compensation.correct(gradient, weights, base[: len(gradient)], push.worker, batch)

    def _momentum(self) -> float | None:
        """μ less what asynchrony adds by itself, 1 − 1/(1 + mean τ) (Mitliagkas et al. 2016); None: as set."""
        if not self._momentum_correction:
            return None
        implicit = 1.0 - 1.0 / (1.0 + self._consistency.expected_staleness())
        return max(0.0, self._optimizer.settings["momentum"] - implicit)
