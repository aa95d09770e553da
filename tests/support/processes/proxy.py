"""A TCP proxy that closes each connection after a number of bytes from the server."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable


class BreakingProxy:
    """A proxy that listens at `address` and forwards to another address.

    Connection k is closed once more than `reply_bytes(k)` bytes have come back from the server: the request has
    arrived, and its reply is lost.

    Attributes:
        cuts: Number of connections that were closed in this way.
    """

    def __init__(self, target: str, reply_bytes: Callable[[int], int]) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._reply_bytes = (host, int(port)), reply_bytes
        self._numbers = itertools.count()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            for end in self._open:
                _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            left = self._reply_bytes(next(self._numbers))
            threading.Thread(target=self._forward, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._forward, args=(far, near, left), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        try:
            while data := source.recv(1 << 16):
                if left is not None:
                    left -= len(data)
                    if left < 0:
                        self.cuts += 1
                        return
                sink.sendall(data)
        except OSError:
            return
        finally:
            with self._lock:
                self._open -= {source, sink}
            for end in (source, sink):
                _shut(end)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
