"""The server's side of the transports: the listeners that a shard opens for its workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.protos.logs import reason_of
from downpour.protos.shared_memory import memfd
from downpour.protos.transports import AUTO, TRANSPORTS, load
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.grpc_stream import ExchangeServicer
from downpour.ps.data_plane.request_handler import RequestHandler
from downpour.ps.data_plane.shared_memory import SharedMemoryListener


@dataclass(frozen=True)
class ListenRequest:
    """The parameters with which a transport listens for workers.

    Attributes:
        settings: The settings of the server.
        handler: The handler of the requests.
        connection_lost: A callback that receives the number of a worker whose connection has ended.
        grpc_server: The gRPC server of the process, which has not been started yet.
        connected: A callback for each connection of a worker; `open_listeners` notes the transport with it.
    """

    settings: ServerSettings
    handler: RequestHandler
    connection_lost: Callable[[int], None]
    grpc_server: grpc.aio.Server | None = None
    connected: Callable[[], None] = lambda: None


class Listener(Protocol):
    """The interface of an open transport, which serves its workers."""

    def add_to(self, address: pb.ShardAddress) -> None:
        """Add the data with which a worker connects to the address of the shard."""

    def close(self) -> None:
        """Stop listening and close the connections to all workers."""


class Listeners:
    """The listeners of one shard."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        """Combine the listeners of all transports of one shard.

        Args:
            listeners: One for each transport that the server offers.
        """
        self._listeners = listeners

    def address(self, shard: int, address: str) -> pb.ShardAddress:
        """Return the address of a shard, generation 1, for all transports."""
        complete = pb.ShardAddress(shard=shard, address=address, generation=1)
        for listener in self._listeners:
            listener.add_to(complete)
        return complete

    def close(self) -> None:
        """Close the listeners of all transports, and with them the connections to all workers."""
        for listener in self._listeners:
            listener.close()


def open_listeners(request: ListenRequest) -> Listeners:
    """Listen on every transport that the settings permit and this system has.

    Raises:
        Unsupported: This system does not have the transport that the settings demand, or its folder cannot be used.
    """
    wanted, opened = request.settings.transport, list[Listener]()
    for name, row in TRANSPORTS.items():
        if not row.always and wanted not in (AUTO, name):
            continue
        try:
            noted = replace(request, connected=partial(request.handler.runtime.transports.add, name))
            listener: Listener | None = load(row.listen)(noted)
        except BaseException:
            Listeners(opened).close()
            raise
        if listener is not None:
            opened.append(listener)
    return Listeners(opened)


class GrpcListener:
    """Serves the streams of workers on the gRPC server of the process, which closes them."""

    def __init__(self, request: ListenRequest) -> None:
        """Add the service to the server.

        Args:
            request: The parameters with which to listen.
        """
        exchange = ExchangeServicer(
            request.handler, request.connection_lost, request.settings.admitted, request.connected
        )
        assert request.grpc_server is not None
        request.grpc_server.add_generic_rpc_handlers((exchange.rpc_handler(),))

    def add_to(self, address: pb.ShardAddress) -> None:
        """Write nothing: the streams are served at the address of the process."""

    def close(self) -> None:
        """Do nothing: the streams end with the server."""


def listen_grpc(request: ListenRequest) -> Listener:
    """Serve streams on the gRPC server of the process."""
    return GrpcListener(request)


def listen_shared_memory(request: ListenRequest) -> Listener | None:
    """Listen on a Unix socket; return None if this system has no shared memory and `--transport` is `auto`.

    Raises:
        Unsupported: The settings require shared memory, and this system lacks it or its folder cannot be used.
    """
    settings = request.settings
    try:
        if memfd.available():
            return SharedMemoryListener(
                request.handler, request.connection_lost, settings.doorbell_dir, request.connected
            )
        reason = "no memfd_create"
    except OSError as error:
        if settings.doorbell_dir is not None:
            raise Unsupported(
                f"--doorbell-dir must be a folder in which this server may create a socket; received "
                f"{settings.doorbell_dir}: {error.strerror}. Make it, and give it to user {os.geteuid()}; or use "
                "--transport grpc."
            ) from error
        reason = reason_of(error)
    if settings.transport != AUTO:
        raise Unsupported(f"--transport shm needs Linux with memfd and Unix sockets; here: {reason}. Use auto or grpc.")
    return None
