"""The client side of simulated gRPC: the parts that channels for threads and for event loops have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import grpc

from downpour.bench.world.system.network import Connection, VirtualCall, VirtualNetwork
from downpour.bench.world.system.process import VirtualProcess

Serializer = Callable[[Any], bytes] | None


class ClientEnd(Protocol):
    """The client's end of a call."""

    def message(self, data: bytes) -> None:
        """Receive one serialised message of the server."""

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Receive the status of the call."""


class VirtualRpcError(grpc.RpcError):
    """The status of a call that failed."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        """Build an error with the status of a call."""
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """Return the gRPC status code of the call."""
        return self._code

    def details(self) -> str:
        """Return the text of the status."""
        return self._details


class ClientChannel:
    """A client's channel to one address, with one connection, which is opened again after it broke."""

    def __init__(self, network: VirtualNetwork, process: VirtualProcess, address: str) -> None:
        """Create a channel without a connection.

        Args:
            network: The network.
            process: The process of the client.
            address: `HOST:PORT` of the server.
        """
        self.network, self.process, self.address = network, process, address
        self._connection: Connection | None = None

    def connection(self) -> Connection | None:
        """Return the connection, which is opened if there is none; None if no server listens at the address."""
        if self._connection is None or self._connection.broken:
            self._connection = self.network.connect(self.process, self.address)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection, which ends its calls."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.reset(grpc.StatusCode.CANCELLED, "Channel closed!")


class _ServerEndOf:
    """The server's end of a call, which does not exist before the call has arrived there."""

    def __init__(self, call: VirtualCall) -> None:
        self._call = call

    def message(self, data: bytes) -> None:
        if self._call.server_end is not None:
            self._call.server_end.message(data)

    def half_close(self) -> None:
        if self._call.server_end is not None:
            self._call.server_end.half_close()


def server_end(call: VirtualCall) -> _ServerEndOf:
    """Return the server's end of a call, to which messages can be sent before the call has arrived."""
    return _ServerEndOf(call)


def unsupported(*_: Any, **__: Any) -> Any:
    """Raise an error in place of a call that no simulated client makes.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("a simulated client makes only the kinds of calls that its channel implements")
