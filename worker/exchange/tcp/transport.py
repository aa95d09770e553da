"""The TCP transport: a connection to one shard, with payloads that are sent from and received into the final memory."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.credentials import adopted, presented_to
from downpour.protos.errors import DeadlineExceeded, DownpourError, InvalidRequest, ServerFault, TooLarge, Unreachable
from downpour.protos.frame import Buffer, Frame
from downpour.protos.logs import reason_of
from downpour.protos.protocol import PROTOCOL
from downpour.protos.status_codes import ERROR_OF
from downpour.protos.system import threads
from downpour.protos.tcp.sockets import MOST_BUFFERS, client_tls, rest_of, sender, set_options, split_address, wrapped
from downpour.protos.tcp.stream_frame import MAGIC, ConnectionEnded, HeaderReceiver, encoded
from downpour.worker.exchange.pages import pages
from downpour.worker.exchange.spin_wait import SpinWait
from downpour.worker.exchange.transport import Transport
from downpour.worker.exchange.transports import Route

CONNECT_TIMEOUT_S = 5.0  # a firewall may discard what is sent to the port; `auto` uses gRPC then
_ERRORS = {code.value[0]: error for code, error in ERROR_OF.items()}


class TcpTransport(Transport):
    """A connection to one shard."""

    def __init__(self, route: Route) -> None:
        """Connect to the shard and identify this worker.

        Args:
            route: The parameters with which to reach the shard.

        Raises:
            Unreachable: No server answers at the address.
            DownpourError: The shard refuses the connection.
        """
        super().__init__(route.shard.address, route.timeout_s)
        self._route = route
        self._tls = client_tls(adopted())
        self._memory = [pages(0)] * route.buffers
        self._request: list[Buffer] = []
        self._waiter = SpinWait(0)
        self._replies: HeaderReceiver[pb.Reply] = HeaderReceiver(pb.Reply)
        self._line: socket.socket | None = None
        # With overlap, a thread sends and receives while the caller computes.
        self._background = threads.executor("tcp") if route.buffers > 1 else None
        self._reply: Future[Frame[pb.Reply]] | None = None
        try:
            self._open()
        except OSError as error:
            self._hang_up()
            raise Unreachable(
                f"no parameter server answers at {route.shard.tcp} over TCP: {reason_of(error)}"
            ) from error
        except BaseException:
            self._hang_up()
            raise

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        """Send a request; it has left this process, or the connection is broken, when this returns."""
        self._begin()
        header.payload_bytes = sum(map(len, parts))
        self._request = [encoded(header), *(part for part in parts if len(part))]
        self._repeat()

    def end(self, error: DownpourError) -> None:
        """Stop waiting for the shard's reply, because the session has ended with `error`; thread-safe."""
        super().end(error)
        self._shut_down()

    def close(self) -> None:
        """Close the connection; weights that were received stay valid as long as something refers to them."""
        self._abandon()
        self._hang_up()
        if self._background is not None:
            self._background.shutdown()

    def _open(self) -> None:
        """Connect, and send the session and the token."""
        timeout_s = min(self._timeout_s, CONNECT_TIMEOUT_S)
        line = socket.create_connection(split_address(self._route.shard.tcp), timeout_s)
        self._line = line
        set_options(line)
        if self._tls is not None:
            self._line = line = wrapped(line, self._tls)
        request = pb.AttachRequest(
            protocol=PROTOCOL, session=self._route.session, token=presented_to(self.address).token
        )
        line.sendall(MAGIC + encoded(request))
        self._replies = HeaderReceiver(pb.Reply)
        self._receive_header(line.recv_into)
        self._replies.take_rest(memoryview(bytearray()))
        if self._tls is not None:
            line.settimeout(self._timeout_s)
        else:
            _set_timeout(line, self._timeout_s)

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _shut_down(self) -> None:
        """End the connection for the thread that uses it."""
        if (line := self._line) is not None:
            with suppress(OSError):  # it is broken already
                line.shutdown(socket.SHUT_RDWR)

    def _abandon(self) -> None:
        """Wait until the thread no longer uses the connection."""
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            self._shut_down()
            reply.exception()

    def _reconnect(self) -> None:
        self._abandon()
        self._hang_up()
        try:
            self._open()
        except (OSError, Unreachable):
            self._hang_up()

    def _repeat(self) -> None:
        if self._background is None:
            self._transmit()
        else:
            self._reply = self._background.submit(self._exchange)

    def _await_reply(self) -> Frame[pb.Reply]:
        return threads.result(self._reply) if self._reply is not None else self._received()

    def _exchange(self) -> Frame[pb.Reply]:
        self._transmit()
        return self._received()

    def _transmit(self) -> None:
        line, rest = self._line, list(self._request)
        if line is None:
            return
        send = sender(line)
        with suppress(OSError):  # the shard may have refused the request, and its reason is read next
            while rest:
                rest = rest_of(rest, send(rest[:MOST_BUFFERS]))

    def _received(self) -> Frame[pb.Reply]:
        line = self._line
        if line is None:
            raise Unreachable(
                f"no parameter server answers at {self._route.shard.tcp} over TCP, which was tried for "
                f"{self._timeout_s:g} s (--call-timeout-s). Look at its log; start it again at that address with "
                "--resume, then this worker."
            )
        flags, receive_into = 0, line.recv_into
        if self._tls is None:
            flags, receive_into = socket.MSG_WAITALL, functools.partial(self._waiter.receive_into, line)
        with self._closed_on_error():
            while True:
                reply = self._receive_header(receive_into)
                if reply.waiting:
                    self._replies.keep_rest()
                    continue
                payload = self._allocate(reply.payload_bytes)
                filled = self._replies.take_rest(payload)
                while filled < len(payload):
                    count = line.recv_into(payload[filled:], 0, flags)
                    if not count:
                        raise ConnectionEnded("the shard has closed it within a reply")
                    filled += count
                return Frame(reply, payload)

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the connection after an error of the block, and raise the project's own for one of the system.

        Raises:
            DeadlineExceeded: The shard did not reply in time.
            Unreachable: The connection is broken.
        """
        try:
            yield
        except (BlockingIOError, TimeoutError) as error:
            self._hang_up()
            raise DeadlineExceeded(
                f"the shard at {self.address} must reply within {self._timeout_s:g} s; it did not. "
                "Look at its log, or allow more time with --call-timeout-s."
            ) from error
        except OSError as error:
            self._hang_up()
            raise Unreachable(f"the connection to the shard at {self.address} is broken: {reason_of(error)}") from error
        except BaseException:
            self._hang_up()
            raise

    def _receive_header(self, receive_into: Callable[[memoryview], int]) -> pb.Reply:
        try:
            reply = self._replies.buffered()
            while reply is None:
                reply = self._replies.receive(receive_into)
        except InvalidRequest as error:
            raise ServerFault(f"the shard at {self.address} sent bytes that are not a reply: {error}") from error
        if reply.status:
            raise _ERRORS.get(reply.status, ServerFault)(reply.reason)
        if reply.payload_bytes > (limit := self._route.reply_limit_bytes):
            raise TooLarge(
                f"a reply must have at most {limit:,} bytes; the shard at {self.address} announced "
                f"{reply.payload_bytes:,}. Check that both sides have the same model and shards."
            )
        return reply

    def _allocate(self, size_bytes: int) -> memoryview:
        """Return the memory of the oldest reply, which nothing reads any more."""
        if not size_bytes:
            return memoryview(bytearray())
        memory = self._memory.pop(0)
        if len(memory) < size_bytes:
            memory = pages(size_bytes)
        self._memory.append(memory)
        return memory[:size_bytes]


def connect_tcp(route: Route) -> Transport:
    """Return a connection over TCP.

    Raises:
        Unreachable: The shard offers no TCP connections, or does not answer.
        DownpourError: The shard refuses the connection.
    """
    if not route.shard.tcp:
        raise Unreachable(
            f"--transport tcp needs a server that offers it; the shard at {route.shard.address} does not. Start it "
            "with --transport tcp or auto, or use --transport grpc."
        )
    return TcpTransport(route)


def _set_timeout(line: socket.socket, timeout_s: float) -> None:
    """Set deadlines in the kernel: with Python's own, each receipt also costs a call of `poll`."""
    line.settimeout(None)
    packed = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)
