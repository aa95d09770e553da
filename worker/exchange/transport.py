"""What the worker's transports share: one request at a time to one shard, repeated until it is answered."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, Unreachable
from downpour.protos.frame import Buffer, Frame

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0


class Transport(ABC):
    """Sends requests to a shard and receives their replies, through broken connections.

    A request is repeated, with the same seq, until its reply arrives: the shard applies it once.

    Attributes:
        address: Of the shard, for messages.
        resends_weights: Whether weights that the worker holds already would be sent again, if asked for.
    """

    resends_weights = True

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects nothing yet.

        Args:
            address: `HOST:PORT` of the shard.
            timeout_s: How long a reply, or the next sign of life, may take.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._unanswered = False
        self._ended: DownpourError | None = None

    def send(self, header: pb.Request, *parts: Buffer) -> None:
        """Sends a request; the `parts` of its payload must not change until its reply is there."""
        if self._unanswered:  # refused, or never received: its reply must not be taken for the answer to this
            self._reconnect()
        self._unanswered = True
        self._put(header, parts)

    def receive(self) -> Frame[pb.Reply]:
        """Waits for the reply to what was sent last.

        Raises:
            DownpourError: What the shard said; Unreachable or DeadlineExceeded if it said nothing.
        """
        give_up_s = time.monotonic() + self._timeout_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                reply = self._await_reply()
                self._unanswered = False
                return reply
            except Unreachable:
                if self._ended is not None:
                    raise self._ended from None
                if time.monotonic() + pause_s > give_up_s:
                    raise
            threading.Event().wait(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
            self._reconnect()
            self._repeat()

    def end(self, error: DownpourError) -> None:
        """Stop waiting for a shard that does not answer, as the session has ended with `error`; thread-safe."""
        self._ended = error

    def watch(self, now: float) -> None:  # noqa: B027 - most need no help
        """Breaks off if an awaited reply is overdue at `now`; to be called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    @abstractmethod
    def _reconnect(self) -> None:
        """Ends the connection and opens another; one that cannot be opened shows when a reply is awaited."""

    @abstractmethod
    def _put(self, header: pb.Request, parts: tuple[Buffer, ...]) -> None:
        """Sends a new request."""

    @abstractmethod
    def _repeat(self) -> None:
        """Sends the last request again."""

    @abstractmethod
    def _await_reply(self) -> Frame[pb.Reply]:
        """Waits for the reply proper.

        Raises:
            Unreachable: The connection is broken.
            DownpourError: As the shard said, or DeadlineExceeded.
        """
