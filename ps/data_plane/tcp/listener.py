"""The TCP transport's listener: accepts connections on the shard's own event loop, and closes stale ones.

A connection is stale if it does not identify itself in time, if the session of its worker has ended, or if the other
side neither sends nor receives the rest of a frame.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import socket

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.credentials import adopted, check_secured
from downpour.protos.errors import AccessDenied, UnknownWorker, Unsupported
from downpour.protos.logs import log
from downpour.protos.protocol import PROTOCOL
from downpour.protos.tcp.sockets import server_tls, set_options, split_address
from downpour.protos.transports import AUTO
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.listeners import Listener, ListenRequest
from downpour.ps.data_plane.tcp.connection import TcpConnection
from downpour.ps.data_plane.tcp.large_payloads import LargePayloads

ATTACH_TIMEOUT_S = 10.0  # within which a connection must identify itself
STALL_TIMEOUT_S = 30.0  # within which a byte of a frame that has begun must be sent or received
MAX_UNATTACHED = 64  # connections that have not identified themselves; beyond it, the oldest is closed
CHECK_EVERY_S = 1.0
BACKLOG = 1024
PAUSE_S = 0.5  # after the descriptors of this process are used up
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TcpListener:
    """Serves workers over TCP connections.

    Attributes:
        handler: The handler of the requests.
        large: The limit of large payloads, and their memory.
        port: The port on which it listens.
    """

    def __init__(self, request: ListenRequest) -> None:
        """Begin to listen, on the running event loop.

        Args:
            request: The parameters with which to listen.

        Raises:
            OSError: The address cannot be bound.
        """
        settings = request.settings
        self.handler, self._connection_lost = request.handler, request.connection_lost
        self._connected = request.connected
        self._runtime, self._advertise = request.handler.runtime, settings.tcp_advertise
        self._loop = asyncio.get_running_loop()
        self.large = LargePayloads(settings.admitted, self._loop.call_soon)
        self._token = adopted().token.encode()
        self._tls = server_tls(adopted(), settings.tls_dir)
        self._connections: dict[int, TcpConnection] = {}
        self._unattached: dict[TcpConnection, float] = {}  # with the time of their acceptance
        self._moved: dict[TcpConnection, tuple[int, float]] = {}  # what each had moved, and since when
        self._listener = _bound(settings)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._loop.add_reader(self._listener, self._accept)
        self._timer = self._loop.call_later(CHECK_EVERY_S, self._check)

    def add_to(self, address: pb.ShardAddress) -> None:
        """Write the address of the listener to the address of the shard."""
        host, _, _ = address.address.rpartition(":")
        address.tcp = self._advertise or f"{host}:{self.port}"

    def close(self) -> None:
        """Close the socket and all connections."""
        self._timer.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for connection in [*self._connections.values(), *self._unattached]:
            connection.close()

    # ------------------------------------------------------------------ what connections call

    def check_token(self, request: pb.AttachRequest) -> None:
        """Raise AccessDenied unless the first frame of a connection carries the token of the server, if it has one."""
        if self._token and not hmac.compare_digest(request.token.encode(), self._token):
            raise AccessDenied("its first frame must carry the server's token; it carried none, or another.")

    def worker_of(self, request: pb.AttachRequest) -> int:
        """Return the number of the worker that sends the first frame of a connection.

        Raises:
            Unsupported: The other side speaks another protocol.
            UnknownWorker: No worker has the session.
        """
        if request.protocol != PROTOCOL:
            raise Unsupported(
                f"both sides must speak protocol {PROTOCOL}; received {request.protocol}. Install the same version."
            )
        return self._member_of(request.session).worker

    def attached(self, connection: TcpConnection) -> None:
        """Take a connection for that of its session, in place of an earlier one."""
        before = self._connections.pop(connection.session, None)
        if before is not None:  # the worker has abandoned it, and will repeat a request that is still unread there
            before.close()
        self._connections[connection.session] = connection
        self._unattached.pop(connection, None)
        self._connected()

    def closed(self, connection: TcpConnection) -> None:
        """Forget a connection that has been closed."""
        self._unattached.pop(connection, None)
        self._moved.pop(connection, None)
        if self._connections.get(connection.session) is connection:
            del self._connections[connection.session]
            self._connection_lost(connection.worker)

    def _member_of(self, session: int) -> pb.Member:
        """Return the worker that has a session, in a time that does not depend on the session.

        Raises:
            UnknownWorker: No worker of the current view has it.
        """
        wanted, found = session.to_bytes(8, "little"), 0
        for known in self._runtime.members:
            found |= known * hmac.compare_digest(known.to_bytes(8, "little"), wanted)
        return self._runtime.member_of(found)

    # ------------------------------------------------------------------ what the event loop calls

    def _accept(self) -> None:
        """Accept one connection; stop for a while where the descriptors of this process are used up."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _USED_UP:
                raise
            self._loop.remove_reader(self._listener)
            self._loop.call_later(PAUSE_S, self._resume_accepting)
            return
        try:
            accepted.setblocking(False)
            set_options(accepted)
            if self._tls is not None:
                accepted = self._tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            connection = TcpConnection(accepted, self)
        except OSError:  # the other side has gone already
            accepted.close()
            return
        if len(self._unattached) >= MAX_UNATTACHED:
            oldest = next(iter(self._unattached))
            log(f"the TCP connection from {oldest.peer} is closed: {MAX_UNATTACHED} others have not identified either")
            oldest.close()
        self._unattached[connection] = self._loop.time()

    def _resume_accepting(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _check(self) -> None:
        """Close the stale connections."""
        self._timer = self._loop.call_later(CHECK_EVERY_S, self._check)
        now = self._loop.time()
        for connection, accepted_s in list(self._unattached.items()):
            if now > accepted_s + ATTACH_TIMEOUT_S:
                log(f"the TCP connection from {connection.peer} is closed: no first frame in {ATTACH_TIMEOUT_S:g} s")
                connection.close()
        for session, connection in list(self._connections.items()):
            moved, since_s = self._moved.get(connection, (-1, now))
            if moved != connection.moved or not connection.within_frame:
                self._moved[connection] = (connection.moved, now)
            elif now > since_s + STALL_TIMEOUT_S:
                log(f"the TCP connection from {connection.peer} is closed: no byte of a frame in {STALL_TIMEOUT_S:g} s")
                connection.close()
            try:
                self._runtime.member_of(session)
            except UnknownWorker as error:
                connection.refuse(error)


def listen_tcp(request: ListenRequest) -> Listener | None:
    """Listen for TCP connections; return None if no port is free and `--transport` is `auto`.

    Raises:
        NotSecured: The address can be reached from other machines, without TLS and a token.
        Unsupported: The settings require TCP, or a port, which cannot be bound.
    """
    settings = request.settings
    check_secured(settings.bind, adopted(), settings.insecure)
    try:
        return TcpListener(request)
    except OSError as error:
        if settings.transport == AUTO and not settings.tcp_port:
            return None
        raise Unsupported(
            f"--tcp-port must be a free port at the host of --bind; received {settings.tcp_port} at {settings.bind}: "
            f"{error.strerror}. Choose another port, or use --tcp-port 0 or --transport grpc."
        ) from error


def _bound(settings: ServerSettings) -> socket.socket:
    host, _ = split_address(settings.bind)
    place = socket.getaddrinfo(host, settings.tcp_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(place[4], family=place[0], backlog=BACKLOG, dualstack_ipv6=both)
