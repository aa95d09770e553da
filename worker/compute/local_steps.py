"""Several local steps of a worker in one `tf.function`, which it makes between two exchanges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from downpour.worker.compute.direct_call import traced
from downpour.worker.compute.flat_model import DRAWS_PER_STEP
from downpour.worker.compute.gradient import Gradient, GradientFunction, joined
from downpour.worker.compute.norms import norm_of
from downpour.worker.compute.xla import Log, choose, quiet
from downpour.worker.compute.zero_copy import Input

MOST_STEPS = 64  # in one call; more steps need several calls
WARM_UP_S = 0.05  # the duration of a call while forms are compared


class LocalSteps:
    """Local steps w ← w − η ∇f(w), one per batch, and the sum of their gradients (Dean et al. 2012, alg. 7.1).

    The loop carries S = Σ g and evaluates gradients at w₀ − η S, the weights of a server that receives no other pushes.

    Attributes:
        most: The largest number of steps in one call.
        xla: Whether XLA computes the loop.
    """

    def __init__(self, gradient: GradientFunction, learning_rate: float, most: int) -> None:
        """Build a function that is traced when it is first called.

        Args:
            gradient: The gradient of one batch.
            learning_rate: The learning rate η of the steps.
            most: The largest number of steps that a caller needs in one call.
        """
        self.most, self.xla = min(most, MOST_STEPS), False
        self._gradient, self._rate = gradient, learning_rate
        self._flat = Input((gradient.model.layout.size,))
        self._indices = Input((self.most, gradient.batch_size), np.int32)

    def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int] = (), step: int = 0) -> Gradient:
        """Return the sum of the gradients of local steps that begin at `flat`, `float32[n + m]`.

        Args:
            flat: The weights and the state.
            indices: The numbers of the training samples, `int32[k · batch]` with k ≤ `most`.
            seed: The numbers that identify the push (see `seed_words`), for a model that draws random numbers.
            step: The number of the first of these steps within the push, from 0.
        """
        batch = self._gradient.batch_size
        steps = len(indices) // batch
        self._indices.array[:steps] = indices.reshape(steps, batch)
        return self._run(self.function, flat, steps, self._gradient.seeds(seed, step))

    def warm_up(self, flat: np.ndarray, xla: str, log: Log = quiet) -> dict[str, float]:
        """Compile the loop, select the faster form if `xla` is `auto`, and return median times of one step in seconds.

        Args:
            flat: Any weights and state, `float32[n + m]`.
            xla: One of `on`, `off` and `auto`.
            log: A callback that receives the reason if XLA cannot compile the function.
        """
        self._indices.array[:] = np.arange(self._indices.array.size).reshape(self._indices.array.shape)
        self._indices.array[:] %= self._gradient.data.count
        forms = {"plain": lambda: self._plain, "xla": lambda: self._compiled}
        if xla == "on":
            del forms["plain"]
        steps, seeds = self._worth_timing(flat, forms), self._gradient.seeds()

        def timed(form: Callable[[], Any]) -> Callable[[], object]:
            return lambda: self._run(form(), flat, steps, seeds)

        self.xla, times = choose(xla, {name: timed(form) for name, form in forms.items()}, self._gradient.clock, log)
        return {name: seconds / steps for name, seconds in times.items()}

    def select_form(self, xla: bool) -> None:
        """Let XLA compute the loop, or not, instead of the form that `warm_up` selects."""
        self.xla = xla

    def _worth_timing(self, flat: np.ndarray, forms: dict[str, Callable[[], Any]]) -> int:
        """Return the number of steps of a timed call: `most`, or fewer if they would need more than `WARM_UP_S`."""
        first = next(iter(forms.values()))
        self._run(first(), flat, 1, self._gradient.seeds())
        before = self._gradient.clock()
        self._run(first(), flat, 1, self._gradient.seeds())
        return max(1, min(self.most, int(WARM_UP_S / max(1e-6, self._gradient.clock() - before))))

    def _run(self, form: Any, flat: np.ndarray, steps: int, seeds: tuple[tf.Tensor, ...]) -> Gradient:
        arguments = (self._flat.filled(flat), self._indices.tensor, tf.constant(steps))
        found = form(*arguments, *seeds)
        return Gradient.of(found, arguments[0], steps, self._gradient.model.layout.trained)

    @property
    def function(self) -> Any:
        """The traced loop of local steps in the form that `choose` has selected: XLA or plain."""
        return self._compiled if self.xla else self._plain

    @cached_property
    def _plain(self) -> Any:
        return self._traced(None)

    @cached_property
    def _compiled(self) -> Any:
        return self._traced(True)

    def _traced(self, jit_compile: bool | None) -> Any:
        specs = [
            tf.TensorSpec(self._flat.array.shape),
            tf.TensorSpec(self._indices.array.shape, tf.int32),
            tf.TensorSpec([], tf.int32),
            *self._gradient.seed_specs(),
        ]
        return traced(self._steps, specs, jit_compile)

    def _steps(self, flat: tf.Tensor, indices: tf.Tensor, steps: tf.Tensor, *seeds: tf.Tensor) -> list[tf.Tensor]:
        weights, first_state = self._gradient.model.pieces(flat)

        def body(i: tf.Tensor, sums: list[tf.Tensor], state: list[tf.Tensor], numbers: tf.Tensor) -> Any:
            local = [w - self._rate * s for w, s in zip(weights, sums, strict=True)]
            drawn = [seed + tf.cast(tf.stack([0, i * DRAWS_PER_STEP]), tf.int64) for seed in seeds]
            gradients, state, loss, correct = self._gradient.step(local, state, indices[i], *drawn)
            sums = [s + g for s, g in zip(sums, gradients, strict=True)]
            return i + 1, sums, state, numbers + tf.stack([loss, correct])

        start = (tf.constant(0), [tf.zeros_like(w) for w in weights], first_state, tf.zeros([2]))
        _, sums, state, numbers = tf.while_loop(
            lambda i, *_: i < steps, body, start, parallel_iterations=1, maximum_iterations=self.most
        )
        differences = [new - old for new, old in zip(state, first_state, strict=True)]
        return joined([*sums, *differences, numbers, norm_of(sums)[None]])
