"""The registry of transports: what pulls and pushes travel by. To add one, add one row to `TRANSPORTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

AUTO = "auto"


@dataclass(frozen=True)
class TransportRow:
    """One transport. Its two sides are named as `module:function`, as neither package may import the other.

    Attributes:
        description: When the transport is used, for `--help`.
        connect: The worker's side: takes a `Route` and returns a `Transport`, or raises DownpourError.
        listen: The server's side: takes a `ListenRequest` and returns a `Listener`, or raises Unsupported.
        always: Whether a server listens whatever `--transport` is.
    """

    description: str
    connect: str
    listen: str
    always: bool = False


# In the order in which `auto` tries them: the fastest first, and last one that reaches every shard.
TRANSPORTS: dict[str, TransportRow] = {
    "shm": TransportRow(
        "shared memory, for workers on the host of the server",
        "downpour.worker.exchange.transports:connect_shared_memory",
        "downpour.ps.data_plane.listeners:listen_shared_memory",
    ),
    "tcp": TransportRow(
        "plain TCP connections, with TLS if the job has it",
        "downpour.worker.exchange.tcp.transport:connect_tcp",
        "downpour.ps.data_plane.tcp.listener:listen_tcp",
    ),
    "grpc": TransportRow(
        "a gRPC stream, for all workers and through proxies",
        "downpour.worker.exchange.transports:connect_grpc",
        "downpour.ps.data_plane.listeners:listen_grpc",
        always=True,
    ),
}


def transport_names() -> list[str]:
    """Return what `--transport` may be."""
    return [AUTO, *TRANSPORTS]


def load(path: str) -> Callable[..., Any]:
    """Return the function that a row names as `module:function`."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
