"""`downpour.connect`: a client with NumPy arrays, with which a worker in any framework trains on the servers.

with downpour.connect("127.0.0.1:5000", {"w": w, "b": b}, optimizer="sgd", learning_rate=0.1) as client:
weights = client.pull()
for x, y in batches:
weights, reply = client.push_pull(gradients(weights, x, y))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, InvalidRequest, LayoutMismatch, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.core.rules.hyperparameters import resolve
from downpour.worker import script
from downpour.worker.exchange.client import Client, Pulled
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import SESSION_LOST, Session, SessionSettings

OUTCOMES = {pb.APPLIED: "applied", pb.BUFFERED: "buffered", pb.DROPPED: "dropped"}
NO_CHECKPOINTS = ". The servers of a script keep no checkpoints. Start them and their clients again."
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
    """A worker that pulls weights from the servers and pushes gradients as dicts of NumPy arrays.

    Weights and gradients are `float32` arrays by name. Its methods may be called from any thread, one at a time.

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
        """
        self._control, self._job, self._initial = control, job, initial
        self._layout = Layout.from_proto(registration.layout)
        self.shapes = {tensor.name: tensor.shape for tensor in self._layout.tensors}
        # gRPC's event loop must be used by one thread.
        self._thread = ThreadPoolExecutor(1, "downpour-client")
        settings = SessionSettings(timeout_s=timeout_s, fixed_rank=registration.HasField("worker"))
        self._session = Session(control, job, registration, settings, self._run)
        self._base: tuple[int, ...] = ()
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
        """Whether the job is asked to end, so that the training loop should end after the current batch."""
        return self._session.draining or bool(self._session.over)

    def pull(self) -> dict[str, np.ndarray]:
        """Return the current weights by name.

        Raises:
            DownpourError: The servers cannot be reached, or the job has ended.
        """
        try:
            return self._read(self._run(lambda: self._session.client.pull()))
        except SESSION_LOST as error:
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

        This is one message to every shard and back, where `push` and `pull` are two.

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
        info = PushInfo(self._base, norm, samples, float(loss))

        def exchange() -> Pulled:
            self._session.check()
            self._session.client.push(flat, info, pull)
            return self._session.client.pulled()

        try:
            pulled = self._run(exchange)
        except SESSION_LOST as error:
            weights = self._rejoin(error)
            return weights, PushReply("lost", str(error), 0, self._base, 0.0)
        return self._read(pulled) if pull else {}, _reply_of(pulled)

    def _read(self, pulled: Pulled) -> dict[str, np.ndarray]:
        self._base = pulled.versions
        return self._layout.views(pulled.flat.copy())  # the next reply overwrites this memory

    def _rejoin(self, error: DownpourError) -> dict[str, np.ndarray]:
        self._session.rejoin(error)
        self._start()
        return self._read(self._run(lambda: self._session.client.pull()))

    def _start(self) -> None:
        self._session.await_start(self._initialise)

    def _initialise(self, client: Client) -> None:
        if self._initial is None:
            raise LayoutMismatch(
                "the first client of a job must bring its initial weights. Received: none, and the client that brought "
                "them has left. Call connect with weights."
            )
        client.initialise(self._initial)

    def _run(self, call: Callable[[], T]) -> T:
        return self._thread.submit(call).result()


def connect(
    address: str | None = None,
    weights: Mapping[str, ArrayLike] | None = None,
    *,
    optimizer: str = "sgd",
    connect_timeout_s: float = 60.0,
    call_timeout_s: float = 30.0,
    **hyperparameters: float,
) -> NumpyClient:
    """Connect this process to parameter servers as a worker that exchanges NumPy arrays, in any framework.

    The servers are started with `downpour ps --script`, or by `downpour run`, whose scripts may leave `address` out.
    The first client fixes names, shapes, initial values and the optimizer; the others receive its values.

    Args:
        address: The address of shard 0, `HOST:PORT`; by default that of the job which `downpour run` has started.
        weights: The initial weights by name, arrays of numbers. None if another client has connected with them before.
        optimizer: The optimizer of the servers, a name of `downpour ps --help`; equal on all clients.
        connect_timeout_s: The time within which the server must answer, in seconds.
        call_timeout_s: The deadline of every later call, in seconds.
        hyperparameters: Those of the optimizer, by Keras's names (default: Keras's values).

    Returns:
        The client; close it, or use it in a `with` statement.

    Raises:
        InvalidRequest: A weight is not an array of finite numbers.
        LayoutMismatch: Names or shapes differ from those of the other clients, or no client has brought weights.
        Unsupported: The server was not started for scripts, there is no such optimizer, or no address is known.
        JobConflict: The server trains a script's `fit`, or the job has ended.
        Unreachable: No server answers at the address.
    """
    member = script.member
    if address is None and member is None:
        raise Unsupported(
            "connect needs the address of a server outside of `downpour run`. Received: none. Start a server with "
            "`downpour ps --script`, and pass the address that it prints."
        )
    specification = _optimizer(optimizer, hyperparameters)
    control = CoordinatorClient(address or member.address, call_timeout_s)  # type: ignore[union-attr]
    try:
        job = control.describe(connect_timeout_s)
        if not job.script:
            raise Unsupported(
                "the server must have been started for a script. Received: one that runs built-in training. "
                "Start a server with --script."
            )
        control.tolerate_outage(10.0, NO_CHECKPOINTS)
        layout, initial = _layout_of(weights, job)
    except BaseException:
        control.close()
        raise
    registration = pb.RegisterRequest(
        layout=layout.to_proto(), data=pb.DatasetInfo(name="a client's", train_samples=1), fit_call=1,
        optimizers=[specification], independent=True,
    )  # fmt: skip
    if address is None and member is not None:
        registration.worker = member.rank
    return NumpyClient(control, job, registration, initial, call_timeout_s)


def flatten(arrays: Mapping[str, ArrayLike], layout: Layout) -> np.ndarray:
    """Return arrays by name as one vector `float32[n]` in the order of a layout.

    Raises:
        InvalidRequest: A name or a shape differs from the layout.
    """
    missing = [tensor.name for tensor in layout.tensors if tensor.name not in arrays]
    unknown = [name for name in arrays if name not in {tensor.name for tensor in layout.tensors}]
    if missing or unknown:
        raise InvalidRequest(
            f"gradients must have the names of the weights. Received: {unknown or 'nothing'} besides them, and nothing "
            f"for {missing or 'none'}."
        )
    vectors = []
    for tensor in layout.tensors:
        array = np.asarray(arrays[tensor.name], np.float32)
        if array.shape != tensor.shape:
            raise InvalidRequest(f"{tensor.name!r} must have the shape {list(tensor.shape)}. Received: {array.shape}.")
        vectors.append(array.ravel())
    return np.concatenate(vectors)


def _layout_of(weights: Mapping[str, ArrayLike] | None, job: pb.JobDescription) -> tuple[Layout, np.ndarray | None]:
    if weights is None:
        if not job.layout.tensors:
            raise LayoutMismatch(
                "the first client of a job must bring its initial weights. Received: none. Call connect with weights."
            )
        return Layout.from_proto(job.layout), None
    arrays = {name: np.asarray(array) for name, array in weights.items()}
    layout = Layout.of([(name, array.shape, TRAINED) for name, array in arrays.items()])
    flat = flatten(arrays, layout)
    if not np.isfinite(flat).all():
        raise InvalidRequest("initial weights must be finite. Received: NaN or Inf.")
    return layout, flat


def _optimizer(name: str, hyperparameters: Mapping[str, float]) -> pb.OptimizerSpec:
    try:
        values = resolve(name, hyperparameters)
    except ValueError as error:
        raise Unsupported(str(error)) from None
    rates = pb.LearningRates(updates=[0], rates=[values["learning_rate"]])
    return pb.OptimizerSpec(name=name, hyperparameters=values, learning_rates=rates)


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
