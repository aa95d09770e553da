"""Updates by pushes that cover some of the tensors, or whose tensors are not all updated alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.coverage import Coverage
from downpour.ps.core.push import Push
from downpour.ps.core.rules.rule import Vector
from downpour.ps.core.tensor_optimizer import TensorOptimizer


class CoveredUpdate:
    """Computes new weights from pushes of some tensors; `apply.Update` does so for pushes of all."""

    def __init__(
        self,
        optimizer: TensorOptimizer,
        scale: Callable[[Push, int, float], float],
        corrected: Callable[[Push, Vector, int, Vector], Vector] | None,
        momentum: Callable[[Mapping[str, float]], float | None],
    ) -> None:
        """Combine the parts of an update.

        Args:
            optimizer: The optimizers of the tensors.
            scale: A function from a push, the version and η to the factor of the compensation on η.
            corrected: A function that corrects a gradient `float32[n]` for its delay, given the push, the version and
                the weights; None if the compensation does not correct gradients.
            momentum: A function from the settings of an optimizer to the momentum of an update; None for its setting.
        """
        self._optimizer, self._scale, self._corrected, self._momentum = optimizer, scale, corrected, momentum

    def one(self, push: Push, payload: Vector | ChunkedVector, version: int, old: Vector, new: Vector) -> float:
        """Write to `new` the update of `old` by one push, and return the effective η of its first optimizer.

        Args:
            push: The push.
            payload: `float32[c + m]`: the c covered elements and the differences of the state.
            version: The version of the shard.
            old: `float32[n + m]`, the weights.
            new: `float32[n + m]`, overwritten.
        """
        optimizer = self._optimizer
        coverage, n = optimizer.coverage(push.tensors), optimizer.size
        if len(new) != n:
            np.add(old[n:], payload[coverage.size : len(payload)], out=new[n:])
        rates = {index: optimizer.learning_rate_of(index) for index in coverage.optimizers}
        rates = {index: η * self._scale(push, version, η) for index, η in rates.items()}
        gradient = payload
        if self._corrected is not None:
            assert isinstance(payload, np.ndarray)
            gradient = self._corrected(push, coverage.expand(payload), version, old[:n])
            gradient, coverage = _overwritten(coverage, payload, gradient), coverage.in_place
        optimizer.advance_covered(old[:n], gradient, new[:n], coverage, rates, self._momenta(coverage))
        for index in coverage.optimizers:
            optimizer.count_averaged(index, push.steps)
        return rates[coverage.optimizers[0]]

    def several(self, group: Sequence[tuple[Push, Vector]], version: int, old: Vector, new: Vector) -> list[float]:
        """Write to `new` the update of `old` by the mean of a group, and return the effective η of every push.

        The update covers the tensors that any push covers. A push that does not cover one of these has a gradient of 0
        for it, as a batch has of whose samples none uses it. The new value of a tensor that is overwritten is the mean
        over the pushes that cover it.
        """
        optimizer, n = self._optimizer, self._optimizer.size
        coverages = [optimizer.coverage(push.tensors) for push, _ in group]
        union = optimizer.coverage(union_of([push.tensors for push, _ in group])).in_place
        total = sum(push.samples for push, _ in group)
        rates = {index: optimizer.learning_rate_of(index) for index in union.optimizers}
        mean, effective = np.zeros(len(old), np.float32), []
        for (push, payload), coverage in zip(group, coverages, strict=True):
            scales = {index: self._scale(push, version, rates[index]) for index in coverage.optimizers}
            gradient = whole = coverage.expand(payload)
            if self._corrected is not None:
                gradient = self._corrected(push, whole, version, old[:n])
            for start, stop, _, flags in coverage.ranges:
                if not flags.overwrites:
                    factor = np.float32(scales[flags.optimizer] * push.samples / total)
                    mean[start:stop] += gradient[start:stop] * factor
            mean[n:] += payload[coverage.size :] * np.float32(push.samples / total)
            first = coverage.optimizers[0]
            effective.append(rates[first] * scales[first])
        _average_overwritten(group, coverages, union, mean)
        optimizer.advance_covered(old[:n], mean, new[:n], union, rates, self._momenta(union))
        for index in union.optimizers:
            used = zip(group, coverages, strict=True)
            steps = sum(push.steps for (push, _), coverage in used if index in coverage.optimizers)
            optimizer.count_averaged(index, steps)
        np.add(old[n:], mean[n:], out=new[n:])
        return effective

    def _momenta(self, coverage: Coverage) -> dict[int, float | None]:
        members = self._optimizer.members
        return {index: self._momentum(members[index].settings) for index in coverage.optimizers}


def union_of(bitmaps: Sequence[bytes]) -> bytes:
    """Return the bitmap of the tensors that any of the pushes covers."""
    if not all(bitmaps):
        return b""
    bits = 0
    for bitmap in bitmaps:
        bits |= int.from_bytes(bitmap, "little")
    return bits.to_bytes(len(bitmaps[0]), "little")


def _overwritten(coverage: Coverage, payload: Vector, corrected: Vector) -> Vector:
    """Return a corrected gradient with the new values of the tensors that are overwritten, which are not gradients."""
    for start, stop, at, flags in coverage.ranges:
        if flags.overwrites:
            corrected[start:stop] = payload[at : at + stop - start]
    return corrected


def _average_overwritten(
    group: Sequence[tuple[Push, Vector]], coverages: Sequence[Coverage], union: Coverage, mean: Vector
) -> None:
    """Write to `mean` the new values of the tensors that are overwritten."""
    if not any(each.flags.overwrites for each in union.ranges):
        return
    samples = np.zeros(union.trained)
    for (push, _), coverage in zip(group, coverages, strict=True):
        for start, stop, _, flags in coverage.ranges:
            samples[start:stop] += push.samples * flags.overwrites
    for (push, payload), coverage in zip(group, coverages, strict=True):
        for start, stop, at, flags in coverage.ranges:
            if flags.overwrites:
                share = (push.samples / samples[start:stop]).astype(np.float32)
                mean[start:stop] += payload[at : at + stop - start] * share
