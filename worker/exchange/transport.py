"""The base of the transports: one request at a time to one shard, repeated until the reply arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, Unreachable
from downpour.protos.frame import Buffer, Frame
from downpour.protos.system import clock, threads

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0


class Transport(ABC):
    """Sends requests to a shard and receives their replies, over new connections if one breaks.

    A request is repeated, with the same seq, until its reply arrives: the shard applies it once.

    Attributes:
        address: The address of the shard, `HOST:PORT`, for messages.
        resends_weights: Whether a pull transfers weights that the worker already holds.
        any_thread: Whether any thread may send and receive, one at a time.
    """

    resends_weights = True
    any_thread = True

    def __init__(self, address: str, timeout_s: float) -> None:
        """Build a transport that is not connected yet.

        Args:
            address: The address of the shard, `HOST:PORT`.
            timeout_s: The time within which a reply or a keep-alive message must arrive, in seconds.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._unanswered = False
        self._ended: DownpourError | None = None

    @abstractmethod
    def send(self, header: pb.Request, *parts: Buffer) -> None:
        """Send a request, after a call of `_begin`.

        Args:
            header: The header of the request.
            parts: The payload, which must not change until the reply has arrived.
        """

    def receive(self) -> Frame[pb.Reply]:
        """Wait for the reply to the last request, which is repeated over a new connection if one breaks.

        Raises:
            DownpourError: The shard refuses the request, or the session has ended.
            Unreachable: The shard does not reply.
            DeadlineExceeded: The shard does not reply in time.
        """
        give_up_s = clock.monotonic() + self._timeout_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                reply = self._await_reply()
                self._unanswered = False
                return reply
            except Unreachable:
                if self._ended is not None:
                    raise self._ended from None
                if clock.monotonic() + pause_s > give_up_s:
                    raise
            threads.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
            self._reconnect()
            self._repeat()

    def end(self, error: DownpourError) -> None:
        """Stop waiting for the shard's reply, because the session has ended with `error`; thread-safe."""
        self._ended = error

    def watch(self, now: float) -> None:  # noqa: B027 - most need no help
        """Cancel an awaited reply that is overdue at `now` (monotonic); thread-safe."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection to the shard; a request that is under way is abandoned."""

    def _begin(self) -> None:
        """Make the connection ready for a new request."""
        if self._unanswered:  # refused, or never received: its reply must not be mistaken for the reply to this request
            self._reconnect()
        self._unanswered = True

    @abstractmethod
    def _reconnect(self) -> None:
        """Replace the connection; a failure to open the new one is reported when a reply is awaited."""

    @abstractmethod
    def _repeat(self) -> None:
        """Send the last request again."""

    @abstractmethod
    def _await_reply(self) -> Frame[pb.Reply]:
        """Wait for the actual reply, and ignore keep-alive messages.

        Raises:
            Unreachable: The connection is broken.
            DeadlineExceeded: The shard does not reply in time.
            DownpourError: The shard refuses the request.
        """
