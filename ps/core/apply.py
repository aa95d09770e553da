"""How pushes become the next version of the weights: schedule, compensation of staleness, and the update rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from downpour.protos.chunked_vector import ChunkedVector
from downpour.ps.core.consistency_base import Consistency
from downpour.ps.core.covered_update import CoveredUpdate
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Push
from downpour.ps.core.schedules import Schedule, schedule_of
from downpour.ps.core.staleness import Compensation
from downpour.ps.core.tensor_optimizer import TensorOptimizer

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class UpdateOptions:
    """The options of a shard's updates.

    Attributes:
        schedule: The factor on the learning rate by version.
        momentum_correction: Whether explicit momentum is reduced by the implicit momentum of asynchrony.
        version_memory_bytes: The memory for old weights that a compensation needs.
        version_depth: The number of a worker's last pulls whose weights may be needed: 2 if it computes during a pull.
    """

    schedule: Schedule = field(default_factory=lambda: schedule_of("constant"))
    momentum_correction: bool = False
    version_memory_bytes: int = 1 << 30
    version_depth: int = 1


DEFAULT_OPTIONS = UpdateOptions()


class Update:
    """Computes new weights from pushes.

    Attributes:
        uncorrected: The number of gradients applied without correction, because their base weights were not kept.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        consistency: Consistency,
        compensation: Compensation,
        base: Callable[[int], Vector | None],
        options: UpdateOptions,
    ) -> None:
        """Combine the parts of an update.

        Args:
            optimizer: The optimizer of the n trained weights.
            consistency: The consistency mode.
            compensation: The compensation of staleness.
            base: A function that returns the weights `float32[n + m]` of a version, or None if they are not kept.
            options: The options of the updates.
        """
        self.uncorrected = 0
        self._optimizer = optimizer
        self._schedule, self._base, self._momentum_correction = options.schedule, base, options.momentum_correction
        self.adopt(consistency, compensation)

    def adopt(self, consistency: Consistency, compensation: Compensation) -> None:
        """Use a mode and a compensation for all later updates."""
        self._consistency, self._compensation = consistency, compensation
        self._compensates = type(compensation) is not Compensation
        # A push of some tensors is refused before it gets here if the tensors are not known.
        self._covered = CoveredUpdate(
            cast(TensorOptimizer, self._optimizer),
            lambda push, version, η: compensation.scale(version - push.base_version, consistency.live, η),
            self._gradient if compensation.corrects else None,
            self._momentum_of,
        )

    def learning_rate(self, version: int) -> float:
        """Return η at a version, before the compensation of staleness."""
        return self._optimizer.learning_rate * self._schedule(version)

    @property
    def reads_once(self) -> bool:
        """Whether `one` reads its payload once, from beginning to end. It may then be a ChunkedVector."""
        return not self._compensates and self._consistency.payload == "gradient"

    def one(self, push: Push, payload: Vector | ChunkedVector, version: int, old: Vector, new: Vector) -> float:
        """Write to `new` the update of `old` by one push (all `float32[n + m]`), and return the effective η."""
        optimizer, scale = self._optimizer, 1.0
        if push.tensors or optimizer.whole is not None:
            return self._covered.one(push, payload, version, old, new)
        η, n = self.learning_rate(version), optimizer.size
        if self._compensates:
            scale = self._compensation.scale(version - push.base_version, self._consistency.live, η)
        if self._consistency.payload == "difference":
            assert isinstance(payload, np.ndarray)
            self._add(payload, scale, old, new)
            optimizer.count_local(push.steps)
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
        if push.steps > 1:
            optimizer.count_averaged(0, push.steps)
        return η * scale

    def several(self, group: Sequence[tuple[Push, Vector]], version: int, old: Vector, new: Vector) -> list[float]:
        """Write to `new` the update of `old` by the mean of a group, and return the effective η of every push.

        Gradients are weighted by their samples and by the factor of the compensation, differences of the state by
        samples alone. The sum is in the order of the group.
        """
        if len(group) == 1:
            return [self.one(*group[0], version, old, new)]
        if self._optimizer.whole is not None or any(push.tensors for push, _ in group):
            return self._covered.several(group, version, old, new)
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
        self._optimizer.count_averaged(0, sum(push.steps for push, _ in group))
        np.add(old[n:], mean[n:], out=new[n:])
        return rates

    def elastic(self, push: Push, replica: Vector, version: int, old: Vector, new: Vector, answer: Vector) -> float:
        """Move the weights of a worker and of the shard towards each other, and return η.

        x̃' = x̃ + α(x − x̃) and x' = x − α(x − x̃), so that x̃' + x' = x̃ + x.

        Args:
            push: The description of the push.
            replica: `float32[n + m]`, the worker's x.
            version: The version of the shard.
            old: x̃.
            new: The vector to which x̃' is written.
            answer: The vector to which x' is written.
        """
        η = self.learning_rate(version)
        np.subtract(replica, old, new)
        np.multiply(new, np.float32(η * self._consistency.rho), new)
        np.subtract(replica, new, answer)
        np.add(old, new, new)
        self._optimizer.count_local(push.steps)
        return η

    def _add(self, difference: Vector, scale: float, old: Vector, new: Vector) -> None:
        """Write w + Δ to `new`, with the trained part of Δ scaled."""
        n = self._optimizer.size
        if scale == 1.0:
            np.add(old, difference, new)
            return
        np.multiply(difference[:n], np.float32(scale), new[:n])
        np.add(old[:n], new[:n], new[:n])
        np.add(old[n:], difference[n:], new[n:])

    def _gradient(self, push: Push, gradient: Vector, version: int, weights: Vector) -> Vector:
        """Return the gradient `float32[n]` of a push, corrected for its delay if the compensation does so."""
        if not self._compensation.corrects:
            return gradient
        base = weights if push.base_version == version else self._base(push.base_version)
        if base is None:
            self.uncorrected += 1
            return gradient
        batch = push.samples / max(1, push.steps)
        return self._compensation.correct(gradient, weights, base[: len(gradient)], push.worker, batch)

    def _momentum(self) -> float | None:
        """Return μ less the implicit momentum 1 − 1/(1 + mean τ) of asynchrony (Mitliagkas et al. 2016), or None."""
        return self._momentum_of(self._optimizer.settings)

    def _momentum_of(self, settings: Mapping[str, float]) -> float | None:
        if not self._momentum_correction or not settings.get("momentum"):
            return None
        implicit = 1.0 - 1.0 / (1.0 + self._consistency.expected_staleness())
        return max(0.0, settings["momentum"] - implicit)
