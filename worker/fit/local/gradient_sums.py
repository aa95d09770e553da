"""Pushes of the sum of several batches' gradients, pulls at another interval, and pushes while the next batch computes.

Between two pulls the worker makes the local steps of Downpour SGD (Dean et al. 2012, alg. 7.1), w ← w − η g, with the
learning rate η that its optimizer has at that time. The servers carry out the optimizer's rule on the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from downpour.protos.chunked_vector import ChunkedVector
from downpour.protos.coverage import Coverage
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.optimizer.gradient_op import GradientOp
from downpour.worker.plan.accumulator import AccumulatedGradient


class SummedGradientOp(GradientOp):
    """The exchange of a worker that pushes or pulls less often than after every batch, or while it computes."""

    _in_chunks = False  # they would be joined to be added up

    def _begin_fit(self, *arguments: Any) -> None:
        super()._begin_fit(*arguments)
        self._weights = np.empty(0, np.float32)  # that the model holds
        self._pulled = self._weights  # that were pulled last
        self._sum: AccumulatedGradient | None = None
        self._spans: list[Span] = []  # of the sum
        self._sent: list[Span] | None = None  # of the push in flight
        self._since_push = self._since_fetch = self._first_gradients = 0
        self._coverages: dict[bytes, Coverage] = {}

    @property
    def batches(self) -> int:
        """Number of batches of all workers in this epoch, as far as this worker has seen them."""
        return self._gradients - self._first_gradients

    @property
    def _gradients(self) -> int:
        return sum(self._member.counts.gradients[:1])

    def begin_epoch(self, number: int) -> None:
        """Reset the counters for an epoch of this call of `fit`, numbered from 0."""
        super().begin_epoch(number)
        self._first_gradients = self._gradients

    def write(self, flat: np.ndarray) -> None:
        """Assign weights and moving statistics to the model, `float32[n + m]`."""
        super().write(flat)
        self._weights = self._pulled = flat

    def send(self, variables: Any) -> np.ndarray | None:
        """Send the present values of variables that a callback has assigned during an epoch."""
        self._land()
        sent = super().send(variables)
        if sent is not None:
            self._weights = np.where(np.isnan(sent), self._weights, sent)
            self._pulled = np.where(np.isnan(sent), self._pulled, sent)
        return sent

    def weights_assigned(self) -> None:
        """Record that a callback has assigned the weights that the model holds, and that the servers have them."""
        super().weights_assigned()
        self._weights = self._pulled = self.read()

    def keep_slots(self) -> None:
        """Keep the slots of the optimizers, which the servers have."""
        self._land()
        super().keep_slots()

    def finish(self) -> None:
        """Push what has been summed since the last push of an epoch."""
        self._land()
        if self._member.outdated:
            self._forget()  # it was computed from weights that the servers no longer have
        if self._sum is not None:
            self._push(pull=False)

    # ------------------------------------------------------------------ a batch

    def _more_arguments(self, optimizer: Any) -> list[Any]:
        return [tf.cast(optimizer._get_current_learning_rate(), tf.float32)]

    def _skip(self) -> np.ndarray:
        self._land()
        self._forget()
        self._weights = self._pulled = super()._skip()
        return self._weights

    def _forget(self) -> None:
        self._sum, self._spans = None, []
        self._since_push = self._since_fetch = 0

    def _exchange(
        self, vector: np.ndarray | ChunkedVector, info: PushInfo, span: Span, state: np.ndarray, *more: Any
    ) -> np.ndarray:
        plan = self._member.plan
        if self._sum is not None and self._sum.info.tensors != info.tensors:
            self._push(pull=False)
        part = AccumulatedGradient(vector, info)
        self._sum = self._added(part)
        self._spans.append(span)
        self._since_push += 1
        self._since_fetch += 1
        last = self._leases is not None and self._leases.is_last(span)
        if self._since_push >= plan.push_every or last or not info.finite:
            if plan.overlap:
                self._push_ahead(last)
            elif plan.together or self._since_fetch >= plan.fetch_every or not info.finite:
                self._push(pull=True)
            else:
                self._step(part, state, *more)
                self._push(pull=False)
        elif self._since_fetch >= plan.fetch_every:
            self._take(self._member.pull()[0])
        else:
            self._step(part, state, *more)
        return self._weights

    def _added(self, part: AccumulatedGradient) -> AccumulatedGradient:
        """Return the sum with another gradient. It is kept, so that it must not be memory of TensorFlow."""
        if self._sum is not None:
            return self._sum.add(part, len(part.vector) - self.layout.state)
        kept = self._member.plan.overlap or self._member.plan.push_every > 1
        return AccumulatedGradient(part.vector.copy(), part.info) if kept else part

    def _step(self, part: AccumulatedGradient, state: np.ndarray, rate: np.float32) -> None:
        """Make a local step; the forward pass has brought the moving statistics up to date already."""
        weights = self._weights.copy()
        for start, stop, at, _ in self._coverage(part.info.tensors).ranges:
            weights[start:stop] -= rate * part.vector[at : at + stop - start]
        weights[self.layout.trained :] = state
        self._weights, self._base = weights, state.copy()

    def _coverage(self, bitmap: bytes) -> Coverage:
        if bitmap not in self._coverages:
            (whole,) = self.layout.cut(1)
            self._coverages[bitmap] = Coverage.of(bitmap, self.layout, whole)
        return self._coverages[bitmap]

    # ------------------------------------------------------------------ exchanges

    def _push(self, pull: bool) -> None:
        self._land()
        if self._sum is None:
            return
        total, spans = self._end_sum()
        flat = self._member.push_pull(total.vector, total.info) if pull else None
        if not pull:
            flat = self._member.push(total.vector, total.info)  # weights of a new session, or None
        self._pushed(*spans)
        if flat is not None:
            self._take(flat)

    def _push_ahead(self, last: bool) -> None:
        """Push, and continue with the weights of the push before; at the end of a lease, with those of this one."""
        landed = self._land()
        if self._sum is None:
            return
        total, spans = self._end_sum()
        self._member.send(total.vector, total.info)
        self._sent = spans
        if last:
            self._land()
        elif not landed:
            self._take(self._pulled)  # without the local steps, as every gradient counts once

    def _land(self) -> bool:
        """Wait for the reply to the push in flight, and return whether there was one."""
        if self._sent is None:
            return False
        spans, self._sent = self._sent, None
        self._take(self._member.receive())
        self._pushed(*spans)
        if self._leases is not None and not all(map(self._leases.valid, self._spans)):
            self._forget()  # the session has ended, and these samples are leased again
        return True

    def _end_step(self, span: Span) -> None:
        if self._leases is not None and self._leases.is_last(span) and not self._leases.is_pushed(span):
            self._push(pull=False)  # what is reported as used then must not be pushed later
        super()._end_step(span)

    def _end_sum(self) -> tuple[AccumulatedGradient, list[Span]]:
        assert self._sum is not None
        total, spans = self._sum, self._spans
        self._sum, self._spans, self._since_push = None, [], 0
        return total, spans

    def _take(self, flat: np.ndarray) -> None:
        # TensorFlow uses aligned memory without a copy, and the next reply overwrites this memory.
        self._weights = self._pulled = flat if flat is self._pulled else flat.copy()
        self._base = self._weights[self.layout.trained :].copy()
        self._since_fetch = 0
