"""`downpour.connect`: connects this process to parameter servers as a worker that exchanges NumPy arrays.

The loop of such a worker:

    with downpour.connect("127.0.0.1:5000", {"w": w, "b": b}, optimizer="sgd", learning_rate=0.1) as client:
        weights = client.pull()
        for x, y in batches:
            weights, reply = client.push_pull(gradients(weights, x, y))
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, LayoutMismatch, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.settings import host_and_port
from downpour.protos.system.progress import waiting_for
from downpour.ps.core.rules.hyperparameters import resolve
from downpour.worker import script
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.loops.numpy_client import NumpyClient, flatten

NO_NUMBERS = "USOMmc"  # kinds of NumPy's types: text, objects, times and complex numbers
ADVICE = " (its --reconnect-s). Start the job again."


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
        optimizer: The name of the servers' optimizer, as `downpour ps --help` lists them; equal on all clients.
        connect_timeout_s: The time within which the server must answer, in seconds.
        call_timeout_s: The deadline of every later call, in seconds.
        hyperparameters: The hyperparameters of the optimizer, by Keras's names (default: Keras's values).

    Returns:
        The client; close it, or use it in a `with` statement.

    Raises:
        InvalidRequest: A weight is not an array of finite numbers.
        LayoutMismatch: Names or shapes differ from those of the other clients, or no client has brought weights.
        Unsupported: The server was not started for scripts, there is no such optimizer, or the address is
            missing or not `HOST:PORT`.
        JobConflict: The server trains a script's `fit`, or the job has ended.
        Unreachable: No server answers at the address.
    """
    member = script.member
    if address is None and member is None:
        raise Unsupported(
            "connect needs the address of a server outside of `downpour run`. Received: none. Start a server with "
            "`downpour ps --script`, and pass the address that it prints."
        )
    if address is not None:
        try:
            host_and_port(str(address))
        except ValueError as error:
            raise Unsupported(
                f"the address of a server {error}. Received: {address!r}. Pass the address that the server prints."
            ) from None
    specification = _optimizer(optimizer, hyperparameters)
    own = None if weights is None else _layout_and_values(weights)
    control = CoordinatorClient(address or member.address, call_timeout_s)  # type: ignore[union-attr]
    try:
        with waiting_for(f"the server at {control.address}"):
            job = control.describe(connect_timeout_s)
        if not job.script:
            raise Unsupported(
                "the server must have been started for a script. Received: one that runs built-in training. "
                "Start a server with --script."
            )
        control.tolerate_outage(job.reconnect_s, ADVICE)
        layout, initial = own or (_layout_of(job), None)
    except BaseException:
        control.close()
        raise
    registration = pb.RegisterRequest(
        layout=layout.to_proto(), data=pb.DatasetInfo(name="a client's", train_samples=1), fit_call=1,
        optimizers=[specification], independent=True,
    )  # fmt: skip
    if address is None and member is not None:
        registration.worker = member.rank
    with waiting_for(f"the job at {control.address} to begin"):
        return NumpyClient(control, job, registration, initial, call_timeout_s)


def _layout_of(job: pb.JobDescription) -> Layout:
    if not job.layout.tensors:
        raise LayoutMismatch(
            "the first client of a job must provide the initial weights. Received: none. Call connect with weights."
        )
    return Layout.from_proto(job.layout)


def _layout_and_values(weights: Mapping[str, ArrayLike]) -> tuple[Layout, np.ndarray]:
    if not isinstance(weights, Mapping):
        raise InvalidRequest(f"weights must be arrays by name. Received: {type(weights).__name__}. Pass a dict.")
    arrays = {name: _array(name, value) for name, value in weights.items()}
    layout = Layout.of([(name, array.shape, TRAINED) for name, array in arrays.items()])
    flat = flatten(arrays, layout)
    if not np.isfinite(flat).all():
        raise InvalidRequest("initial weights must be finite. Received: NaN or Inf. Check how they are initialised.")
    return layout, flat


def _array(name: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray("")
    if array.dtype.kind in NO_NUMBERS:
        raise InvalidRequest(
            f"the weight {name!r} must be an array of real numbers. Received: {str(value)[:100]}. Pass a NumPy array."
        )
    return array


def _optimizer(name: str, hyperparameters: Mapping[str, float]) -> pb.OptimizerSpec:
    try:
        values = resolve(name, hyperparameters)
    except ValueError as error:
        raise Unsupported(str(error)) from None
    rates = pb.LearningRates(updates=[0], rates=[values["learning_rate"]])
    return pb.OptimizerSpec(name=name, hyperparameters=values, learning_rates=rates)
