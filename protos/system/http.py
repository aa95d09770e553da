"""The limits of an HTTP server with threads: clients that send nothing occupy few threads, for a short time."""

from __future__ import annotations

import sys
import threading
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

MAX_REQUESTS = 32  # at the same time; further connections are closed
REQUEST_S = 5.0  # after which a request that is not complete is closed


class BoundedThreads(ThreadingMixIn, TCPServer):
    """A server that handles a bounded number of requests at a time, each in a thread, and logs no broken connections.

    The `timeout` of its handler class must be `REQUEST_S`.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def server_activate(self) -> None:
        """Begin to listen at the server's address."""
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request in a thread, or close it if all threads are in use."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a request, and release its slot afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless the client has disconnected or has sent nothing in time."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
