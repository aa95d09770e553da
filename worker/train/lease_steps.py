"""The training steps of a lease: which batches a push sums up, when weights are pulled, and the local steps between.

In Downpour SGD (Dean et al. 2012, alg. 7.1) the worker makes local steps with the learning rate η between pulls, and
pushes the sum of its gradients. With both intervals at 1 the sequence is pull, gradient, push.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.chunked_vector import ChunkedVector, euclidean_norm
from downpour.protos.system import clock
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.timing import TimeSpent
from downpour.worker.plan.accumulator import AccumulatedGradient, Compute, ManySteps
from downpour.worker.plan.push_plan import PushPlan


class Link(Protocol):
    """The part of `Client` that training needs."""

    def pull(self, pin: int = 0) -> Pulled:
        """Return the committed weights, or those pinned under a number."""

    def push(self, gradient: np.ndarray | ChunkedVector, info: PushInfo, pull: bool = True) -> None:
        """Send a gradient to all shards."""

    def pulled(self) -> Pulled:
        """Wait for the replies to a push."""


@dataclass(frozen=True)
class PushResult:
    """The result of one push.

    Attributes:
        replies: The header of every shard's reply.
        finite: Whether every element of the push was a finite number.
    """

    replies: tuple[pb.Reply, ...]
    finite: bool


class LeaseSteps:
    """Trains on leases, one after the other, as long as the session lasts."""

    def __init__(
        self,
        link: Link,
        one: Compute,
        many: ManySteps | None,
        plan: PushPlan,
        job: pb.JobDescription,
        worker: int,
        trained: int,
        samples: int,
        spent: TimeSpent | None = None,
        before_push: Callable[[], None] = lambda: None,
    ) -> None:
        """Build a worker's steps, which begin with a pull.

        Args:
            link: The connection to the shards.
            one: A function that computes the gradient of one batch.
            many: A function that computes the sum over several full batches with local steps between them.
            plan: The intervals and the payload of pushes.
            job: The description of the job, with the batch size, the learning rate and the seed.
            worker: The number of the worker, which seeds its random numbers.
            trained: The number n of trained weights.
            samples: The number of samples in an epoch.
            spent: The record of times, to whose `exchange_s` the duration of every pull and push is added.
            before_push: A callback before every push, which may block to prevent the push.
        """
        self._link, self._one, self._many = link, one, many
        self._plan, self._batch, self._seed = plan, job.batch_size, (job.seed, worker)
        self._rate, self._trained, self._samples = np.float32(job.learning_rate), trained, samples
        self._spent, self._before_push = spent or TimeSpent(), before_push
        self._permutation: tuple[int, np.ndarray] = (-1, np.empty(0, np.int32))
        self._weights: np.ndarray | None = None
        self._since_push = self._since_fetch = 0
        self._sent = 0
        self._versions: tuple[int, ...] = ()

    def forget(self) -> None:
        """Discard the pulled weights, which may be old by the next lease; a replica's own weights are kept."""
        if self._plan.payload != "replica":
            self._weights, self._since_fetch = None, 0

    def go_back(self, seq: int) -> None:
        """Restore the state before the push of a given number, without weights; used by a replay."""
        self._sent = seq - 1
        self._weights, self._since_push, self._since_fetch = None, 0, 0

    def train(self, task: pb.Task) -> Generator[PushResult]:
        """Train on a lease; yield the result of every push. The caller may stop after any of them."""
        if self._weights is None:
            self._pull()
        order = self._order(task.epoch)
        total: AccumulatedGradient | None = None
        start = task.start
        while start < task.stop:
            part = self._compute(task, order, start, self._end(start, task.stop))
            total = part if total is None else total.add(part, self._trained)
            start = part.info.stop
            self._since_push += part.info.steps
            self._since_fetch += part.info.steps
            if self._since_push >= self._plan.push_every or start == task.stop or not total.info.finite:
                yield self._push(total, part)
                total = None
            elif self._since_fetch >= self._plan.fetch_every:
                self._pull()
            else:
                self._step(part)

    def _order(self, epoch: int) -> np.ndarray:
        """Return the permutation of (seed, epoch) as `int32[samples]`."""
        if self._permutation[0] != epoch:
            generator = np.random.default_rng((self._seed[0], epoch))
            self._permutation = (epoch, generator.permutation(self._samples).astype(np.int32))
        return self._permutation[1]

    def _end(self, start: int, stop: int) -> int:
        """Return the end of the batches to compute at once: at the next push or pull, or before a short batch."""
        due = min(self._plan.push_every - self._since_push, self._plan.fetch_every - self._since_fetch)
        most = self._many.most if self._many is not None else 1
        whole = min(due, most, (stop - start) // self._batch)
        if self._plan.payload == "replica" and whole > 1 and (whole == due or start + whole * self._batch == stop):
            whole -= 1  # the last step is separate: its gradient comes before the exchange, its step after
        return start + whole * self._batch if whole else stop

    def _compute(self, task: pb.Task, order: np.ndarray, start: int, stop: int) -> AccumulatedGradient:
        steps = max(1, (stop - start) // self._batch)
        compute = self._many if self._many is not None and (stop - start) % self._batch == 0 else self._one
        assert self._weights is not None
        begin = clock.perf_counter()
        result = compute(self._weights, order[start:stop], (*self._seed, self._sent + 1), self._since_push)
        info = PushInfo(
            self._versions, result.norm, stop - start, result.loss, result.correct, steps,
            task.lease, task.epoch, start, stop, compute_s=clock.perf_counter() - begin,
        )  # fmt: skip
        return AccumulatedGradient(result.vector, info)

    def _push(self, total: AccumulatedGradient, part: AccumulatedGradient) -> PushResult:
        """Push a sum, before the worker makes the local step of the last part."""
        finite = total.info.finite
        pull = self._since_fetch >= self._plan.fetch_every or self._plan.together or not finite
        vector, info = self._payload(total)
        if not pull:  # before anything is sent, because pulled weights may be overwritten afterwards
            self._step(part)
        self._before_push()
        begin = clock.perf_counter()
        self._link.push(vector, info, pull)
        self._sent += 1
        pulled = self._link.pulled()
        self._spent.exchange_s += clock.perf_counter() - begin
        self._since_push = 0
        if pull:
            self._take(pulled)
            if self._plan.payload == "replica" and finite:
                self._step(part)
        return PushResult(pulled.replies, finite)

    def _payload(self, total: AccumulatedGradient) -> tuple[np.ndarray | ChunkedVector, PushInfo]:
        """Return the payload of a push of this sum, and its description."""
        info = total.info
        if self._plan.payload == "gradient" or not info.finite:
            return total.gradient, info
        if self._plan.payload == "difference":
            return self._moved(total), info.with_norm(float(self._rate) * info.norm)
        assert self._weights is not None
        return self._weights, info.with_norm(euclidean_norm(self._weights[: self._trained]))

    def _moved(self, total: AccumulatedGradient) -> np.ndarray:
        """Return the change of the weights by the steps of a sum, −η Σg, and the differences of the state."""
        moved = total.vector.copy()
        moved[: self._trained] *= -self._rate
        return moved

    def _step(self, total: AccumulatedGradient) -> None:
        """Apply an accumulated gradient to the local weights."""
        moved = self._moved(total)
        moved += self._weights
        self._weights = moved

    def _pull(self) -> None:
        begin = clock.perf_counter()
        pulled = self._link.pull()
        self._spent.exchange_s += clock.perf_counter() - begin
        self._take(pulled)

    def _take(self, pulled: Pulled) -> None:
        keep = self._plan.payload == "replica"
        self._weights = pulled.flat.copy() if keep else pulled.flat
        self._versions = pulled.versions
        self._since_fetch = 0
