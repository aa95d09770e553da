"""From flat weights and sample numbers to loss and flat gradient, in one `tf.function`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from protos.layout import STATE, TRAINED, Layout
from worker.datasets import Dataset, scale_of

WARM_UP_CALLS = 15


@dataclass(frozen=True)
class Gradient:
    """What one batch says.

    Attributes:
        flat: `float32[n + m]`: the gradient, then the differences of the state. A view of TensorFlow's memory.
        norm: Of the gradient, after clipping.
        loss: Mean over the samples.
        correct: Samples whose largest output is their class.
    """

    flat: np.ndarray
    norm: float
    loss: float
    correct: int

    @property
    def finite(self) -> bool:
        """Whether every element is a number."""
        return bool(np.isfinite(self.norm))


def layout_of(model: keras.Model) -> Layout:
    """The model's layout: trained weights, then floating-point state; each in Keras's order."""
    trained = [(v.path, tuple(v.shape), TRAINED) for v in model.trainable_variables]
    state = [(v.path, tuple(v.shape), STATE) for v in _state(model)]
    return Layout.of(trained + state)


def read_weights(model: keras.Model) -> np.ndarray:
    """The model's weights as one flat vector `float32[n + m]`."""
    variables = [*model.trainable_variables, *_state(model)]
    return np.concatenate([np.asarray(v.value, np.float32).ravel() for v in variables])


def write_weights(model: keras.Model, flat: np.ndarray) -> None:
    """Assigns a flat vector `float32[n + m]` to the model's weights."""
    views = layout_of(model).views(flat)
    for variable in [*model.trainable_variables, *_state(model)]:
        variable.assign(views[variable.path])


def _is_state(variable: keras.Variable) -> bool:
    return bool(tf.as_dtype(variable.dtype).is_floating)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.non_trainable_variables if _is_state(variable)]


class GradientFunction:
    """The model's loss and gradient on resident data, as a function of a flat vector.

    Attributes:
        xla: Whether whole batches go through XLA.
    """

    def __init__(self, model: keras.Model, dataset: Dataset, batch_size: int, clip_norm: float) -> None:
        """Traces nothing yet.

        Args:
            model: Built; its own weights are not used.
            dataset: Kept in TensorFlow's memory.
            batch_size: Samples of a whole batch.
            clip_norm: Largest norm of the gradient; 0 does not clip.
        """
        self.xla = False
        self._model, self._batch_size, self._clip_norm = model, batch_size, clip_norm
        self._layout = layout_of(model)
        self._loss = keras.losses.get(model.loss or "sparse_categorical_crossentropy")
        self._scale = scale_of(dataset)
        with tf.device("CPU"):
            self._x = tf.constant(dataset.x_train)
            self._y = tf.constant(dataset.y_train)
        plain = tf.function(self._gradient, autograph=False)
        compiled = tf.function(self._gradient, autograph=False, jit_compile=True)
        self._plain = tf.function(self._gather_then(plain), autograph=False)
        self._compiled = tf.function(self._gather_then(compiled), autograph=False)

    def __call__(self, flat: np.ndarray, indices: np.ndarray) -> Gradient:
        """Loss and gradient at `flat`, `float32[n + m]`, on the samples `int32[b]`."""
        step = self._compiled if self.xla and len(indices) == self._batch_size else self._plain
        gradient, numbers = step(tf.convert_to_tensor(flat), tf.convert_to_tensor(indices))
        loss, norm, correct = numbers.numpy()
        return Gradient(np.asarray(memoryview(gradient)), float(norm), float(loss), int(correct))

    def warm_up(self, flat: np.ndarray, xla: str) -> dict[str, float]:
        """Compiles, and under `auto` keeps what is faster; returns median times in seconds.

        Args:
            flat: Any weights.
            xla: `on`, `off` or `auto`.
        """
        count = int(self._x.shape[0])
        indices = np.arange(min(self._batch_size, count), dtype=np.int32)
        times = {}
        for name, compiled in (("plain", False), ("xla", True)):
            if (xla, compiled) in (("on", False), ("off", True)):
                continue
            self.xla = compiled
            self(flat, indices)
            times[name] = self._median_s(flat, indices)
        self.xla = min(times, key=lambda name: times[name]) == "xla"
        return times

    def _median_s(self, flat: np.ndarray, indices: np.ndarray) -> float:
        times = []
        for _ in range(WARM_UP_CALLS):
            start = time.perf_counter()
            self(flat, indices)
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    def _gather_then(self, step: Any) -> Any:
        def gathered(flat: tf.Tensor, indices: tf.Tensor) -> Any:
            x = tf.cast(tf.gather(self._x, indices), tf.float32) * self._scale
            return step(flat, x, tf.gather(self._y, indices))

        return gathered

    def _gradient(self, flat: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One forward and one backward pass; numbers are `[loss, norm, correct]`."""
        n, m = self._layout.trained, self._layout.state
        weights, state = flat[:n], flat[n:]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, new_state, losses = forward(self._model, self._layout, weights, state, x, training=True)
            loss = tf.reduce_mean(self._loss(y, outputs)) + tf.add_n([tf.constant(0.0), *losses])
        gradient = tape.gradient(loss, weights)
        norm = tf.norm(gradient)
        if self._clip_norm:
            gradient *= tf.minimum(1.0, self._clip_norm / tf.maximum(norm, 1e-12))
            norm = tf.minimum(norm, self._clip_norm)
        if m:
            gradient = tf.concat([gradient, new_state - state], 0)
        return gradient, tf.stack([loss, norm, correct_of(y, outputs)])


def forward(
    model: keras.Model, layout: Layout, weights: tf.Tensor, state: tf.Tensor, x: tf.Tensor, training: bool
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """The model's outputs, its new state as `float32[m]`, and its own losses.

    State that is not floating-point (seeds, counters) lives in the model's variables and moves on there.
    """
    trained = [t for t in layout.tensors if t.section == TRAINED]
    others = [t for t in layout.tensors if t.section == STATE]
    values = [tf.reshape(part, t.shape) for part, t in zip(_split(weights, trained), trained, strict=True)]
    floats = iter([tf.reshape(part, t.shape) for part, t in zip(_split(state, others), others, strict=True)])
    variables = model.non_trainable_variables
    given = [next(floats) if _is_state(v) else v.value for v in variables]
    outputs, updated, losses = model.stateless_call(values, given, x, training=training, return_losses=True)
    new_state = [tf.reshape(u, [-1]) for u, v in zip(updated, variables, strict=True) if _is_state(v)]
    if training:
        for new, variable in zip(updated, variables, strict=True):
            if not _is_state(variable):
                variable.value.assign(new)
    return outputs, tf.concat(new_state, 0) if new_state else state, losses


def _split(flat: tf.Tensor, tensors: list[Any]) -> list[tf.Tensor]:
    # The gradient of one split is one concatenation; that of many slices would be as many padded vectors.
    return list(tf.split(flat, [t.size for t in tensors])) if tensors else []


def correct_of(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """How many samples have their largest output at their class; 0 where outputs are no classes."""
    if outputs.shape.rank != 2 or y.shape.rank != 1:
        return tf.constant(0.0)
    hits = tf.equal(tf.argmax(outputs, -1, output_type=tf.int32), tf.cast(y, tf.int32))
    return tf.reduce_sum(tf.cast(hits, tf.float32))
