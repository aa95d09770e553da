"""The shared-memory transport: a Unix socket that carries small headers, served by the shard's own event loop.

A worker attaches with its session and the descriptor of its push region, and receives the descriptor of the arena in
which the weights are committed. From then on a message is a header: the payload of a push lies in the region, and a
reply says where in the arena the weights lie. These do not change until the worker's next request, or until its session
ends.

The name of the socket (`protos.shared_memory.doorbell_socket`) is not secret: a client must run as the same user and
know a session. What a worker writes to its region after it has sent a push can change its own gradient, between the
check that it is finite and the update, and nothing else: the sizes are fixed by seals.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import AccessDenied, DownpourError, InvalidRequest, Unsupported
from downpour.protos.protocol import PROTOCOL
from downpour.protos.shared_memory import doorbell_socket, memfd
from downpour.protos.status_codes import status_of
from downpour.ps.data_plane.request_handler import WAITING_EVERY_S, PendingReply, RequestHandler

HEADER_LIMIT_BYTES = 8 << 10
ATTACH_TIMEOUT_S = 10.0
MAX_UNATTACHED = 64  # connections that have not identified themselves; others wait in the backlog of the socket
PAUSE_S = 0.5  # after the descriptors of this process are used up
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
Message = TypeVar("Message", pb.Request, pb.AttachRequest)


class _Connection:
    """The connection of one worker."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.timer: asyncio.TimerHandle | None = None
        self.session = self.worker = 0
        self.region: mmap.mmap | None = None
        self.reply: PendingReply | None = None
        self.awaited: asyncio.Future[Any] | None = None


class SharedMemoryListener:
    """Serves the workers of this host.

    Attributes:
        name: The name of the socket.
    """

    def __init__(
        self,
        handler: RequestHandler,
        connection_lost: Callable[[int], None] = lambda worker: None,
        folder: str | None = None,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to listen, on the running event loop; the shard keeps its weights in shared memory from here on.

        Args:
            handler: The handler of the requests.
            connection_lost: A callback that receives the number of a worker whose connection has ended.
            folder: The folder of the socket; None for a socket with an abstract name.
            connected: A callback for each connection of a worker.

        Raises:
            OSError: This system has no such socket, or the folder cannot be used.
        """
        self._handler, self._runtime, self._connection_lost = handler, handler.runtime, connection_lost
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._connections: dict[int, _Connection] = {}
        self._unattached: set[_Connection] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._listener, self.name = doorbell_socket.listen(folder)
        self._loop.add_reader(self._listener, self._accept)
        self._runtime.builder.share_weights()

    def add_to(self, address: pb.ShardAddress) -> None:
        """Write the name of the socket to the address of the shard."""
        address.doorbell = self.name

    def close(self) -> None:
        """Close the socket and all connections."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        doorbell_socket.close(self._listener, self.name)
        for connection in [*self._connections.values(), *self._unattached]:
            self._close_connection(connection)

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        """Accept one connection of this user; pause if descriptors are exhausted or too many have not identified."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _USED_UP:
                raise
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(PAUSE_S, self._resume_accepting)
            return
        accepted.setblocking(False)
        connection = _Connection(accepted)
        try:
            _check_user(accepted)
        except AccessDenied as error:
            self._refuse(connection, error)
            return
        self._unattached.add(connection)
        connection.timer = self._loop.call_later(ATTACH_TIMEOUT_S, self._close_connection, connection)
        self._loop.add_reader(accepted, self._read, connection)
        if len(self._unattached) >= MAX_UNATTACHED:
            self._loop.remove_reader(self._listener)

    def _resume_accepting(self) -> None:
        self._pause = None
        if self._listener.fileno() >= 0 and len(self._unattached) < MAX_UNATTACHED:
            self._loop.add_reader(self._listener, self._accept)

    def _identified(self, connection: _Connection) -> None:
        """Count a connection no longer as one that has not identified itself."""
        if connection in self._unattached:
            self._unattached.remove(connection)
            if self._pause is None and len(self._unattached) == MAX_UNATTACHED - 1:
                self._resume_accepting()

    def _read(self, connection: _Connection) -> None:
        """Process one message; an error in it is sent to the worker."""
        try:
            if connection.region is None:
                self._open(connection)
                return
            message = connection.socket.recv(HEADER_LIMIT_BYTES)
            if message:
                self._serve(connection, message)
            else:
                self._close_connection(connection)
        except BlockingIOError:
            return
        except OSError:
            self._close_connection(connection)
        except Exception as error:
            self._refuse(connection, error)

    def _open(self, connection: _Connection) -> None:
        message, descriptors, *_ = socket.recv_fds(connection.socket, HEADER_LIMIT_BYTES, 1)
        try:
            if not message:
                self._close_connection(connection)
                return
            request = _parsed(pb.AttachRequest, message)
            if request.protocol != PROTOCOL:
                raise Unsupported(
                    f"both sides must speak protocol {PROTOCOL}; received {request.protocol}. Install the same version."
                )
            worker = self._runtime.member_of(request.session).worker
            if len(descriptors) != 1 or self._runtime.builder.arena is None:
                raise InvalidRequest(
                    f"a worker must send one descriptor to a shard that knows its layout; received {len(descriptors)}."
                )
            region = memfd.map_readable(descriptors[0], request.region_bytes, self._runtime.region_bytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        before = self._connections.pop(request.session, None)
        if before is not None:  # the worker has abandoned it, and has resent any request that is still unread there
            self._close_connection(before)
        self._identified(connection)
        connection.session, connection.worker, connection.region = request.session, worker, region
        self._connections[connection.session] = connection
        self._connected()
        self._set_timer(connection, None)
        welcome = pb.Reply(payload_bytes=4 * self._runtime.size)
        socket.send_fds(connection.socket, [welcome.SerializeToString()], [self._runtime.builder.arena.descriptor])

    def _close_connection(self, connection: _Connection) -> None:
        if connection.socket.fileno() < 0:
            return
        self._set_timer(connection, None)
        self._loop.remove_reader(connection.socket)
        connection.socket.close()
        self._identified(connection)
        if connection.reply is not None:
            connection.reply.abandon()
        connection.region = connection.reply = connection.awaited = None
        if self._connections.get(connection.session) is connection:
            del self._connections[connection.session]
            self._connection_lost(connection.worker)

    def _set_timer(self, connection: _Connection, timer: asyncio.TimerHandle | None) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
        connection.timer = timer

    # ------------------------------------------------------------------ requests

    def _serve(self, connection: _Connection, message: bytes) -> None:
        """Carry out a request. One that is held back is served from the beginning once it is released."""
        header = _parsed(pb.Request, message)
        if connection.awaited is not None:
            raise InvalidRequest("a request must wait for the reply to the one before; received two.")
        assert connection.region is not None
        limit, room = self._runtime.limit_bytes(header), len(connection.region)
        if header.payload_bytes > limit or header.payload_bytes > room:
            self._runtime.member_of(connection.session)  # an ended session may belong to a job with another layout
            limit = min(limit, room)
            raise InvalidRequest(
                f"a payload must be at most {limit:,} bytes here; received a header that announces "
                f"{header.payload_bytes:,}. Check that both sides have the same model and shards."
            )
        self._runtime.session_buffers.release(connection.session, keep_last=header.retain_previous)
        held = self._runtime.held(header)
        if held is not None:
            self._wait_for(connection, held, lambda: self._serve(connection, message))
            return
        payload = memoryview(connection.region)[: header.payload_bytes]
        reply = self._handler.handle(self._runtime.member_of(connection.session), header, payload, owned=False)
        if reply.ready is None:
            self._reply(connection, reply)
            return
        connection.reply = reply
        self._wait_for(connection, reply.ready, lambda: self._reply(connection, reply))

    def _wait_for(self, connection: _Connection, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        """Call `then` after an event, and send keep-alive messages to the worker at intervals."""
        connection.awaited = event
        event.add_done_callback(lambda _: self._resume(connection, event, then))
        self._set_timer(connection, self._loop.call_later(WAITING_EVERY_S, self._still_waiting, connection))

    def _resume(self, connection: _Connection, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        if connection.awaited is not event:
            return
        connection.awaited = None
        self._set_timer(connection, None)
        try:
            self._runtime.member_of(connection.session)
            then()
        except Exception as error:
            self._refuse(connection, error)

    def _still_waiting(self, connection: _Connection) -> None:
        self._set_timer(connection, self._loop.call_later(WAITING_EVERY_S, self._still_waiting, connection))
        self._send(connection, pb.Reply(waiting=True))

    def _reply(self, connection: _Connection, pending: PendingReply) -> None:
        connection.reply = None
        reply, buffer = pending.finish()
        if buffer is not None:
            reply.payload_bytes, reply.offset = buffer.array.nbytes, buffer.offset
            self._runtime.session_buffers.add(connection.session, buffer)
        self._send(connection, reply)

    def _refuse(self, connection: _Connection, error: Exception) -> None:
        """Send the error to the worker and close the connection, as gRPC aborts a stream."""
        if not isinstance(error, DownpourError):
            self._loop.call_exception_handler({"message": "a request failed", "exception": error})
        code, reason = status_of(error)
        self._send(connection, pb.Reply(status=code.value[0], reason=reason[: HEADER_LIMIT_BYTES // 4]))
        self._close_connection(connection)

    def _send(self, connection: _Connection, reply: pb.Reply) -> None:
        try:
            connection.socket.send(reply.SerializeToString())
        except OSError:  # the worker has exited, or it sends and never reads
            self._close_connection(connection)


def _parsed(kind: type[Message], message: bytes) -> Message:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(
            f"a message must be of the type {kind.__name__}; received {len(message)} bytes that are not ({error}). "
            "Check that both sides run the same version."
        ) from error


def _check_user(connection: socket.socket) -> None:
    """Raise AccessDenied unless the peer runs as the same user."""
    user = doorbell_socket.user_of(connection)
    if user != os.geteuid():
        raise AccessDenied(
            f"a worker must run as the server's user to use shared memory, {os.geteuid()}; received user {user}. "
            "Use --transport grpc."
        )
