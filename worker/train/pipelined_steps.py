"""Steps that compute the next gradient while the push-pull of the last one is in flight.

Its weights are one exchange older: among P equally fast workers staleness is about 2P − 1 instead of P − 1.
Each push names the versions that its gradient was computed from, so the reply shows it.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.system import clock
from downpour.worker.plan.accumulator import AccumulatedGradient
from downpour.worker.train.lease_steps import LeaseSteps, PushResult


class PipelinedLeaseSteps(LeaseSteps):
    """Training with at most one push-pull in flight, and none when `train` has ended or is closed."""

    def train(self, task: pb.Task) -> Generator[PushResult]:
        """Train on a lease; yield the result of every push. The caller may stop after any of them."""
        if self._weights is None:
            self._pull()
        order, start = self._order(task.epoch), task.start
        in_flight: AccumulatedGradient | None = None
        while start < task.stop:
            total = self._one_push(task, order, start)
            if in_flight is not None:
                yield self._land(in_flight)
            self._before_push()
            begin = clock.perf_counter()
            self._link.push(total.gradient, total.info)
            self._spent.exchange_s += clock.perf_counter() - begin
            self._sent += 1
            in_flight, start = total, total.info.stop
        if in_flight is not None:
            yield self._land(in_flight)

    def _one_push(self, task: pb.Task, order: np.ndarray, start: int) -> AccumulatedGradient:
        """Return the sum for one push; the weights remain those that were pulled."""
        pulled = self._weights
        total = self._compute(task, order, start, self._end(start, task.stop))
        part, self._since_push = total, total.info.steps
        while total.info.finite and total.info.stop < task.stop and self._since_push < self._plan.push_every:
            self._step(part)
            part = self._compute(task, order, total.info.stop, self._end(total.info.stop, task.stop))
            total = total.add(part, self._trained)
            self._since_push += part.info.steps
        self._weights, self._since_push = pulled, 0
        return total

    def _land(self, flying: AccumulatedGradient) -> PushResult:
        begin = clock.perf_counter()
        pulled = self._link.pulled()
        self._spent.exchange_s += clock.perf_counter() - begin
        self._take(pulled)
        return PushResult(pulled.replies, flying.info.finite)
