"""The shared-memory transport: payloads are in memory that both sides map, and headers are sent over a Unix socket."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct

from google.protobuf.message import DecodeError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DeadlineExceeded, ServerFault, TooLarge, Unreachable
from downpour.protos.frame import Buffer, Frame
from downpour.protos.logs import reason_of
from downpour.protos.protocol import PROTOCOL
from downpour.protos.shared_memory import doorbell_socket, memfd
from downpour.protos.status_codes import ERROR_OF
from downpour.worker.exchange.spin_wait import SpinWait
from downpour.worker.exchange.transport import Transport

HEADER_LIMIT_BYTES = 8 << 10
_ERRORS = {code.value[0]: error for code, error in ERROR_OF.items()}


class SharedMemoryTransport(Transport):
    """A push region that the shard reads, the shard's arena of weights for this worker, and a socket for headers."""

    resends_weights = False

    def __init__(self, address: str, doorbell: str, session: int, region_bytes: int, timeout_s: float) -> None:
        """Connect to the shard's socket and exchange the file descriptors of both memories.

        Args:
            address: The address of the shard, `HOST:PORT`, for messages.
            doorbell: The name of the shard's Unix socket.
            session: The number of the worker's session.
            region_bytes: The largest payload of a request.
            timeout_s: The time within which a reply or a keep-alive message must arrive, in seconds.

        Raises:
            Unreachable: No server listens on the socket, or no descriptor arrives.
            DownpourError: The shard refuses the connection.
        """
        super().__init__(address, timeout_s)
        self._doorbell, self._session = doorbell, session
        self._header = b""
        self._receiver = SpinWait(HEADER_LIMIT_BYTES)
        self._arena: mmap.mmap | None = None
        self._socket: socket.socket | None = None
        self._descriptors: list[int] = []
        try:
            self._descriptors.append(memfd.create("downpour-push", region_bytes))
            self._region = memoryview(mmap.mmap(self._descriptors[0], region_bytes))
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise Unreachable(f"no shared memory with the shard at {address}: {reason_of(error)}") from error
            raise

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        """Copy the payload into the push region and send the header over the socket."""
        self._begin()
        end = 0
        for part in parts:
            start, end = end, end + len(part)
            if end > len(self._region):
                raise TooLarge(
                    f"a payload must have at most {len(self._region):,} bytes; received {sum(map(len, parts)):,}."
                )
            self._region[start:end] = part
        header.payload_bytes = end
        self._header = header.SerializeToString()
        self._repeat()

    def close(self) -> None:
        """Close the socket; weights that were received stay mapped as long as something refers to them."""
        self._hang_up()
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._arena = None

    def _open(self) -> None:
        """Connect, send the region's descriptor and receive the arena's."""
        self._socket = line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _set_timeout(line, self._timeout_s)
        doorbell_socket.connect(line, self._doorbell)
        request = pb.AttachRequest(protocol=PROTOCOL, session=self._session, region_bytes=len(self._region))
        socket.send_fds(line, [request.SerializeToString()], self._descriptors[:1])
        message, descriptors, *_ = socket.recv_fds(line, HEADER_LIMIT_BYTES, 1)
        for old in self._descriptors[1:]:
            os.close(old)
        self._descriptors[1:] = descriptors
        if not message:
            raise Unreachable(f"the shard at {self.address} closed the connection")
        self._parse(message)
        if not descriptors:
            raise Unreachable(f"the shard at {self.address} sent no descriptor of its weights")
        self._arena = None

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _reconnect(self) -> None:
        self._hang_up()
        try:
            self._open()
        except (OSError, Unreachable):
            self._hang_up()

    def _repeat(self) -> None:
        try:
            if self._socket is not None:
                self._socket.send(self._header)
        except OSError:
            self._hang_up()

    def _await_reply(self) -> Frame[pb.Reply]:
        while True:
            if self._socket is None:
                raise Unreachable(
                    f"no parameter server answers at {self.address}: its socket is not served, and was tried for "
                    f"{self._timeout_s:g} s (--call-timeout-s). Look at its log; start it again at that address with "
                    "--resume, then this worker."
                )
            try:
                message = self._receiver.receive(self._socket)
            except OSError as error:
                self._hang_up()
                if error.errno == errno.EAGAIN:
                    raise DeadlineExceeded(
                        f"the shard at {self.address} must reply within {self._timeout_s:g} s; it did not. "
                        "Look at its log, or allow more time with --call-timeout-s."
                    ) from error
                continue
            if not message:
                self._hang_up()
                continue
            reply = self._parse(message)
            if not reply.waiting:
                return Frame(reply, self._weights(reply.offset, reply.payload_bytes))

    def _parse(self, message: bytes) -> pb.Reply:
        try:
            reply = pb.Reply.FromString(message)
        except DecodeError as error:
            self._hang_up()
            raise ServerFault(
                f"the shard at {self.address} sent {len(message)} bytes that are no valid reply"
            ) from error
        if reply.status:
            self._hang_up()
            raise _ERRORS.get(reply.status, ServerFault)(reply.reason)
        return reply

    def _weights(self, offset: int, size_bytes: int) -> memoryview:
        if self._arena is None or offset + size_bytes > len(self._arena):
            descriptor = self._descriptors[1]
            self._arena = mmap.mmap(descriptor, os.fstat(descriptor).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
        return memoryview(self._arena)[offset : offset + size_bytes]


def _set_timeout(line: socket.socket, timeout_s: float) -> None:
    """Set deadlines in the kernel: with Python's own, each receipt also costs a call of `poll`."""
    packed = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, packed)
