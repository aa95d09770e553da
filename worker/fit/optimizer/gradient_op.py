"""The operation in the graph of a train step that pushes gradients to the servers and returns weights."""

from __future__ import annotations

import math
import time
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector, euclidean_norm
from downpour.protos.coverage import bitmap_of
from downpour.protos.errors import DownpourError, Unsupported
from downpour.protos.layout import Layout
from downpour.worker.compute.norms import clip_together
from downpour.worker.compute.zero_copy import aligned_copy
from downpour.worker.exchange.errors import Diverged
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.cluster.script_worker import ScriptWorker
from downpour.worker.fit.optimizer.assigned_weights import AssignedWeights
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.loss_scale import HALVINGS
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.fit.optimizer.model_variables import ModelVariables
from downpour.worker.fit.optimizer.step_tensors import clipped, dense, followed_by, in_chunks, scalar

if TYPE_CHECKING:
    from downpour.worker.fit.cluster.leases import Leases

NO_SPAN = np.zeros(len(Span._fields), np.int64)  # of a batch that is not leased


class GradientOp:
    """The exchange of gradients and weights between one model and the servers during a call of `fit`.

    A later call of `fit` with the same variables and optimizers continues it, because traced functions hold it.

    Attributes:
        epoch: The epoch of this call of `fit`, from 0.
        steps: The number of pushes of this worker in this epoch.
        used: The number of samples of these pushes.
        error: The error of a step, of which TensorFlow raises only the message; None if there is none.
        has_own_slots: Whether every worker has slots of its own, instead of the servers.
    """

    has_own_slots = False
    _reports_ends = False  # whether the end of each train step is reported to the leases
    _in_chunks = True  # whether a push may consist of several arrays

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
        self._member = member
        self._variables = variables = ModelVariables(model, optimizers, assigned)
        self._assigned = AssignedWeights(variables.all, variables.replaced, variables.layout, member)
        self._halvings = 0  # of a scaled loss that may overflow in a row
        self._loss: Any = None  # of the current batch, in the graph of its step
        self._samples: Any = None  # of the current batch, in the graph of its step
        self._span: Any = None  # of the current batch, in the graph of its step
        self._pushes = False  # whether the current step, as it is traced, has pushed already
        self._leases: Leases | None = None
        self._begin_fit(optimizers, leases)

    def _begin_fit(self, optimizers: ModelOptimizers, leases: Leases | None) -> None:
        if leases is not None and self._leases is not None:
            leases.follow(self._leases)
        self._optimizers, self._leases = optimizers, leases
        self.epoch = self.steps = self.used = 0
        self.error: Exception | None = None
        self._first_version = 0  # of shard 0 when the epoch began
        self._base = np.empty(0, np.float32)  # moving statistics of the last pull
        self._nonfinite_in_a_row = 0
        self._since_s: float | None = None  # end of the last exchange of this epoch

    def continues(self, op: GradientOp) -> bool:
        """Begin the call of `fit` that another exchange was built for, if functions traced with this one serve it.

        Args:
            op: The exchange of the new call.

        Returns:
            Whether the variables, their layout and the optimizers are the same; otherwise nothing changes.
        """
        mine, theirs = self._optimizers.optimizers, op._optimizers.optimizers
        same = len(mine) == len(theirs) and all(a is b for a, b in zip(mine, theirs, strict=True))
        if not same or self._member is not op._member or not self._variables.is_same(op._variables):
            return False
        self._variables = op._variables  # the frozen weights may be others
        self._begin_fit(op._optimizers, op._leases)
        return True

    @property
    def accumulates(self) -> bool:
        """Whether an optimizer adds up the gradients of several batches before a push."""
        return any((each.gradient_accumulation_steps or 1) > 1 for each in self._optimizers.optimizers)

    @property
    def rank(self) -> int:
        """The rank of this worker."""
        return self._member.rank

    @property
    def trained(self) -> list[Any]:
        """The variables that the optimizers train."""
        return self._variables.trained

    @property
    def layout(self) -> Layout:
        """The layout of the flat vector: the trained variables, then the moving statistics."""
        return self._variables.layout

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the frozen weights, which must be equal on all workers."""
        return self._variables.fingerprint

    def read(self) -> np.ndarray:
        """Return the weights and moving statistics of the model, `float32[n + m]`."""
        values = [np.asarray(v.value, np.float32).ravel() for v in self._variables.all]
        return np.concatenate(values)

    @property
    def is_exact(self) -> bool:
        """Whether the model holds weights as the servers do, in float32."""
        return all(v.dtype == "float32" for v in self._variables.all)

    @property
    def updates(self) -> int:
        """Number of updates of all workers in this epoch, as far as this worker has seen them."""
        return self._member.versions[0] - self._first_version

    @property
    def batches(self) -> int:
        """Number of batches of all workers in this epoch, as far as this worker has seen them."""
        return self.updates

    def check_local(self, assigned: Assignments | None, setting: str) -> None:
        """Check that a worker may hold other weights than the servers between two exchanges.

        Args:
            assigned: The variables that the train step assigns; None if it assigns moving statistics at most.
            setting: The setting that asks for it, for the message.

        Raises:
            Unsupported: The train step assigns a weight, or overwrites it with its gradient.
        """
        self._assigned.refuse(setting)
        if assigned is not None:
            self._assigned.check(assigned)
        overwritten = [tensor.name for tensor in self.layout.trained_tensors if tensor.flags.overwrites]
        if overwritten:
            raise self._assigned.refusal(overwritten)

    def weights_assigned(self) -> None:
        """Record that a callback has assigned the weights that the model holds, and that the servers have them."""
        flat = self.read()
        self._base = flat[self.layout.trained :].copy()
        self._assigned.written(flat)

    def finish(self) -> None:
        """End the batches of an epoch, of which all gradients have been pushed."""

    def keep_slots(self) -> None:
        """Keep the slots of the optimizers, which the servers have."""
        self._optimizers.keep(self.trained, self._member.pull_slots)

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics to the model, `float32[n + m]`."""
        self._assign(tf.convert_to_tensor(flat))
        self._base = flat[self.layout.trained :].copy()
        self._assigned.written(flat)

    # ------------------------------------------------------------------ in the graph of a step

    def begin_batch(self, samples: Any, span: Any = None, assigned: Assignments | None = None) -> None:
        """Begin the next batch of this worker.

        Args:
            samples: The number of its samples, a tensor of the step's graph.
            span: Its span, a tensor of the step's graph; None if it is not leased.
            assigned: The variables that the train step assigns, which are recorded while it is traced; None if it
                assigns none.
        """
        self._loss, self._samples, self._span, self._pushes = None, samples, span, False
        self._assigned.begin_batch(assigned or Assignments())

    def end_batch(self, pushes: bool = True) -> None:
        """Send what the train step has assigned to variables of the layout after its updates.

        Args:
            pushes: Whether every train step pushes; if not, a leased batch is used when its train step ends.
        """
        self._assigned.send_in_graph()
        if self._span is not None and not pushes:
            self._reports_ends = True
            tf.numpy_function(self._used, [self._span, self._after_assignments()], [])

    def _after_assignments(self) -> tf.Tensor:
        """Return an empty tensor, for operations that must follow the assignments of a push.

        TensorFlow orders operations by the variables that they use.
        """
        return tf.reshape(self._variables.all[0].value, [-1])[:0]

    def _used(self, of_span: np.ndarray, after: np.ndarray) -> None:
        try:
            self._end_step(Span(*of_span.tolist()))
        except DownpourError as error:
            self.error = error
            raise

    def _end_step(self, span: Span) -> None:
        """Record the end of a train step that need not have pushed."""
        assert self._leases is not None
        self._leases.used(span)

    def send(self, variables: Container[Any]) -> np.ndarray | None:
        """Send the present values of variables that a callback has assigned during an epoch.

        Returns:
            The vector `float32[n + m]` that was sent, with NaN for all other elements; None if nothing was.
        """
        sent = self._assigned.send(variables)
        if sent is not None:
            state = sent[self.layout.trained :]
            self._base = np.where(np.isnan(state), self._base, state)
        return sent

    def set_loss(self, loss: Any) -> None:
        """Set the loss of the current batch, a tensor of the step's graph."""
        self._loss = loss

    def local_step(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> bool:
        """Return whether the worker has made the step of a batch itself; here the servers make every step."""
        return False

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
        given = {place: dense(gradients[id(self.trained[place])]) for place in places}
        pushed = {**given, **self._clipped(given, optimizer)}
        chunks = in_chunks([pushed[place] for place in places], together=not self._in_chunks)
        state = tf.concat(
            [tf.zeros(0), *(tf.reshape(tf.cast(v.value, tf.float32), [-1]) for v in self._variables.state)], 0
        )
        norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(chunk) for chunk in chunks]))
        batches = optimizer.gradient_accumulation_steps or 1
        arguments = [state, norm, scalar(self._loss, 0.0), batches * scalar(self._samples, 1.0)]
        arguments.append(NO_SPAN if self._span is None else self._span)
        if getattr(optimizer, "scales_loss", False):
            self._halvings = HALVINGS
        push_pull = partial(self._push_chunks, len(chunks), bitmap_of(places, len(self.trained)), self._pushes)
        self._pushes = True
        pulled = tf.numpy_function(push_pull, [*chunks, *arguments, *self._more_arguments(optimizer)], tf.float32)
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
                    f"{self._optimizers.optimizers[owner].name}. Received: {self.trained[place].path} with "
                    f"{optimizer.name}. Apply all optimizers in every train_step."
                )
        return places

    def _clipped(self, given: Mapping[int, tf.Tensor], optimizer: Any) -> dict[int, tf.Tensor]:
        """Return the gradients clipped by the optimizer; new values of variables that are overwritten are not."""
        places = [place for place in given if not self.layout.tensors[place].flags.overwrites]
        if not places:
            return {}
        gradients = clipped([given[place] for place in places], optimizer)
        if self._member.clip_norm:  # of the job, after what the script does
            gradients = clip_together(gradients, self._member.clip_norm)
        return dict(zip(places, gradients, strict=True))

    def _push_chunks(self, count: int, tensors: bytes, repeats: bool, *given: Any) -> np.ndarray:
        gradient = given[0] if count == 1 else ChunkedVector(given[:count])
        return self._push_pull(tensors, repeats, gradient, *given[count:])

    def _push_pull(
        self, tensors: bytes, repeats: bool, gradient: np.ndarray | ChunkedVector, state: np.ndarray, norm: float,
        loss: float, samples: int, of_span: np.ndarray, *more: Any,
    ) -> np.ndarray:  # fmt: skip
        try:
            span = Span(*of_span.tolist())
            if self._member.outdated and self._leases is not None:  # another thread has begun another session
                self._leases.void()  # the samples are leased again
            repeats, start = self._place(span, repeats)
            if not self._applies(span, tensors) or self._member.outdated:
                return self._skip()
            norm, differences = float(norm), self._differences(state) if len(state) else state
            if len(state) and not np.isfinite(differences).all():
                norm = math.nan  # all shards must drop the push, also those that do not have the state
            elif not math.isfinite(norm):
                norm = euclidean_norm(gradient)  # the squares of finite numbers may exceed float32
            self._check_finite(norm)
            count = int(samples)
            if repeats and span.lease:
                span = Span(0, self.epoch, 0, 0)
            self.used += 0 if repeats else count
            vector = followed_by(gradient, differences)
            begin = time.perf_counter()
            info = PushInfo(
                self._member.versions, norm, count, float(loss),
                lease=span.lease, epoch=self.epoch, start=start, stop=span.stop, tensors=tensors,
                compute_s=begin - self._since_s if self._since_s is not None else 0.0,
                repeats=repeats,
            )  # fmt: skip
            flat = self._exchange(vector, info, span, state, *more)
            self._measure(begin, time.perf_counter())
            return flat
        except (DownpourError, Diverged) as error:
            self.error = error
            raise

    def _place(self, span: Span, repeats: bool) -> tuple[bool, int]:
        """Return whether a push is that of a second optimizer of its step, and its first position if it is not."""
        if self._leases is None or not span.lease:
            return repeats, 0
        return (True, 0) if self._leases.is_pushed(span) else (False, self._leases.start_of(span))

    def _applies(self, span: Span, optimizer: bytes = b"") -> bool:
        """Record that a train step applies an optimizer, and return whether the gradient may be pushed."""
        return self._leases is None or self._leases.apply(span, optimizer)

    def _more_arguments(self, optimizer: Any) -> list[Any]:
        """Return tensors of a step that `_exchange` needs besides the gradient."""
        return []

    def _exchange(
        self, vector: np.ndarray | ChunkedVector, info: PushInfo, span: Span, state: np.ndarray, *more: Any
    ) -> np.ndarray:
        """Push the gradient of a batch, and return the weights that the model holds next."""
        flat = self._member.push_pull(vector, info)
        self._pushed(span)
        self._base = flat[self.layout.trained :].copy()
        self._assigned.pulled(flat)
        # The variables share aligned memory without a copy, and the next reply overwrites that of this one.
        return aligned_copy(flat)

    def _pushed(self, *spans: Span) -> None:
        """Count a push with the batches of some spans."""
        self.steps += 1
        if self._leases is not None:
            self._leases.pushed(*spans, ends=not self._reports_ends)

    def _differences(self, state: np.ndarray) -> np.ndarray:
        """Return what is added to the state on the servers: 0 where an assigned value replaces it."""
        found = state - self._base
        found[self._variables.averaged :] = 0.0
        return found

    def _skip(self) -> np.ndarray:
        """Return the current weights without a push: the samples of this batch are leased to another worker now."""
        flat = self._member.pull()[0].copy()
        self._base = flat[self.layout.trained :].copy()
        return flat

    def begin_epoch(self, number: int) -> None:
        """Reset the counters for an epoch of this call of `fit`, numbered from 0."""
        self.epoch, self.steps, self.used = number, 0, 0
        self._member.begin_epoch(number)
        self._since_s = None
        self._first_version = self._member.versions[0]

    def _measure(self, begin_s: float, end_s: float) -> None:
        """Add the durations of a step, which began when the previous one ended; that of an epoch's first is unknown."""
        if self._since_s is not None:
            self._member.spent.step_s += end_s - self._since_s
            self._member.spent.exchange_s += end_s - begin_s
        self._since_s = end_s

    def _check_finite(self, norm: float) -> None:
        self._nonfinite_in_a_row = 0 if math.isfinite(norm) else self._nonfinite_in_a_row + 1
        if self._nonfinite_in_a_row >= self._member.nonfinite_limit + self._halvings:
            raise Diverged(
                f"gradients must be finite. Received: {self._nonfinite_in_a_row} in a row with NaN or Inf. "
                "The learning rate is too large: try a tenth of it, or clipnorm=1.0."
            )

    def _assign(self, flat: tf.Tensor) -> None:
        pieces = tf.split(flat, [tensor.size for tensor in self.layout.tensors])
        for variable, piece in zip(self._variables.all, pieces, strict=True):
            variable.assign(tf.cast(tf.reshape(piece, variable.shape), variable.dtype))
