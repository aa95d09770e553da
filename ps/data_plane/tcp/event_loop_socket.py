"""A socket on the event loop: it calls back when bytes have arrived, and sends as much as the other side takes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence

from downpour.protos.frame import Buffer
from downpour.protos.tcp.sockets import MOST_BUFFERS, WOULD_BLOCK, rest_of, sender


class EventLoopSocket:
    """An accepted connection that does not block, with or without TLS.

    Attributes:
        peer: The address of the other side, for messages.
        receive_into: A function that receives into a buffer and returns the number of bytes; 0 at the end.
        reading: Whether the owner is called back when bytes have arrived.
        transmissions: The number of transmissions of bytes so far.
    """

    def __init__(
        self, accepted: socket.socket, on_readable: Callable[[], bool], on_lost: Callable[[OSError], None]
    ) -> None:
        """Take an accepted connection, on the running event loop; nothing is read yet.

        Args:
            accepted: The connection; with TLS, before its handshake.
            on_readable: A callback that receives what has arrived; it returns whether more may have arrived.
            on_lost: A callback for an error that occurs while the rest of a transmission is sent.
        """
        self._socket, self._on_readable, self._on_lost = accepted, on_readable, on_lost
        self._loop = asyncio.get_running_loop()
        self.receive_into: Callable[[memoryview], int] = accepted.recv_into
        self._send = sender(accepted)
        self._tls = accepted if isinstance(accepted, ssl.SSLSocket) else None
        name = accepted.getpeername()
        self.peer = f"{name[0]}:{name[1]}"
        self.reading, self._writing, self.transmissions = False, False, 0
        self._out: list[Buffer] = []
        self._on_sent: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the socket has not been closed."""
        return self._socket.fileno() >= 0

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._tls is not None

    @property
    def sending(self) -> bool:
        """Whether a part of a transmission has not been sent yet."""
        return bool(self._out)

    def shake_hands(self) -> None:
        """Continue the TLS handshake; raise one of `WOULD_BLOCK` while the other side must answer."""
        assert self._tls is not None
        self._tls.do_handshake()

    def close(self) -> None:
        """Close the socket; the rest of a transmission is dropped."""
        self.read(False)
        self._write(False)
        self._out, self._on_sent = [], None
        self._socket.close()

    # ------------------------------------------------------------------ receiving

    def read(self, wanted: bool) -> None:
        """Set whether the owner is called back when bytes have arrived."""
        if wanted != self.reading:
            self.reading = wanted
            if wanted:
                self._loop.add_reader(self._socket, self._readable)
                if self._tls is not None:
                    self._loop.call_soon(self._readable_again)
            else:
                self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        more = self._on_readable()
        if more and self._tls is not None and self.reading and self._tls.pending():  # which the loop does not see
            self._loop.call_soon(self._readable_again)

    def _readable_again(self) -> None:
        if self.reading:
            self._readable()

    # ------------------------------------------------------------------ sending

    def send(self, buffers: Sequence[Buffer], on_sent: Callable[[], None] | None = None) -> None:
        """Send as much as the other side takes, and the rest when it takes more.

        Args:
            buffers: The buffers, whose contents must stay as they are until they have been sent.
            on_sent: A callback that is called when they have been sent.

        Raises:
            OSError: The connection is broken.
        """
        self._out.extend(buffers)
        self._on_sent = on_sent
        self._flush()

    def send_once(self, data: bytes) -> None:
        """Send as much as the other side takes at once; raise OSError if that is nothing."""
        self._send([data])

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._send(self._out[:MOST_BUFFERS])
                self.transmissions += 1
                self._out = rest_of(self._out, sent)
        except WOULD_BLOCK:
            self._write(True)
            return
        self._write(False)
        on_sent, self._on_sent = self._on_sent, None
        if on_sent is not None:
            on_sent()

    def _writable(self) -> None:
        try:
            self._flush()
        except OSError as error:
            self._on_lost(error)

    def _write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._socket, self._writable)
            else:
                self._loop.remove_writer(self._socket)
