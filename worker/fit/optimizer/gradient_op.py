"""The operation in the graph of a train step that pushes gradients to the servers and returns weights."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.layout import STATE, TRAINED, Layout, Tensor, UpdateFlags, bitmap_of
from downpour.worker.compute.flat_model import flattened
from downpour.worker.exchange.errors import Diverged
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.cluster.member import ScriptWorker
from downpour.worker.fit.optimizer.assigned_weights import AssignedWeights
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.fit.optimizer.weight_checks import check_weights

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.leases import Leases

NO_SPAN = np.zeros(len(Span._fields), np.int64)  # of a batch that is not leased


class GradientOp:
    """The exchange of gradients and weights between one model and the servers during one call of `fit`.

    Attributes:
        trained: The variables that the optimizer trains.
        layout: The layout of the flat vector: the trained variables, then the moving statistics.
        epoch: The epoch of this call of `fit`, from 0.
        steps: The number of pushes of this worker in this epoch.
        used: The number of samples of these pushes.
        error: The error of a step, of which TensorFlow raises only the message; None if there is none.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: ModelOptimizers,
        member: ScriptWorker,
        leases: Leases | None = None,
        assigned: Assignments | None = None,
    ) -> None:
        """Read the layout of a model.

        Args:
            model: A model that is built.
            optimizers: The distributed optimizers of the model.
            member: This worker.
            leases: The leases of this call of `fit`; None if the worker has a fixed part of the data.
            assigned: The variables that the train step assigns; None if it assigns moving statistics at most.

        Raises:
            Unsupported: The model has no trainable weights, or a weight has a constraint or another type than float32.
        """
        self._optimizers, self._member, self._leases = optimizers, member, leases
        self.trained = [*model.trainable_variables, *optimizers.extra]
        frozen, averaged = _not_trained(model)
        replaced = [v for v in frozen if assigned is not None and v in assigned]
        self._frozen = [v for v in frozen if assigned is None or v not in assigned]
        self._state = [*averaged, *replaced]
        self._averaged = sum(int(np.prod(v.shape)) for v in averaged)
        check_weights(self.trained, self._state)
        self.layout = _layout(self.trained, self._state, optimizers)
        set_by_step = {*range(len(self.trained)), *range(len(self.trained) + len(averaged), len(self.layout.tensors))}
        self._assigned = AssignedWeights([*self.trained, *self._state], set_by_step, self.layout, member)
        self._loss: Any = None  # of the current batch, in the graph of its step
        self._samples: Any = None  # of the current batch, in the graph of its step
        self._span: Any = None  # of the current batch, in the graph of its step
        self.epoch = self.steps = self.used = 0
        self.error: Exception | None = None
        self._first_version = 0  # of shard 0 when the epoch began
        self._base = np.empty(0, np.float32)  # moving statistics of the last pull
        self._nonfinite_in_a_row = 0
        self._since_s: float | None = None  # end of the last exchange of this epoch

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the frozen weights, which must be equal on all workers."""
        digest = hashlib.sha256()
        for variable in self._frozen:
            digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.hexdigest()

    def read(self) -> np.ndarray:
        """Return the weights and moving statistics of the model, `float32[n + m]`."""
        values = [np.asarray(v.value, np.float32).ravel() for v in (*self.trained, *self._state)]
        return np.concatenate(values)

    @property
    def is_exact(self) -> bool:
        """Whether the model holds weights as the servers do, in float32."""
        return all(v.dtype == "float32" for v in (*self.trained, *self._state))

    @property
    def updates(self) -> int:
        """Number of updates of all workers in this epoch, as far as this worker has seen them."""
        return self._member.versions[0] - self._first_version

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics to the model, `float32[n + m]`."""
        self._assign(tf.convert_to_tensor(flat))
        self._base = flat[self.layout.trained :].copy()
        self._assigned.written(flat)

    # ------------------------------------------------------------------ in the graph of a step

    def begin_batch(self, samples: Any, span: Any = None, assigned: Assignments | None = None) -> None:
        """Begin a batch.

        Args:
            samples: The number of its samples, a tensor of the step's graph.
            span: Its span, a tensor of the step's graph; None if it is not leased.
            assigned: The variables that the train step assigns, which are recorded while it is traced; None if it
                assigns none.
        """
        self._loss, self._samples, self._span = None, samples, span
        self._assigned.begin_batch(assigned or Assignments())

    def end_batch(self) -> None:
        """Send what the train step has assigned to variables of the layout after its updates."""
        self._assigned.send_in_graph()

    def send(self, variables: Container[Any]) -> None:
        """Send the present values of variables that a callback has assigned during an epoch."""
        sent = self._assigned.send(variables)
        if sent is not None:
            state = sent[self.layout.trained :]
            self._base = np.where(np.isnan(state), self._base, state)

    def set_loss(self, loss: Any) -> None:
        """Set the loss of the current batch, a tensor of the step's graph."""
        self._loss = loss

    @tf.autograph.experimental.do_not_convert
    def step(self, optimizer: Any, gradients: Mapping[int, Any]) -> None:
        """Push the gradients of a batch and assign the weights that the servers return.

        Args:
            optimizer: The optimizer that is applied.
            gradients: Gradients by the `id` of their variable. The servers do not change other variables.

        Raises:
            Unsupported: A variable is not one of those that the model had when `fit` began, or that another optimizer
                trains.
        """
        places = self._places(optimizer, gradients)
        self._assigned.send_in_graph()
        given = {place: _dense(gradients[id(self.trained[place])]) for place in places}
        clipped = {**given, **self._clipped(given, optimizer)}
        flat = tf.concat(flattened([clipped[place] for place in places]), 0)
        state = tf.concat([tf.zeros(0), *(tf.reshape(tf.cast(v.value, tf.float32), [-1]) for v in self._state)], 0)
        norm = tf.sqrt(2.0 * tf.nn.l2_loss(flat))
        batches = optimizer.gradient_accumulation_steps or 1
        arguments = [flat, state, norm, _number(self._loss, 0.0), batches * _number(self._samples, 1.0)]
        arguments.append(NO_SPAN if self._span is None else self._span)
        push_pull = partial(self._push_pull, bitmap_of(places, len(self.trained)))
        pulled = tf.numpy_function(push_pull, arguments, tf.float32)
        pulled.set_shape([self.layout.size])
        with self._assigned.assignments.paused():
            self._assign(pulled)

    def _places(self, optimizer: Any, gradients: Mapping[int, Any]) -> list[int]:
        """Return the places of the variables with a gradient, in the order of the layout."""
        index = self._optimizers.index_of(optimizer)
        places = [place for place, variable in enumerate(self.trained) if id(variable) in gradients]
        if len(places) != len(gradients):
            raise Unsupported(
                f"the optimizer must be given weights that the model had when fit began, {len(self.trained)} tensors. "
                f"Received: {len(gradients)}, some of them others. Build the model, and compile it again after "
                "unfreezing."
            )
        for place in places:
            owner = self._optimizers.owner_of(self.trained[place])
            if owner != index:
                raise Unsupported(
                    "every weight must be trained by the optimizer that trains it when fit begins, "
                    f"{self._optimizers.members[owner].name}. Received: {self.trained[place].path} with "
                    f"{optimizer.name}. Apply all optimizers in every train_step."
                )
        return places

    def _clipped(self, given: Mapping[int, tf.Tensor], optimizer: Any) -> dict[int, tf.Tensor]:
        """Return the gradients clipped by the optimizer; new values of variables that are overwritten are not."""
        places = [place for place in given if not self.layout.tensors[place].flags.overwrites]
        return dict(zip(places, _clipped([given[place] for place in places], optimizer), strict=True)) if places else {}

    def _push_pull(
        self, tensors: bytes, gradient: np.ndarray, state: np.ndarray, norm: float, loss: float, samples: int,
        of_span: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        try:
            span = Span(*of_span.tolist())
            if self._leases is not None and not self._leases.valid(span):
                return self._skip()
            differences = self._differences(state)
            if not np.isfinite(differences).all():
                norm = math.nan  # all shards must drop the push, also those that do not have the state
            self._check_finite(float(norm))
            count = int(samples)
            if self._leases is not None and self._leases.is_pushed(span):
                span = Span(0, self.epoch, 0, 0)  # a second optimizer of this step: the samples count once
            self.steps, self.used = self.steps + 1, self.used + count
            vector = np.concatenate([gradient, differences]) if len(state) else gradient
            info = PushInfo(
                self._member.versions, float(norm), count, float(loss),
                lease=span.lease, epoch=self.epoch, start=span.start, stop=span.stop, tensors=tensors,
            )  # fmt: skip
            begin = time.perf_counter()
            flat = self._member.push_pull(vector, info)
            self._measure(begin, time.perf_counter())
            if self._leases is not None and span.lease:
                self._leases.pushed(span)
            self._base = flat[self.layout.trained :].copy()
            self._assigned.pulled(flat)
            # TensorFlow uses aligned memory without a copy, and the next reply overwrites this memory.
            return flat.copy()
        except (DownpourError, Diverged) as error:
            self.error = error
            raise

    def _differences(self, state: np.ndarray) -> np.ndarray:
        """Return what is added to the state on the servers: 0 where an assigned value replaces it."""
        found = state - self._base
        found[self._averaged :] = 0.0
        return found

    def _skip(self) -> np.ndarray:
        """Return the current weights without a push: the samples of this batch are leased to another worker now."""
        flat = self._member.pull()[0].copy()
        self._base = flat[self.layout.trained :].copy()
        return flat

    def begin_epoch(self, number: int) -> None:
        """Reset the counters for an epoch of this call of `fit`, numbered from 0."""
        self.epoch, self.steps, self.used = number, 0, 0
        self._since_s = None
        self._first_version = self._member.versions[0]

    def _measure(self, begin_s: float, end_s: float) -> None:
        """Add the durations of a step, which began when the previous one ended; that of an epoch's first is unknown."""
        if self._since_s is not None:
            self._member.spent.step_s += end_s - self._since_s
            self._member.spent.exchange_s += end_s - begin_s
        self._since_s = end_s

    def _check_finite(self, norm: float) -> None:
        self._nonfinite_in_a_row = 0 if np.isfinite(norm) else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._member.nonfinite_limit:
            raise Diverged(
                f"gradients must be finite. Received: {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                "The learning rate is too large: try a tenth of it, or clipnorm=1.0."
            )

    def _assign(self, flat: tf.Tensor) -> None:
        variables = [*self.trained, *self._state]
        pieces = tf.split(flat, [tensor.size for tensor in self.layout.tensors])
        for variable, piece in zip(variables, pieces, strict=True):
            variable.assign(tf.cast(tf.reshape(piece, variable.shape), variable.dtype))


def _layout(trained: Sequence[Any], state: Sequence[Any], optimizers: ModelOptimizers) -> Layout:
    seen: Counter[str] = Counter()
    tensors = []
    for section, variables in ((TRAINED, trained), (STATE, state)):
        for variable in variables:
            seen[variable.path] += 1  # two layers of a subclassed model may have one name
            again = f"#{seen[variable.path]}" if seen[variable.path] > 1 else ""
            flags = optimizers.flags_of(variable) if section == TRAINED else UpdateFlags()
            tensors.append(Tensor(variable.path + again, tuple(variable.shape), section, flags))
    return Layout(tuple(tensors))


def _not_trained(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return the frozen weights, and the floating-point variables that training changes (moving statistics)."""
    layers = model._flatten_layers()
    weights = {id(v) for layer in layers for v in getattr(layer, "_trainable_variables", ())}
    rest = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    return [v for v in rest if id(v) in weights], [v for v in rest if id(v) not in weights]


def _dense(gradient: Any) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def _clipped(gradients: list[tf.Tensor], optimizer: Any) -> list[tf.Tensor]:
    """Return the gradients clipped as the arguments of the optimizer say; each worker clips its own."""
    if optimizer.clipnorm:
        return [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm:
        return list(tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0])
    if optimizer.clipvalue:
        return [tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue) for gradient in gradients]
    return gradients


def _number(value: Any, otherwise: float) -> tf.Tensor:
    """Return a scalar of the step that is traced or run; a tensor of another step is replaced by `otherwise`."""
    graph: Any = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    own = getattr(value, "graph", graph)
    while graph is not own and graph is not None:  # a branch of the step may use what is outside of it
        graph = getattr(graph, "outer_graph", None)
    if value is None or graph is not own:
        return tf.constant(otherwise)
    return tf.cast(tf.reduce_mean(value), tf.float32)
