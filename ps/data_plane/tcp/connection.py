"""One worker's connection over TCP: a state machine that the shard's event loop drives, without a task or a thread.

A connection receives one request at a time, passes it to the request handler, and sends the reply. Its state `_next` is
the function that receives the next bytes: the TLS handshake, the first frame, a header, a payload, or nothing while a
reply is due. Payloads are received into memory that is reused, and weights are sent from where they are stored.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, InvalidRequest, TooLarge
from downpour.protos.frame import INLINE_BYTES
from downpour.protos.logs import log, reason_of
from downpour.protos.status_codes import status_of
from downpour.protos.tcp.sockets import WOULD_BLOCK
from downpour.protos.tcp.stream_frame import FIRST_LIMIT_BYTES, MAGIC, ConnectionEnded, HeaderReceiver, encoded
from downpour.ps.core.buffers import Buffer as WeightBuffer
from downpour.ps.data_plane.request_handler import WAITING_EVERY_S, PendingReply, RequestHandler
from downpour.ps.data_plane.tcp.event_loop_socket import EventLoopSocket
from downpour.ps.data_plane.tcp.large_payloads import LargePayloads, PayloadMemory

TURN_BYTES = 4 << 20  # received from one connection before the others have their turn
REASON_LIMIT = 4096  # characters of a refusal
_NOTHING = memoryview(bytearray())


class Host(Protocol):
    """What a connection needs of its listener.

    Attributes:
        handler: The handler of the requests.
        large: The limit of large payloads, and their memory.
    """

    handler: RequestHandler
    large: LargePayloads

    def check_token(self, request: pb.AttachRequest) -> None:
        """Raise AccessDenied unless the first frame of a connection carries the token of the server."""

    def worker_of(self, request: pb.AttachRequest) -> int:
        """Return the number of the worker that sends the first frame of a connection, or raise DownpourError."""

    def attached(self, connection: TcpConnection) -> None:
        """Take a connection for that of its session, in place of an earlier one."""

    def closed(self, connection: TcpConnection) -> None:
        """Forget a connection that has been closed."""


class TcpConnection:
    """The connection of one worker.

    Attributes:
        peer: The address of the other side, for messages.
        identified: Whether the other side has presented the token of the server.
        session: The session of the worker; 0 until it has attached.
        worker: The number of the worker.
    """

    def __init__(self, accepted: socket.socket, host: Host) -> None:
        """Serve an accepted connection that does not block, on the running event loop.

        Args:
            accepted: The connection; with TLS, before its handshake.
            host: The listener.
        """
        self._host = host
        self._runtime = host.handler.runtime
        self._loop = asyncio.get_running_loop()
        self._socket = EventLoopSocket(accepted, self._readable, self._lost)
        self._receive_into = self._socket.receive_into
        self.peer = self._socket.peer
        self.identified, self.session, self.worker = False, 0, 0
        self._first: HeaderReceiver[pb.AttachRequest] = HeaderReceiver(pb.AttachRequest, MAGIC, FIRST_LIMIT_BYTES)
        self._headers: HeaderReceiver[pb.Request] = HeaderReceiver(pb.Request)
        self._next = self._shake_hands if self._socket.is_tls else self._receive_first
        self._turn = self._received = 0
        self._header = pb.Request()
        self._memory = PayloadMemory(host.large)
        self._payload, self._filled = _NOTHING, 0
        self._weights: WeightBuffer | None = None  # that the reply is sent from
        self._reply: PendingReply | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._socket.read(True)

    @property
    def is_open(self) -> bool:
        """Whether the connection has not been closed."""
        return self._socket.is_open

    @property
    def moved(self) -> int:
        """A number that grows with every receipt and every transmission of bytes."""
        return self._received + self._socket.transmissions

    @property
    def within_frame(self) -> bool:
        """Whether the other side must send or receive the rest of a frame."""
        receiving = self._next == self._receive_payload or self._first.begun or self._headers.begun
        return self._socket.sending or (receiving and self._socket.reading)

    def close(self) -> None:
        """Close the connection and release what it holds; a push that has not arrived completely is discarded."""
        if not self.is_open:
            return
        self._set_timer(None)
        self._awaited = None
        self._socket.close()
        self._host.large.leave(self)
        self._give_memory_back()
        self._release_weights()
        if self._reply is not None:
            self._reply.abandon()
            self._reply = None
        self._host.closed(self)

    def refuse(self, error: Exception) -> None:
        """Send an error to a worker that has identified itself, and close the connection."""
        if not isinstance(error, DownpourError):
            self._loop.call_exception_handler({"message": "a request failed", "exception": error})
        if not self.identified or isinstance(error, InvalidRequest | TooLarge):
            log(f"the TCP connection from {self.peer} is closed: {error}")
        if self.identified and not self._socket.sending:
            code, reason = status_of(error)
            try:
                self._socket.send_once(encoded(pb.Reply(status=code.value[0], reason=reason[:REASON_LIMIT])))
            except OSError:
                pass  # the worker finds the connection closed
        self.close()

    # ------------------------------------------------------------------ receiving

    def _readable(self) -> bool:
        """Receive what has arrived, up to the limit of one turn; return whether more may have arrived."""
        self._turn = TURN_BYTES
        try:
            while self._turn > 0 and self._socket.reading:
                self._next()
        except WOULD_BLOCK:
            return False
        except OSError as error:
            self._lost(error)
            return False
        except Exception as error:
            self.refuse(error)
            return False
        return True

    def _lost(self, error: OSError) -> None:
        if self.within_frame or isinstance(error, ssl.SSLError):
            log(f"the TCP connection from {self.peer} has ended within a frame: {reason_of(error)}")
        self.close()

    def _shake_hands(self) -> None:
        self._socket.shake_hands()
        self._next = self._receive_first

    def _receive_first(self) -> None:
        request = self._first.receive(self._receive_into)
        if request is None:
            return
        self._first.take_rest(_NOTHING)
        self._host.check_token(request)
        self.identified = True
        self.worker, self.session = self._host.worker_of(request), request.session
        self._host.attached(self)
        self._socket.send([encoded(pb.Reply())], self._sent)

    def _receive_too_much(self) -> None:
        """Receive while a reply is due, when only the end of the connection may come."""
        if self._receive_into(memoryview(bytearray(1))):
            raise InvalidRequest("a request must wait for the reply to the one before; received two.")
        raise ConnectionEnded("the other side has closed the connection")

    def _receive_payload(self) -> None:
        count = self._receive_into(self._payload[self._filled :])
        if not count:
            raise ConnectionEnded("the other side has closed the connection")
        self._filled += count
        self._turn -= count
        self._received += 1
        if self._filled == len(self._payload):
            self._next = self._receive_too_much
            self._serve()

    # ------------------------------------------------------------------ one request

    def _begin(self, arrived: bool = False) -> None:
        """Receive a header, check it, wait until the payload may be received, and provide memory for it.

        Args:
            arrived: Whether the header has been received already, and the request has waited since then.
        """
        if not arrived:
            received = self._headers.receive(self._receive_into)
            self._received += 1
            if received is None:
                return
            self._header, self._next = received, self._receive_too_much
        header, runtime = self._header, self._runtime
        limit = runtime.limit_bytes(header)
        if header.payload_bytes > limit:
            runtime.member_of(self.session)  # an ended session may belong to a job with another layout
            raise TooLarge(
                f"a payload must be at most {limit:,} bytes here; received a header that announces "
                f"{header.payload_bytes:,}. Check that both sides have the same model and shards."
            )
        held = runtime.held(header)
        if held is not None:
            self._socket.read(False)
            self._wait_for(held, self._begin_again)
            return
        reply_bytes = 0 if header.no_pull else 4 * runtime.size
        if max(header.payload_bytes, reply_bytes) > INLINE_BYTES and not self._admit(self._begin_again):
            self._socket.read(False)
            return
        self._set_timer(None)
        self._payload = self._memory.take(header.payload_bytes)
        self._filled = self._headers.take_rest(self._payload)
        self._socket.read(True)
        if self._filled == len(self._payload):
            self._serve()
        else:
            self._next = self._receive_payload

    def _begin_again(self) -> None:
        self._begin(arrived=True)

    def _serve(self) -> None:
        """Carry out a request that has arrived entirely."""
        self._turn = 0
        held = self._runtime.held(self._header)
        if held is not None:  # a cut has begun in the meantime, whose pushes may have to be admitted
            self._host.large.leave(self)
            self._wait_for(held, self._serve)
            return
        member = self._runtime.member_of(self.session)
        reply = self._host.handler.handle(member, self._header, self._payload, owned=False)
        self._give_memory_back()
        self._reply = reply
        if reply.ready is None:
            self._send_reply()
            return
        self._host.large.leave(self)
        self._wait_for(reply.ready, self._send_reply)

    def _send_reply(self) -> None:
        large = not self._header.no_pull and 4 * self._runtime.size > INLINE_BYTES
        if large and not self._admit(self._send_reply):
            return
        self._set_timer(None)
        pending, self._reply = self._reply, None
        assert pending is not None
        reply, self._weights = pending.finish()
        if self._weights is None:
            self._socket.send([encoded(reply)], self._sent)
            return
        weights = self._weights.array.data.cast("B")
        reply.payload_bytes = len(weights)
        self._socket.send([encoded(reply), weights], self._sent)

    def _admit(self, then: Callable[[], None]) -> bool:
        """Return whether the request is admitted; if not, `then` is called once it is."""
        admitted = self._host.large.admit(self, lambda: self._attempt(then))
        if not admitted and self._timer is None:
            self._set_timer(self._loop.call_later(WAITING_EVERY_S, self._still_waiting))
        return admitted

    def _wait_for(self, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        """Call `then` after an event, and send keep-alive messages to the worker at intervals."""
        self._awaited = event
        event.add_done_callback(lambda _: self._resume(event, then))
        self._set_timer(self._loop.call_later(WAITING_EVERY_S, self._still_waiting))

    def _resume(self, event: asyncio.Future[Any], then: Callable[[], None]) -> None:
        if self._awaited is event:
            self._awaited = None
            self._set_timer(None)
            self._attempt(then)

    def _attempt(self, then: Callable[[], None]) -> None:
        if not self.is_open:
            return
        try:
            self._runtime.member_of(self.session)
            then()
        except OSError as error:
            self._lost(error)
        except Exception as error:
            self.refuse(error)

    def _still_waiting(self) -> None:
        self._set_timer(self._loop.call_later(WAITING_EVERY_S, self._still_waiting))
        if not self._socket.sending:
            self._attempt(lambda: self._socket.send([encoded(pb.Reply(waiting=True))]))

    def _give_memory_back(self) -> None:
        self._payload = _NOTHING
        self._memory.give_back()

    # ------------------------------------------------------------------ sending

    def _sent(self) -> None:
        """Expect the next request, because a reply has been sent entirely."""
        self._release_weights()
        self._host.large.leave(self)
        self._next = self._begin

    def _release_weights(self) -> None:
        if self._weights is not None:
            self._weights.pool.drop(self._weights)
            self._weights = None

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
