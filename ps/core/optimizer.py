"""An optimizer of one shard: its hyperparameters, its slots, and the iteration over blocks of the vector.

The operands of a block stay in the processor's caches from the first equation to the last. No temporary array has the
size of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.coverage import Coverage, CoveredRange
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.rules.hyperparameters import Hyperparameters, resolve
from downpour.ps.core.rules.rule import Scalar, Scalars, Settings, Vector, float32
from downpour.ps.core.rules.update_rules import OPTIMIZERS

State = Mapping[str, NDArray[np.generic]]

# In elements. Smaller blocks stay in the second-level cache, but cost more than that saves: in calls of NumPy's
# loops, and in bandwidth, as memory is fast only in long runs: with 32,768 Adam took 10-20 % longer.
BLOCK = 131_072


class Optimizer:
    """An update rule with its hyperparameters and slots, for one shard.

    Attributes:
        name: The name of the rule in `OPTIMIZERS`.
        size: The number of weights, n.
        settings: The hyperparameters, including defaults.
        initial: The initial value of every slot.
        slots: The state by name, each `float32[n]`, which `apply` updates in place.
        whole: The coverage of a push of all tensors; None if they are all updated alike.
        step: The number of updates made (`iterations` in Keras).
    """

    def __init__(self, name: str, hyper: Hyperparameters, size: int, slots: Mapping[str, Vector] | None = None) -> None:
        """Allocate the slots for `size` weights, or use some of `slots`, which are shared with other optimizers.

        Raises:
            ValueError: The optimizer or a hyperparameter is invalid, see `resolve`.
        """
        self.name = name
        self.size = size
        self.settings = resolve(name, hyper)
        self.step = 0
        self.whole: Coverage | None = None
        self._rule = OPTIMIZERS[name]
        self.initial = self._rule.slots(self.settings)
        self.slots: dict[str, Vector] = {
            slot: np.full(size, value, np.float32) if slots is None else slots[slot]
            for slot, value in self.initial.items()
        }
        self._vectors = tuple(self.slots.values())  # those of this rule; `slots` may also contain others
        self._last: tuple[object, Scalars, Scalar | None] = (), (), None
        self._decays = bool(self.settings.get("weight_decay"))
        self._scratch = np.empty((3 if self._decays else 2, min(size, BLOCK)), np.float32)

    @property
    def learning_rate(self) -> float:
        """The learning rate of updates that do not specify their own."""
        return self.settings["learning_rate"]

    def set_learning_rate(self, learning_rate: float) -> None:
        """Replace the learning rate of later updates."""
        self.settings = {**self.settings, "learning_rate": learning_rate}
        self._last = (), (), None

    def set_step(self, step: int) -> None:
        """Set the number of updates made."""
        self.step = step

    @property
    def updates(self) -> list[int]:
        """The number of updates made, as a list of one element for each optimizer."""
        return [self.step]

    @property
    def gradients(self) -> list[int]:
        """The number of gradients that the updates used; not counted apart from these here."""
        return self.updates

    def count_gradients(self, gradients: Sequence[int]) -> None:
        """Ignore how many gradients the updates of a checkpoint used, which only a script asks for."""

    def count_averaged(self, index: int, gradients: int) -> None:
        """Ignore how many gradients were combined for the last update, which only a script asks for."""

    def count_local(self, steps: int) -> None:
        """Count updates that a worker has made itself, of which it has pushed the result."""
        self.step += steps

    def coverage(self, bitmap: bytes) -> Coverage:
        """Return the coverage of a push whose header has `bitmap`.

        Raises:
            InvalidRequest: The tensors of the vector are not known, or the bitmap does not fit them.
        """
        raise InvalidRequest("a push must cover all weights of a shard that does not know their tensors.")

    @property
    def bytes_per_weight(self) -> int:
        """The number of bytes that an update must move per weight."""
        return self._rule.bytes_per_weight(self.settings)

    def apply(
        self,
        weights: Vector,
        gradient: Vector,
        out: Vector,
        learning_rate: float | None = None,
        scale: float | None = None,
        momentum: float | None = None,
    ) -> None:
        """Write the updated weights to `out`, update the slots in place and count the step.

        With a weight decay λ, the rule is applied to w − wλη (Loshchilov, Hutter 2019).
        A gradient whose square overflows float32 gives the same result as in Keras, without a warning.

        Args:
            weights: `float32[n]`, only read: others may be reading it.
            gradient: `float32[n]`, only read; may be read-only, or unaligned at some cost.
            out: `float32[n]`, overwritten; shares no memory with the other two.
            learning_rate: The learning rate of this update, in place of the setting.
            scale: A factor on the gradient: the update is that of `scale * gradient` in float32.
            momentum: The momentum of this update, in place of the setting.

        Raises:
            ValueError: A vector is not `float32[n]`, `out` shares memory, or the optimizer keeps no momentum
                that could be replaced. Nothing has changed then.
        """
        self._check(weights, gradient, out)
        with np.errstate(all="ignore"):
            self.advance(weights, gradient, out, learning_rate, scale, momentum)

    def advance(
        self,
        weights: Vector,
        gradient: Vector | ChunkedVector,
        out: Vector,
        learning_rate: float | None = None,
        scale: float | None = None,
        momentum: float | None = None,
    ) -> None:
        """Do the same as `apply` for vectors that are known to be valid. An overflow may cause a warning.

        A ChunkedVector may be longer than `float32[n]`.
        """
        scalars, decay = self._scalars(learning_rate, momentum)
        if scale is None and isinstance(gradient, np.ndarray) and not gradient.flags.aligned:
            scale = 1.0  # one copy by blocks; else every operation on the gradient makes its own
        if scale is None and decay is None and self.size <= BLOCK and isinstance(gradient, np.ndarray):
            self._rule.block(weights, gradient, out, self._scratch[0], self._vectors, scalars)
        else:
            self._walk(weights, gradient, out, (0, self.size, 0), scalars, scale, decay)
        self.step += 1

    def advance_ranges(
        self,
        weights: Vector,
        gradient: Vector | ChunkedVector,
        out: Vector,
        ranges: Iterable[CoveredRange],
        learning_rate: float,
        momentum: float | None = None,
    ) -> None:
        """Write the updated weights of some ranges to `out`, update their slots in place and count one step.

        Args:
            weights: `float32[n]`, only read.
            gradient: The payload of a push, which contains the gradients of the ranges in their places.
            out: `float32[n]`, of which these ranges are overwritten.
            ranges: The ranges.
            learning_rate: The learning rate of this update.
            momentum: The momentum of this update, in place of the setting.
        """
        scalars, decay = self._scalars(learning_rate, momentum)
        scale = 1.0 if isinstance(gradient, np.ndarray) and not gradient.flags.aligned else None
        for start, stop, at, flags in ranges:
            if flags.overwrites:
                out[start:stop] = gradient[at : at + stop - start]
            else:
                self._walk(weights, gradient, out, (start, stop, at), scalars, scale, decay if flags.decays else None)
        self.step += 1

    def _walk(
        self,
        weights: Vector,
        gradient: Vector | ChunkedVector,
        out: Vector,
        places: tuple[int, int, int],
        scalars: Scalars,
        scale: float | None,
        decay: Scalar | None,
    ) -> None:
        """Apply the rule from the first to the second place of the vector; the gradient begins at the third."""
        factors = () if scale is None else float32(scale)
        first, last, at = places
        for start in range(first, last, BLOCK):
            block = slice(start, min(start + BLOCK, last))
            s, g, *decayed = self._scratch[:, : block.stop - start]
            w, pushed = weights[block], gradient[at + start - first : at + block.stop - first]
            if factors:
                np.multiply(pushed, factors[0], g)
            else:
                g = pushed
            if decay is not None:
                (d,) = decayed
                np.multiply(w, decay, d)
                np.subtract(w, d, d)
                w = d
            self._rule.block(w, g, out[block], s, tuple([slot[block] for slot in self._vectors]), scalars)

    def slot(self, name: str) -> Vector:
        """Return a slot itself, `float32[n]`.

        Raises:
            InvalidRequest: The optimizer has no slot of that name.
        """
        if name not in self.slots:
            raise InvalidRequest(
                f"a slot of {self.name} must be one of {', '.join(self.slots) or '(none)'}; received {name!r}. "
                "Check that both sides run the same version."
            )
        return self.slots[name]

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of the state for a checkpoint: every slot, `float32[n]`, and `step`, `int64[]`."""
        slots = {name: slot.copy() for name, slot in self.slots.items()}
        return {"step": np.array(self.step, np.int64), **slots}

    def restore(self, state: State) -> None:
        """Restore the slots and counters that `state` returned.

        Raises:
            ValueError: The state belongs to another optimizer or size. Nothing has changed then.
        """
        if set(state) != {"step", *self.slots}:
            raise ValueError(
                f"the state of optimizer {self.name} must hold {', '.join(['step', *self.slots])}. "
                f"Received: {', '.join(state) or 'nothing'}. Resume with the optimizer of the checkpoint."
            )
        for name in self.slots:
            self._check_vector(f"slot {name}", state[name])
        step = np.asarray(state["step"])
        if step.size != 1 or step.dtype.kind not in "iu" or int(step.item()) < 0:
            raise ValueError(f"step must be one integer >= 0. Received: {step!r}.")
        for name, slot in self.slots.items():
            slot[:] = state[name]
        self.step = int(step.item())

    def _scalars(self, learning_rate: float | None, momentum: float | None) -> tuple[Scalars, Scalar | None]:
        """Return the rule's scalars and λη for one update, which are cached while their inputs do not change."""
        key = (learning_rate, momentum, self.step if self._rule.counts else 0)
        if key != self._last[0]:
            settings = self._settings(learning_rate, momentum)
            (decay,) = float32(settings["weight_decay"] * settings["learning_rate"]) if self._decays else (None,)
            self._last = key, self._rule.scalars(settings, self.step + 1), decay
        return self._last[1:]

    def _settings(self, learning_rate: float | None, momentum: float | None) -> Settings:
        """Return the hyperparameters of one update."""
        override: dict[str, float] = {}
        if learning_rate is not None:
            override["learning_rate"] = learning_rate
        if momentum is not None:
            if "momentum" not in self.settings or "momentum" not in self.initial:
                raise ValueError(
                    f"optimizer {self.name} must have been built with a momentum to be given another. "
                    f"Received: momentum={momentum!r}."
                )
            override["momentum"] = momentum
        return {**self.settings, **override}

    def _check(self, weights: Vector, gradient: Vector, out: Vector) -> None:
        for what, vector in (("weights", weights), ("gradient", gradient), ("out", out)):
            self._check_vector(what, vector)
        if np.may_share_memory(out, weights) or np.may_share_memory(out, gradient):
            raise ValueError("out must share no memory with weights or gradient. Received: an overlap.")

    def _check_vector(self, what: str, vector: NDArray[np.generic]) -> None:
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            received = f"{vector.dtype}[{', '.join(map(str, vector.shape))}]"
            raise ValueError(f"{what} must be float32[{self.size}]. Received: {received}.")
