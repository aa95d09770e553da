"""The optimizers of one shard whose tensors are known: a push updates the tensors that it covers, and no others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.coverage import Coverage
from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import Constraint, Layout, Slice
from downpour.ps.core.optimizer import Optimizer, State
from downpour.ps.core.rules.constraints import check_constraint, constrain
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.rules.rule import AVERAGE, Vector
from downpour.ps.core.schedules import RateTable

REMEMBERED_COVERAGES = 256  # of a shard: more than a model's train step and its branches use


class WeightAverage(NamedTuple):
    """The moving averages of the weights that an optimizer trains, of which a slot holds one for each weight.

    Attributes:
        momentum: The decay of the averages.
        overwrite_every: The number of updates after which they replace the weights; 0 for never.
    """

    momentum: float
    overwrite_every: int = 0


class OptimizerSpec(NamedTuple):
    """The settings of one optimizer of a shard.

    Attributes:
        name: The name of the rule in `OPTIMIZERS`.
        hyper: The hyperparameters.
        rates: A table of learning rates by the number of updates; None for the hyperparameter.
        updates: The number of updates that it has made.
        gradients: The number of gradients that these used; 0 stands for one each.
        average: The moving averages of the weights; None if there are none.
    """

    name: str
    hyper: Hyperparameters
    rates: RateTable | None = None
    updates: int = 0
    gradients: int = 0
    average: WeightAverage | None = None

    @classmethod
    def from_proto(cls, spec: pb.OptimizerSpec) -> OptimizerSpec:
        """Return the settings that the worker of a script has sent."""
        given = spec.HasField("ema_momentum")
        average = WeightAverage(spec.ema_momentum, spec.ema_overwrite_frequency) if given else None
        rates = RateTable(spec.learning_rates)
        return cls(spec.name, {**spec.hyperparameters}, rates, spec.updates, spec.gradients, average)


class TensorOptimizer(Optimizer):
    """The optimizers of the tensors of one shard, which share the vectors of their slots.

    As an `Optimizer` it is the first of them, which updates all weights alike if no other optimizer and no flag says
    otherwise (`whole` is None then).

    Attributes:
        members: The optimizers. Each counts its own updates.
    """

    def __init__(self, settings: Sequence[OptimizerSpec], layout: Layout, part: Slice) -> None:
        """Allocate the slots, with the initial values of the optimizer of each tensor.

        Args:
            settings: The settings of each optimizer.
            layout: The layout, whose tensors refer to the optimizers by index.
            part: The part of the weights that the shard owns.

        Raises:
            ValueError: An optimizer or a hyperparameter is invalid, see `hyperparameters.resolve`.
            InvalidRequest: A tensor refers to an optimizer that does not exist.
        """
        used = {tensor.flags.optimizer for tensor in layout.trained_tensors}
        if max(used) >= len(settings):
            raise InvalidRequest(
                f"a tensor must refer to one of the {len(settings)} optimizers of the job; received one that refers "
                f"to number {max(used)}. Check that both sides run the same version."
            )
        first = settings[0]
        super().__init__(first.name, first.hyper, part.trained)
        self._layout, self._part = layout, part
        self._coverages: OrderedDict[bytes, Coverage] = OrderedDict()
        self._rates = [each.rates for each in settings]
        self._averages = [each.average for each in settings]
        self._everything = everything = Coverage.of(b"", layout, part)
        for other in settings[1:]:
            for name in Optimizer(other.name, other.hyper, 0).initial:
                self.slots.setdefault(name, np.zeros(part.trained, np.float32))
        self.members = (self, *(Optimizer(o.name, o.hyper, part.trained, self.slots) for o in settings[1:]))
        for member, each in zip(self.members, settings, strict=True):
            member.set_step(each.updates)
        # Of means and sums of several gradients: how many more gradients there were than updates.
        self._averaged = [max(0, each.gradients - each.updates) for each in settings]
        for start, stop, _, flags in everything.ranges:
            for name, value in self.members[flags.optimizer].initial.items():
                self.slots[name][start:stop] = value
        if any(self._averages):
            self.slots[AVERAGE] = np.zeros(part.trained, np.float32)
        self._constrained = _constrained(layout, part)
        alike = len({tensor.flags for tensor in layout.trained_tensors}) == 1 and used == {0}
        flags = layout.trained_tensors[0].flags
        if not alike or flags.overwrites or not flags.decays or flags.constraint is not None or any(self._averages):
            self.whole = everything

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update by the first optimizer."""
        return self.learning_rate_of(0)

    def learning_rate_of(self, index: int) -> float:
        """Return the learning rate of the next update by one of the optimizers."""
        rates = self._rates[index]
        return self.members[index].settings["learning_rate"] if rates is None else rates(self.members[index].step)

    @property
    def gradients(self) -> list[int]:
        """The number of gradients that the updates of each optimizer have used.

        Keras counts a batch as an iteration; a mode that averages makes one update of the batches of several workers.
        """
        return [member.step + more for member, more in zip(self.members, self._averaged, strict=True)]

    def count_gradients(self, gradients: Sequence[int]) -> None:
        """Continue the numbers of gradients of a checkpoint, one for each optimizer, if there are any."""
        if gradients:
            pairs = zip(gradients, self.members, strict=True)
            self._averaged = [max(0, count - member.step) for count, member in pairs]

    def count_averaged(self, index: int, gradients: int) -> None:
        """Count the gradients whose mean or sum was used for the last update of one of the optimizers."""
        self._averaged[index] += gradients - 1

    def replace_rates(self, tables: Sequence[pb.LearningRates]) -> None:
        """Replace the tables of learning rates, one for each optimizer."""
        self._rates = [RateTable(table) for table in tables]

    def coverage(self, bitmap: bytes) -> Coverage:
        """Return the coverage of a push whose header has `bitmap`; recent ones are remembered.

        Raises:
            InvalidRequest: The bitmap does not fit the layout.
        """
        found = self._coverages.get(bitmap)
        if found is None:
            found = self._coverages[bitmap] = Coverage.of(bitmap, self._layout, self._part)
            if len(self._coverages) > REMEMBERED_COVERAGES:
                self._coverages.popitem(last=False)
        return found

    def advance_covered(
        self,
        weights: Vector,
        gradient: Vector | ChunkedVector,
        out: Vector,
        coverage: Coverage,
        rates: Mapping[int, float],
        momenta: Mapping[int, float | None],
    ) -> None:
        """Write to `out` the weights with the covered tensors updated; each of their optimizers counts one step.

        Args:
            weights: `float32[n]`, only read.
            gradient: The payload of a push.
            out: `float32[n]`, overwritten.
            coverage: The tensors that the push covers.
            rates: The learning rate of each optimizer.
            momenta: The momentum of each optimizer, or None for its setting.
        """
        for gap in coverage.gaps:
            out[gap] = weights[gap]
        for index in coverage.optimizers:
            ranges = [each for each in coverage.ranges if each.flags.optimizer == index]
            member = self.members[index]
            member.advance_ranges(weights, gradient, out, ranges, rates[index], momenta[index])
            self._average(index, out)
        for place, shape, constraint in self._constrained:
            if any(each.start <= place.start < each.stop for each in coverage.ranges):
                out[place] = constrain(constraint, out[place].reshape(shape)).ravel()

    def _average(self, index: int, out: Vector) -> None:
        """Update the averages a' = aμ + (1 − μ)w' of all weights of an optimizer, also of those without a gradient.

        The first update sets them to the weights. As in Keras, constraints follow.
        """
        average, step = self._averages[index], self.members[index].step
        if average is None:
            return
        μ = np.float32(average.momentum if step > 1 else 0.0)
        for start, stop, _, flags in self._everything.ranges:
            if flags.optimizer == index and not flags.overwrites:
                mean, w = self.slots[AVERAGE][start:stop], out[start:stop]
                mean[:] = mean * μ + (np.float32(1) - μ) * w
                if average.overwrite_every and step % average.overwrite_every == 0:
                    w[:] = mean

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of the state: every slot, `float32[n]`, and `step`, `int64[k]`, for k optimizers."""
        return {**super().state(), "step": np.array(self.updates, np.int64)}

    @property
    def updates(self) -> list[int]:
        """The number of updates that each optimizer has made."""
        return [member.step for member in self.members]

    def restore(self, state: State) -> None:
        """Restore the slots and counters that `state` returned.

        Raises:
            ValueError: The state belongs to other optimizers or another size. Nothing has changed then.
        """
        steps = np.atleast_1d(np.asarray(state.get("step", ())))
        if len(steps) != len(self.members):
            raise ValueError(f"step must be {len(self.members)} integers, one for each optimizer. Received: {steps!r}.")
        super().restore({**state, "step": steps[:1]})
        for member, step in zip(self.members[1:], steps[1:].tolist(), strict=True):
            member.set_step(step)


def _constrained(layout: Layout, part: Slice) -> list[tuple[slice, tuple[int, ...], Constraint]]:
    """Return the places, shapes and constraints of the tensors of a shard that have one."""
    found, start = [], 0
    for tensor in layout.trained_tensors:
        first, last = (min(max(edge, part.start), part.stop) - part.start for edge in (start, start + tensor.size))
        start += tensor.size
        constraint = tensor.flags.constraint
        if constraint is not None and first < last:
            check_constraint(constraint)
            # A constraint without axes is one on each element, of which a shard may have some.
            found.append((slice(first, last), tensor.shape if constraint.axes else (last - first,), constraint))
    return found
