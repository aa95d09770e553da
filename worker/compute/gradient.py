"""Computes loss and flat gradient from flat weights and sample numbers in one `tf.function`.

TensorFlow reads the weights in place: where a shard on this host committed them, or in memory into which they are
copied once. The transport reads the gradient in place in TensorFlow's memory: one vector, or several if there are large
tensors, which are not copied to join the others. Loss, norm and the number of correct samples are its last elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector, euclidean_norm
from downpour.worker.catalog.datasets import Dataset
from downpour.worker.compute.direct_call import traced
from downpour.worker.compute.flat_model import FlatModel, flattened, layout_of, read_weights, seed_words, write_weights
from downpour.worker.compute.norms import clip_together, norm_of
from downpour.worker.compute.xla import Log, choose, clock_for, quiet
from downpour.worker.compute.zero_copy import Input

__all__ = ["Gradient", "GradientFunction", "ResidentData", "layout_of", "read_weights", "write_weights"]

NUMBERS = 3  # after the gradient: loss, correct, norm
LARGE_BYTES = 1 << 20  # from this size, a tensor of a gradient is not copied to join the others


@dataclass(frozen=True)
class Gradient:
    """The gradient of one batch, or the sum of several local steps.

    Attributes:
        vector: `float32[n + m]`: the gradient, then the differences of the state. It views TensorFlow's memory, which
            contains no argument of the function.
        norm: The Euclidean norm of the gradient, after clipping.
        loss: The mean loss of the samples.
        correct: The number of samples whose largest output is their class.
    """

    vector: np.ndarray | ChunkedVector
    norm: float
    loss: float
    correct: int

    @property
    def flat(self) -> np.ndarray:
        """The vector as one array, which is a copy if it has several chunks."""
        return self.vector[:]

    @property
    def finite(self) -> bool:
        """Whether every element is finite."""
        return bool(np.isfinite(self.norm))

    @classmethod
    def of(
        cls, outputs: Sequence[tf.Tensor], weights: tf.Tensor, steps: int = 1, trained: int | None = None
    ) -> Gradient:
        """Build a gradient from the outputs of a traced function.

        Args:
            outputs: The result of `joined`: gradient, differences of the state, Σ loss, correct, norm.
            weights: The argument of the function. Its memory may contain the gradient, as for the loss |w|²/2.
            steps: The number of local steps.
            trained: The length n of the gradient; None if no differences of the state follow it.
        """
        *arrays, last = [np.asarray(memoryview(output)) for output in outputs]
        if arrays:
            given = np.asarray(memoryview(weights))
            arrays = [array.copy() if np.may_share_memory(array, given) else array for array in arrays]
        loss, correct, norm = last[-NUMBERS:].tolist()
        if len(last) > NUMBERS:
            arrays.append(last[:-NUMBERS])
        vector = arrays[0] if len(arrays) == 1 else ChunkedVector(arrays)
        if not np.isfinite(norm):  # the squares of finite numbers may exceed float32
            norm = euclidean_norm(vector[:trained])
        return cls(vector, norm, loss / steps, int(correct))


class ResidentData:
    """The training samples in TensorFlow's memory, so that a step receives only their numbers."""

    def __init__(self, dataset: Dataset) -> None:
        """Copy the training set without a conversion of its type."""
        self.count = len(dataset.x_train)
        self.scale = dataset.scale
        with tf.device("CPU"):
            self._x, self._y = tf.constant(dataset.x_train), tf.constant(dataset.y_train)

    def batch(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the scaled samples with these numbers, and their targets."""
        return tf.cast(tf.gather(self._x, indices), tf.float32) * self.scale, tf.gather(self._y, indices)


class GradientFunction:
    """The loss and gradient of a model on resident data, as a function of a flat vector.

    Attributes:
        xla: Whether XLA computes whole batches.
        model: The model.
        data: The training samples.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        batch_size: int,
        clip_norm: float = 0.0,
        threads: int = 1,
        seeds: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Build a function that is traced when it is first called.

        Args:
            model: A model that is built; its own weights are not used.
            dataset: The dataset, whose training set is copied to TensorFlow's memory.
            batch_size: The number of samples in a whole batch; at most all samples are.
            clip_norm: The largest norm of the gradient; 0 disables clipping.
            threads: The number of threads that TensorFlow uses.
            seeds: The initial seeds of the model's generators, `int64[2]` each (default: those it was built with).
        """
        self.xla = False
        self.model, self.data = FlatModel(model, seeds), ResidentData(dataset)
        self.batch_size, self.clock = min(batch_size, self.data.count), clock_for(threads)
        self._clip_norm = clip_norm
        self._flat = Input((self.model.layout.size,))
        self._whole = Input((self.batch_size,), np.int32)

    def __call__(self, flat: np.ndarray, indices: np.ndarray, seed: Sequence[int] = (), step: int = 0) -> Gradient:
        """Return loss and gradient at `flat`, `float32[n + m]`, on the samples `int32[b]`.

        Args:
            flat: The weights and the state.
            indices: The numbers of the training samples.
            seed: The numbers that identify the push (see `seed_words`), for a model that draws random numbers.
            step: The number of the local step within the push, from 0.
        """
        if len(indices) == self.batch_size:
            function, batch = self.function, self._whole.filled(indices)
        else:
            function, batch = self._plain, tf.convert_to_tensor(indices, tf.int32)
        weights = self._flat.filled(flat)
        found = function(weights, batch, *self.seeds(seed, step))
        return Gradient.of(found, weights, trained=self.model.layout.trained)

    def warm_up(self, flat: np.ndarray, xla: str, log: Log = quiet) -> dict[str, float]:
        """Compile the function, select the faster form if `xla` is `auto`, and return median times in seconds.

        Args:
            flat: Any weights and state, `float32[n + m]`.
            xla: One of `on`, `off` and `auto`.
            log: A callback that receives the reason if XLA cannot compile the function.
        """
        indices = np.arange(self.batch_size, dtype=np.int32) % self.data.count
        arguments = (self._flat.filled(flat), self._whole.filled(indices), *self.seeds())
        forms = {"plain": lambda: self._plain(*arguments), "xla": lambda: self._compiled(*arguments)}
        self.xla, times = choose(xla, forms, self.clock, log)
        return times

    def select_form(self, xla: bool) -> None:
        """Let XLA compute whole batches, or not, instead of the form that `warm_up` selects."""
        self.xla = xla

    def seeds(self, numbers: Sequence[int] = (), step: int = 0) -> tuple[tf.Tensor, ...]:
        """Return the last argument of a function of this model, if the model draws random numbers."""
        return (tf.constant(seed_words(numbers, step), tf.int64),) if self.model.random else ()

    @property
    def function(self) -> Any:
        """The compiled function for whole batches."""
        return self._compiled if self.xla else self._plain

    @cached_property
    def _plain(self) -> Any:
        return self._traced(None, jit_compile=None)

    @cached_property
    def _compiled(self) -> Any:
        # It includes the gather, because a function that XLA compiles as a whole runs in the calling thread.
        return self._traced(self.batch_size, jit_compile=True)

    def _traced(self, samples: int | None, jit_compile: bool | None) -> Any:
        specs = [tf.TensorSpec([self.model.layout.size]), tf.TensorSpec([samples], tf.int32), *self.seed_specs()]
        return traced(self._gradient, specs, jit_compile)

    def seed_specs(self) -> list[tf.TensorSpec]:
        """Return the types of the result of `seeds`."""
        return [tf.TensorSpec([2], tf.int64)] if self.model.random else []

    def _gradient(self, flat: tf.Tensor, indices: tf.Tensor, *seeds: tf.Tensor) -> list[tf.Tensor]:
        weights, state = self.model.pieces(flat)
        gradients, new_state, loss, correct = self.step(weights, state, indices, *seeds)
        differences = [new - old for new, old in zip(new_state, state, strict=True)]
        norm = norm_of(gradients)
        return joined([*gradients, *differences, tf.stack([loss, correct, norm])])

    def step(
        self, weights: list[tf.Tensor], state: list[tf.Tensor], indices: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Return the clipped gradients, the new state, the loss and the number of correct samples of a batch."""
        back = self.model.backward(weights, state, *self.data.batch(indices), seed)
        gradients = back.gradients
        if self._clip_norm:
            gradients = clip_together(gradients, self._clip_norm)
        return gradients, back.state, back.loss, back.correct


def joined(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the elements of all tensors in order as one vector, or several if there are large tensors."""
    runs: list[list[tf.Tensor]] = [[]]
    for vector in flattened(tensors):
        if 4 * (vector.shape[0] or 0) < LARGE_BYTES:  # or if the length is unknown before the call
            runs[-1].append(vector)
        else:
            runs += [[vector], []]
    return [tf.concat(run, 0) if len(run) > 1 else run[0] for run in runs if run]
