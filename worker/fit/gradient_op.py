"""From a train step of Keras to the servers: gradients in, weights out, as one operation of the graph."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.layout import STATE, TRAINED, Layout
from downpour.worker.compute.flat_model import flattened
from downpour.worker.exchange.client import Samples
from downpour.worker.exchange.errors import Diverged
from downpour.worker.fit.member import ScriptWorker


class GradientOp:
    """One model's line to the servers during one call of `fit`.

    Attributes:
        trained: The variables that the optimizer trains.
        layout: Of the flat vector: what the optimizer trains, then the moving statistics.
        loss: Of the batch at hand, in the graph of its step.
        samples: Of the batch at hand, in the graph of its step.
        epoch: Of this call of `fit`, from 0.
        steps: Pushes of this worker in this epoch.
        used: Samples of those.
        error: What went wrong in a step; TensorFlow only passes on its text.
    """

    def __init__(self, model: keras.Model, optimizer: Any, member: ScriptWorker) -> None:
        """Of a built model.

        Raises:
            Unsupported: The servers cannot train it.
        """
        self._model, self._optimizer, self._member = model, optimizer, member
        self.trained = list(model.trainable_variables)
        self._frozen, self._state = _not_trained(model)
        _check(self.trained)
        self.layout = _layout(self.trained, self._state)
        self.loss: Any = None
        self.samples: Any = None
        self.epoch = self.steps = self.used = 0
        self.error: Exception | None = None
        self._base = np.empty(0, np.float32)  # the state that was pulled last
        self._nonfinite_in_a_row = 0
        self._since_s: float | None = None  # the end of the last exchange of this epoch

    @property
    def fingerprint(self) -> str:
        """Of the frozen weights, which must be the same on all workers."""
        digest = hashlib.sha256()
        for variable in self._frozen:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.hexdigest()

    def read(self) -> np.ndarray:
        """The model's own weights and state, `float32[n + m]`."""
        values = [np.asarray(v.value, np.float32).ravel() for v in (*self.trained, *self._state)]
        return np.concatenate(values)

    def write(self, flat: np.ndarray) -> None:
        """Gives the model weights and state, `float32[n + m]`."""
        self._assign(tf.convert_to_tensor(flat))
        self._base = flat[self.layout.trained :].copy()

    # ------------------------------------------------------------------ in the graph of a step

    def step(self, gradients: Mapping[int, Any]) -> None:
        """Pushes the gradients of the variables with these `id`s and assigns what the servers make of them."""
        known = {id(v) for v in self.trained}
        if not known.issuperset(gradients):
            raise Unsupported(
                f"the optimizer must be given weights that the model had when fit began, {len(known)} tensors; "
                f"received {len(gradients)}, some of them others. Build the model, and compile it again after "
                "unfreezing."
            )
        given = [_dense(gradients.get(id(v)), v) for v in self.trained]
        clipped = _clipped(given, self._optimizer)
        flat = tf.concat(flattened(clipped), 0)
        state = tf.concat([tf.zeros(0), *(tf.reshape(tf.cast(v.value, tf.float32), [-1]) for v in self._state)], 0)
        norm = tf.sqrt(2.0 * tf.nn.l2_loss(flat))
        arguments = [flat, state, norm, _number(self.loss, 0.0), _number(self.samples, 1.0)]
        pulled = tf.numpy_function(self._push_pull, arguments, tf.float32)
        pulled.set_shape([self.layout.size])
        self._assign(pulled)

    def _push_pull(
        self, gradient: np.ndarray, state: np.ndarray, norm: np.ndarray, loss: np.ndarray, samples: np.ndarray
    ) -> np.ndarray:
        try:
            self._count(float(norm))
            count = int(samples)
            self.steps, self.used = self.steps + 1, self.used + count
            vector = np.concatenate([gradient, state - self._base]) if len(state) else gradient
            leases = self._member.leases
            span = leases.take() if leases else None
            lease, start, stop = span or (0, 0, 0)
            facts = Samples(count=count, lease=lease, epoch=self.epoch, start=start, stop=stop, loss=float(loss))
            begin = time.perf_counter()
            flat = self._member.push_pull(vector, float(norm), facts)
            self._clock(begin, time.perf_counter())
            if leases is not None:
                leases.pushed()
            self._base = flat[self.layout.trained :].copy()
            # TensorFlow takes what is aligned for its own, without a copy; this is overwritten by the next reply.
            return flat.copy()
        except (DownpourError, Diverged) as error:
            self.error = error
            raise

    def begin_epoch(self, number: int) -> None:
        """Counts anew."""
        self.epoch, self.steps, self.used = number, 0, 0
        self._since_s = None

    def _clock(self, begin_s: float, end_s: float) -> None:
        """Counts a step, which began when the one before ended; of the first in an epoch nobody knows when."""
        if self._since_s is not None:
            self._member.spent.step_s += end_s - self._since_s
            self._member.spent.exchange_s += end_s - begin_s
        self._since_s = end_s

    def _count(self, norm: float) -> None:
        self._nonfinite_in_a_row = 0 if np.isfinite(norm) else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._member.nonfinite_limit:
            raise Diverged(
                f"gradients must be finite; received {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                "The learning rate is too large: try a tenth of it, or clipnorm=1.0."
            )

    def _assign(self, flat: tf.Tensor) -> None:
        variables = [*self.trained, *self._state]
        pieces = tf.split(flat, [tensor.size for tensor in self.layout.tensors])
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(tf.cast(tf.reshape(piece, variable.shape), variable.dtype))

    def rates(self, version: int, steps: int, rates_of: Any) -> pb.LearningRates:
        """The learning rate of the updates to come; see `downpour.worker.fit.optimizer_spec.rates_of`."""
        return rates_of(self._optimizer, version, version, steps)


def _layout(trained: Sequence[Any], state: Sequence[Any]) -> Layout:
    seen: Counter[str] = Counter()
    tensors = []
    for section, variables in ((TRAINED, trained), (STATE, state)):
        for variable in variables:
            seen[variable.path] += 1  # two layers of a subclassed model may have one name
            again = f"#{seen[variable.path]}" if seen[variable.path] > 1 else ""
            tensors.append((variable.path + again, tuple(variable.shape), section))
    return Layout.of(tensors)


def _not_trained(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Frozen weights, and floating-point state that training moves on."""
    layers = model._flatten_layers()
    weights = {id(v) for layer in layers for v in getattr(layer, "_trainable_variables", ())}
    rest = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    return [v for v in rest if id(v) in weights], [v for v in rest if id(v) not in weights]


def _check(trained: Sequence[Any]) -> None:
    if not trained:
        raise Unsupported("a model must have weights that are trained; this one has none. Unfreeze a layer.")
    for variable in trained:
        if variable.constraint is not None:
            raise Unsupported(
                f"weights must have no constraint, which servers do not keep. Received: {variable.path} with "
                f"{type(variable.constraint).__name__}. Use a regularizer."
            )


def _dense(gradient: Any, variable: Any) -> tf.Tensor:
    if gradient is None:
        return tf.zeros(variable.shape)
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def _clipped(gradients: list[tf.Tensor], optimizer: Any) -> list[tf.Tensor]:
    """Clipped as the optimizer's arguments say, each worker its own."""
    if optimizer.clipnorm:
        return [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm:
        return list(tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0])
    if optimizer.clipvalue:
        return [tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue) for gradient in gradients]
    return gradients


def _number(value: Any, otherwise: float) -> tf.Tensor:
    """A number of the step that is being traced or run; one that is left over from another does not count."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if value is None or getattr(value, "graph", graph) is not graph:
        return tf.constant(otherwise)
    return tf.cast(tf.reduce_mean(value), tf.float32)
