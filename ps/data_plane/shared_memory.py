"""The shared-memory transport: a Unix socket of small headers, served by the shard's own event loop.

A worker knocks with its session and the descriptor of its push region, and is sent the descriptor of the arena in which
the weights are committed. From then on a message is a header: a push's payload lies in the region, a reply says where
in the arena the weights lie. Those stay as they are until the worker's next request, or until its session ends.

The socket is found by its name (`protos.doorbell_socket`), which protects nothing: a client must run as the same user
and know a session. What a worker writes to its region after it has sent a push can spoil its
own gradient, between the check that it is finite and the update, and nothing else: sizes are fixed by seals.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from downpour.protos import doorbell_socket as bell
from downpour.protos import memfd
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import PROTOCOL
from downpour.protos.errors import AccessDenied, DownpourError, InvalidRequest, Unsupported, status_of
from downpour.ps.core.buffers import Buffer
from downpour.ps.data_plane.request_handler import WAITING_EVERY_S, Answer, begin
from downpour.ps.data_plane.shard_runtime import ShardRuntime

HEADER_LIMIT_BYTES = 8 << 10
KNOCK_TIMEOUT_S = 10.0
Message = TypeVar("Message", pb.Request, pb.AttachRequest)
_CREDENTIALS = struct.Struct("3i")


class _Line:
    """One worker's connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.timer: asyncio.TimerHandle | None = None
        self.session = self.worker = 0
        self.region: mmap.mmap | None = None
        self.answer: Answer | None = None
        self.awaits: asyncio.Future[Any] | None = None


class SharedMemoryListener:
    """Answers the workers of this host.

    Attributes:
        name: Of its socket.
    """

    def __init__(
        self, host: ShardRuntime, broken: Callable[[int], None] = lambda worker: None, folder: str | None = None
    ) -> None:
        """Listens, on the running event loop.

        Args:
            host: The shard; keeps its weights in shared memory from here on.
            broken: Told of a worker whose connection ended.
            folder: Of the socket; None: it has an abstract name.

        Raises:
            OSError: This system cannot.
        """
        self._host, self._broken = host, broken
        self._loop = asyncio.get_running_loop()
        self._lines: dict[int, _Line] = {}
        self._held: dict[int, list[Buffer]] = {}
        self._listener, self.name = bell.listen(folder)
        self._loop.add_reader(self._listener, self._accept)
        host.shares, host.left = True, self._let_go

    def close(self) -> None:
        """Hangs up on everybody."""
        self._loop.remove_reader(self._listener)
        bell.close(self._listener, self.name)
        for line in list(self._lines.values()):
            self._hang_up(line)

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        connection.setblocking(False)
        line = _Line(connection)
        line.timer = self._loop.call_later(KNOCK_TIMEOUT_S, self._hang_up, line)
        self._loop.add_reader(connection, self._read, line)

    def _read(self, line: _Line) -> None:
        """Takes one message; what goes wrong with it, the worker is told."""
        try:
            if line.region is None:
                self._open(line)
                return
            message = line.socket.recv(HEADER_LIMIT_BYTES)
            if message:
                self._take(line, message)
            else:
                self._hang_up(line)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up(line)
        except Exception as error:
            self._refuse(line, error)

    def _open(self, line: _Line) -> None:
        message, descriptors, *_ = socket.recv_fds(line.socket, HEADER_LIMIT_BYTES, 1)
        try:
            if not message:
                self._hang_up(line)
                return
            knock = _parsed(pb.AttachRequest, message)
            if knock.protocol != PROTOCOL:
                raise Unsupported(f"both sides must speak protocol {PROTOCOL}; received {knock.protocol}.")
            _check_user(line.socket)
            worker = self._host.member_of(knock.session).worker
            if len(descriptors) != 1 or self._host.arena is None:
                raise InvalidRequest(
                    f"a worker must send one descriptor to a shard that knows its layout; received {len(descriptors)}."
                )
            region = memfd.map_readable(descriptors[0], knock.region_bytes, self._host.region_bytes)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        before = self._lines.pop(knock.session, None)
        if before is not None:  # the worker has given it up; what it may still hold unread has been sent again
            self._hang_up(before)
        line.session, line.worker, line.region = knock.session, worker, region
        self._lines[line.session] = line
        self._host.transports.add("shm")
        self._set_timer(line, None)
        welcome = pb.Reply(payload_bytes=4 * self._host.size)
        socket.send_fds(line.socket, [welcome.SerializeToString()], [self._host.arena.descriptor])

    def _hang_up(self, line: _Line) -> None:
        if line.socket.fileno() < 0:
            return
        self._set_timer(line, None)
        self._loop.remove_reader(line.socket)
        line.socket.close()
        if line.answer is not None:
            line.answer.abandon()
        line.region = line.answer = line.awaits = None
        if self._lines.get(line.session) is line:
            del self._lines[line.session]
            self._broken(line.worker)

    def _set_timer(self, line: _Line, timer: asyncio.TimerHandle | None) -> None:
        if line.timer is not None:
            line.timer.cancel()
        line.timer = timer

    # ------------------------------------------------------------------ requests

    def _take(self, line: _Line, message: bytes) -> None:
        header = _parsed(pb.Request, message)
        if line.awaits is not None:
            raise InvalidRequest("a request must wait for the reply to the one before; received two.")
        assert line.region is not None
        limit, room = self._host.limit_bytes(header), len(line.region)
        if header.payload_bytes > limit or header.payload_bytes > room:
            self._host.member_of(line.session)  # one that has ended may be of a job with another layout
            limit = min(limit, room)
            raise InvalidRequest(
                f"a payload must be at most {limit:,} bytes here; received a header that announces "
                f"{header.payload_bytes:,}. Check that both sides have the same model and shards."
            )
        self._let_go(line.session, keep=header.retain_previous)
        self._carry_out(line, header)

    def _carry_out(self, line: _Line, header: pb.Request) -> None:
        held = self._host.held(header)
        if held is not None:
            self._await(line, held, lambda: self._carry_out(line, header))
            return
        assert line.region is not None
        payload = memoryview(line.region)[: header.payload_bytes]
        answer = begin(self._host, self._host.member_of(line.session), header, payload, owned=False)
        if answer.gate is None:
            self._reply(line, answer)
            return
        line.answer = answer
        self._await(line, answer.gate, lambda: self._reply(line, answer))

    def _await(self, line: _Line, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        """Goes on with a request when something has happened; the worker hears meanwhile that this shard lives."""
        line.awaits = event
        event.add_done_callback(lambda _: self._go_on(line, event, then))
        self._set_timer(line, self._loop.call_later(WAITING_EVERY_S, self._still_waiting, line))

    def _go_on(self, line: _Line, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        if line.awaits is not event:
            return
        line.awaits = None
        self._set_timer(line, None)
        try:
            self._host.member_of(line.session)
            then()
        except Exception as error:
            self._refuse(line, error)

    def _still_waiting(self, line: _Line) -> None:
        self._set_timer(line, self._loop.call_later(WAITING_EVERY_S, self._still_waiting, line))
        self._send(line, pb.Reply(waiting=True))

    def _reply(self, line: _Line, answer: Answer) -> None:
        line.answer = None
        reply, buffer = answer.finish()
        if buffer is not None:
            reply.payload_bytes, reply.offset = buffer.array.nbytes, buffer.offset
            self._held.setdefault(line.session, []).append(buffer)
        self._send(line, reply)

    def _refuse(self, line: _Line, error: Exception) -> None:
        """Tells the worker why, and hangs up as a stream that is aborted does."""
        if not isinstance(error, DownpourError):
            self._loop.call_exception_handler({"message": "a request failed", "exception": error})
        code, reason = status_of(error)
        self._send(line, pb.Reply(status=code.value[0], reason=reason[: HEADER_LIMIT_BYTES // 4]))
        self._hang_up(line)

    def _send(self, line: _Line, reply: pb.Reply) -> None:
        try:
            line.socket.send(reply.SerializeToString())
        except OSError:  # gone, or it sends and never reads
            self._hang_up(line)

    def _let_go(self, session: int, keep: bool = False) -> None:
        """Releases the weights that a session was sent; all but the last if it wants to `keep` those."""
        held = self._held.pop(session, None)
        if not held:
            return
        if keep:
            self._held[session] = [held.pop()]
        for buffer in held:
            assert self._host.shard is not None
            self._host.shard.release(buffer)


def _parsed(kind: type[Message], message: bytes) -> Message:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(
            f"a message must be of the type {kind.__name__}; received {len(message)} bytes that are not ({error}). "
            "Check that both sides run the same version."
        ) from error


def _check_user(connection: socket.socket) -> None:
    """Raises AccessDenied unless the peer runs as the same user."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(packed)
    if user != os.geteuid():
        raise AccessDenied(
            f"shared memory is for workers of the server's own user, {os.geteuid()}; received one of user {user}. "
            "Use --transport grpc."
        )
