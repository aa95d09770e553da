"""Local steps of a worker's own Keras optimizer, and the exchange of weights after every k of them.

In mode `localsgd` the worker pushes what its steps have changed, and continues with the weights of the servers; in
`easgd` it sends its weights, and those of the servers and its own are moved towards each other.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from downpour.protos.chunked_vector import euclidean_norm
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.local.local_optimizer import LocalOptimizer
from downpour.worker.fit.optimizer.gradient_op import NO_SPAN, GradientOp
from downpour.worker.fit.optimizer.step_tensors import scalar


class LocalStepsOp(GradientOp):
    """The exchange of a worker that makes local steps and pushes differences or weights."""

    has_own_slots = True

    def _begin_fit(self, *arguments: Any) -> None:
        super()._begin_fit(*arguments)
        if not hasattr(self, "_local"):
            self._local = LocalOptimizer(self._optimizers.optimizers[0], self.trained)
        self._local.begin_fit()  # the same one in all calls, because traced functions hold it
        self._optimizers.step_locally(self._local.optimizer)
        self._start = np.empty(0, np.float32)  # weights of the last exchange
        self._own: np.ndarray | None = None  # the worker's own weights between two epochs, in `easgd`
        self._info: PushInfo | None = None  # of the steps since the last exchange
        self._spans: list[Span] = []
        self._first_count = self._count = 0

    @property
    def updates(self) -> int:
        """Number of local steps of all workers in this epoch, as far as this worker has seen them."""
        return self._count - self._first_count

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics to the model, `float32[n + m]`."""
        super().write(flat)
        self._start = flat
        self._set_count()

    def send(self, variables: Any) -> np.ndarray | None:
        """Send the present values of variables that a callback has assigned, which no local step has changed."""
        sent = super().send(variables)
        if sent is not None:
            self._start = np.where(np.isnan(sent), self._start, sent)
        return sent

    def begin_epoch(self, number: int) -> None:
        """Begin an epoch; in `easgd` with the worker's own weights, unless a callback has assigned others."""
        super().begin_epoch(number)
        self._first_count = self._count
        own, self._own = self._own, None
        if own is not None:
            start = self._start
            super().write(own)
            self._start = start

    def weights_assigned(self) -> None:
        """Record that a callback has assigned the weights that the model holds, and that the servers have them."""
        super().weights_assigned()
        self._own, self._start = None, self.read()

    def finish(self) -> None:
        """Exchange what the local steps since the last exchange of an epoch have changed."""
        if self._member.outdated:
            self._spans = []  # the steps began at weights that the servers no longer have
        if self._info is not None:
            flat, _ = self._exchanged(self.read())
            self._assign(tf.convert_to_tensor(flat))
        if self._member.plan.payload == "replica":
            self._own = self.read()

    def keep_slots(self) -> None:
        """Keep the slots of the local optimizer."""
        self._local.keep_slots()

    # ------------------------------------------------------------------ in the graph of a step

    @tf.autograph.experimental.do_not_convert
    def local_step(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> bool:
        """Make a local step, and exchange the weights after every k of them."""
        self._places(optimizer, dict(zip(map(id, variables), gradients, strict=True)))
        norm = self._local.step(gradients, variables, self._member.clip_norm, self._assigned.assignments)
        optimizer._iterations.assign_add(1)
        arguments = [norm, scalar(self._loss, 0.0), scalar(self._samples, 1.0)]
        arguments.append(NO_SPAN if self._span is None else self._span)
        due = tf.numpy_function(self._counted, arguments, tf.bool)
        due.set_shape([])
        tf.cond(due, lambda: self._exchange_in_graph(optimizer), lambda: tf.constant(False))
        return True

    def end_batch(self, pushes: bool = True) -> None:
        """End a train step; a lease that ends without a step of the optimizer ends with an exchange of those before."""
        if self._span is not None and not pushes:
            self._reports_ends = True
            due = tf.numpy_function(self._leaves_steps, [self._span, self._after_assignments()], tf.bool)
            due.set_shape([])
            optimizer = self._optimizers.optimizers[0]
            tf.cond(due, lambda: self._exchange_in_graph(optimizer), lambda: tf.constant(False))
        super().end_batch(pushes)

    def _exchange_in_graph(self, optimizer: Any) -> tf.Tensor:
        flat = tf.concat([tf.reshape(tf.cast(v.value, tf.float32), [-1]) for v in self._variables.all], 0)
        found, count = tf.numpy_function(self._exchanged, [flat], (tf.float32, tf.int64))
        found.set_shape([self.layout.size])
        count.set_shape([])
        with self._assigned.assignments.paused():
            self._assign(found)
            optimizer._iterations.assign(tf.cast(count, optimizer._iterations.dtype))
        return tf.constant(True)

    # ------------------------------------------------------------------ outside of the graph

    def _counted(self, norm: np.ndarray, loss: np.ndarray, samples: np.ndarray, of_span: np.ndarray) -> bool:
        """Record a local step, and return whether the weights must be exchanged after it."""
        try:
            span, count = Span(*of_span.tolist()), int(samples)
            self._check_finite(float(norm))
            if self._member.outdated and self._leases is not None:
                self._leases.void()
            _, start = self._place(span, False)
            info = PushInfo(
                self._member.versions, float(norm), count, float(loss), lease=span.lease, epoch=self.epoch,
                start=start, stop=span.stop,
            )  # fmt: skip
            if not self._applies(span) or self._member.outdated:
                # The samples are leased to another worker now, and the weights of a new session do not have the step.
                self._info = info.with_norm(float("nan"))
                self._spans = []
                return True
            self.steps, self.used = self.steps + 1, self.used + count
            before = self._info
            finite = info.finite and (before is None or before.finite)
            both = info if before is None else before.followed_by(info, info.norm)
            self._info = both if finite else both.with_norm(float("nan"))
            self._spans.append(span)
            last = self._leases is not None and self._leases.is_last(span)
            return self._info.steps >= self._member.plan.push_every or last or not finite
        except Exception as error:
            self.error = error
            raise

    def _leaves_steps(self, of_span: np.ndarray, after: np.ndarray) -> bool:
        """Return whether there are steps to exchange before the samples of a lease are reported as used."""
        span = Span(*of_span.tolist())
        ends = self._leases is not None and self._leases.is_last(span) and not self._leases.is_pushed(span)
        return ends and self._info is not None

    def _exchanged(self, flat: np.ndarray) -> tuple[np.ndarray, np.int64]:
        """Push the steps since the last exchange, and return the weights to continue with and the count of steps."""
        try:
            info, spans, self._info, self._spans = self._info, self._spans, None, []
            assert info is not None
            if spans:
                begin = time.perf_counter()
                if self._since_s is not None:
                    info = info.with_compute_s(begin - self._since_s)
                found = self._member.push_pull(*self._payload(flat, info))
                self._measure(begin, time.perf_counter())
                if self._leases is not None:
                    self._leases.pushed(*spans, ends=not self._reports_ends)
            else:
                found = self._member.pull()[0]
            self._start = found.copy()
            self._set_count()
            return self._start, np.int64(self._count)
        except Exception as error:
            self.error = error
            raise

    def _payload(self, flat: np.ndarray, info: PushInfo) -> tuple[np.ndarray, PushInfo]:
        """Return the vector of a push, and its description with the norm of the trained part."""
        vector = flat if self._member.plan.payload == "replica" else flat - self._start
        norm = euclidean_norm(vector[: self.layout.trained]) if np.isfinite(vector).all() else float("nan")
        return vector, info.with_norm(norm if info.finite else float("nan"))

    def _set_count(self) -> None:
        for count in self._member.counts.updates[:1]:
            self._count = count
