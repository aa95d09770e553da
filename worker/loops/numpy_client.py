"""The client of `downpour.connect`: pulls weights and pushes gradients as NumPy arrays by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, InvalidRequest, LayoutMismatch
from downpour.protos.layout import Layout
from downpour.protos.system import clock, threads
from downpour.worker.exchange.client import Client, Pulled
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import SESSION_LOST, SILENT, Session, SessionSettings

LOST = (*SESSION_LOST, *SILENT)  # errors after which a client registers again: its server may be restarted
RETRY_S = 0.2
OUTCOMES = {pb.APPLIED: "applied", pb.BUFFERED: "buffered", pb.DROPPED: "dropped"}
T = TypeVar("T")


@dataclass(frozen=True)
class PushReply:
    """The servers' reply to a push.

    Attributes:
        outcome: `applied`; `buffered`, if it will be part of a later update; `dropped`, if the servers refused it as
            `reason` says; `lost`, if the session ended before the servers replied.
        reason: The reason why the push was not applied; empty if it was.
        staleness: The number of updates between the weights that the gradient was computed from and the update that
            the push made, the largest over the shards.
        version: The version of the weights after the push, on every shard.
        learning_rate: The learning rate of the update, after schedule and compensation.
    """

    outcome: str
    reason: str
    staleness: int
    version: tuple[int, ...]
    learning_rate: float


class NumpyClient:
    """A worker that pulls weights from the servers and pushes gradients, both as dicts of NumPy arrays.

    The arrays are `float32`, by name. The methods may be called from any thread, by one thread at a time.

    Attributes:
        shapes: The shape of every weight by name, in the order of the layout.
    """

    def __init__(
        self, control: CoordinatorClient, job: pb.JobDescription, registration: pb.RegisterRequest,
        initial: np.ndarray | None, timeout_s: float,
    ) -> None:  # fmt: skip
        """Join the job and wait until training starts.

        Args:
            control: The client of the coordinator, which this object closes.
            job: The description of the job.
            registration: The request to register.
            initial: The initial weights `float32[n]`; None if another client has set them.
            timeout_s: The deadline of a call, in seconds.

        Raises:
            DownpourError: A server cannot be reached, or has refused the registration.
        """
        self._control, self._job, self._initial = control, job, initial
        self._layout = Layout.from_proto(registration.layout)
        self.shapes = {tensor.name: tensor.shape for tensor in self._layout.tensors}
        # gRPC's event loop must always be used by the same thread.
        self._thread = ThreadPoolExecutor(1, "downpour-client")
        settings = SessionSettings(timeout_s=timeout_s, fixed_rank=registration.HasField("worker"))
        self._session = Session(control, job, registration, settings, self._run)
        self._base: tuple[int, ...] = ()
        self._pulled_s = time.perf_counter()
        self._has_pushed = False
        try:
            self._session.register()
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def rank(self) -> int:
        """The number of this worker in the job, from 0."""
        return self._session.worker

    @property
    def size(self) -> int:
        """The number of workers that the job was started with."""
        return self._job.workers

    @property
    def stopping(self) -> bool:
        """Whether the job has been asked to end, so that the training loop should end after the current batch."""
        return self._session.draining or bool(self._session.over)

    def pull(self) -> dict[str, np.ndarray]:
        """Return the current weights by name.

        Raises:
            DownpourError: The servers cannot be reached, or the job has ended.
        """
        try:
            return self._read(self._run(lambda: self._session.client.pull()))
        except LOST as error:
            return self._rejoin(error)

    def push(self, gradients: Mapping[str, ArrayLike], *, samples: int = 1, loss: float = 0.0) -> PushReply:
        """Push gradients, computed from the weights that this client pulled last.

        Args:
            gradients: The gradient of every weight by name, `float32` of the weight's shape.
            samples: The number of samples that the gradients average over.
            loss: The mean loss over the samples, for the progress and the trace of the job.

        Returns:
            The servers' reply. Gradients with NaN or Inf are dropped.

        Raises:
            InvalidRequest: A name or a shape differs from the layout.
            DownpourError: The servers cannot be reached, or the job has ended.
        """
        return self._exchange(gradients, samples, loss, pull=False)[1]

    def push_pull(
        self, gradients: Mapping[str, ArrayLike], *, samples: int = 1, loss: float = 0.0
    ) -> tuple[dict[str, np.ndarray], PushReply]:
        """Push gradients and return the new weights with the servers' reply.

        This method sends one request to every shard, whereas `push` followed by `pull` sends two.

        Args:
            gradients: As in `push`.
            samples: As in `push`.
            loss: As in `push`.

        Returns:
            The weights after the push by name, and the reply.

        Raises:
            DownpourError: As `push`.
        """
        return self._exchange(gradients, samples, loss, pull=True)

    def close(self) -> None:
        """Leave the job and close all connections; the job continues with its other workers."""
        self._session.leave()
        self._thread.shutdown()
        self._control.close()

    def __enter__(self) -> Self:
        """Return this client, which the end of the block closes."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close the client, also if the block raised an error."""
        self.close()

    # ------------------------------------------------------------------ exchanges

    def _exchange(
        self, gradients: Mapping[str, ArrayLike], samples: int, loss: float, pull: bool
    ) -> tuple[dict[str, np.ndarray], PushReply]:
        flat = flatten(gradients, self._layout)
        if not self._base:
            raise InvalidRequest("gradients must be computed from weights that were pulled. Received: none. Call pull.")
        norm = float(np.linalg.norm(flat.astype(np.float64)))
        if self._job.clip_norm and self._job.clip_norm < norm < math.inf:
            flat, norm = flat * np.float32(self._job.clip_norm / norm), self._job.clip_norm
        info = PushInfo(self._base, norm, samples, float(loss), compute_s=time.perf_counter() - self._pulled_s)

        def exchange() -> Pulled:
            self._session.check()
            self._session.client.push(flat, info, pull)
            return self._session.client.pulled()

        try:
            pulled = self._run(exchange)
        except LOST as error:
            weights = self._rejoin(error)
            return weights, PushReply("lost", str(error), 0, self._base, 0.0)
        self._has_pushed = True
        return self._read(pulled) if pull else {}, _reply_of(pulled)

    def _read(self, pulled: Pulled) -> dict[str, np.ndarray]:
        self._base, self._pulled_s = pulled.versions, time.perf_counter()
        return self._layout.views(pulled.flat.copy())  # the next reply overwrites this memory

    def _rejoin(self, error: DownpourError) -> dict[str, np.ndarray]:
        """Return the weights of a new session, for which a server may be away for as long as the job allows.

        Raises:
            DownpourError: A server has not returned, or refuses the client.
        """
        give_up_s = clock.monotonic() + self._job.reconnect_s
        while not isinstance(error, CoordinatorGone) and clock.monotonic() < give_up_s:
            try:
                self._session.renew(error, has_trained=self._has_pushed)
                self._start()
                return self._read(self._run(lambda: self._session.client.pull()))
            except LOST as again:
                error = again
                threads.sleep(RETRY_S)
        raise error

    def _start(self) -> None:
        self._session.await_start(self._initialise)

    def _initialise(self, client: Client) -> None:
        if self._initial is None:
            raise LayoutMismatch(
                "the first client of a job must provide the initial weights. Received: none, and the client that "
                "provided them has left. Call connect with weights."
            )
        client.initialise(self._initial)

    def _run(self, call: Callable[[], T]) -> T:
        return self._thread.submit(call).result()


def flatten(arrays: Mapping[str, ArrayLike], layout: Layout) -> np.ndarray:
    """Return arrays by name as one vector `float32[n]` in the order of a layout.

    Raises:
        InvalidRequest: A name or a shape differs from the layout.
    """
    missing = [tensor.name for tensor in layout.tensors if tensor.name not in arrays]
    unknown = [name for name in arrays if name not in {tensor.name for tensor in layout.tensors}]
    if missing or unknown:
        raise InvalidRequest(
            f"there must be one array for each weight. Received: unknown names {unknown}, and no arrays for {missing}. "
            "Use the names that connect received."
        )
    vectors = []
    for tensor in layout.tensors:
        array = np.asarray(arrays[tensor.name], np.float32)
        if array.shape != tensor.shape:
            raise InvalidRequest(f"{tensor.name!r} must have the shape {list(tensor.shape)}. Received: {array.shape}.")
        vectors.append(array.ravel())
    return np.concatenate(vectors)


def _reply_of(pulled: Pulled) -> PushReply:
    replies = pulled.replies
    worst = max(replies, key=lambda reply: reply.outcome)
    return PushReply(
        OUTCOMES[worst.outcome],
        worst.reason,
        max(reply.staleness for reply in replies),
        pulled.versions,
        worst.learning_rate,
    )
