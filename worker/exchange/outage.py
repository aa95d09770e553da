"""Outages of the coordinator: detected with the first call that fails, logged once, and tolerated for a while."""

from __future__ import annotations

from downpour.protos.errors import Unreachable
from downpour.protos.logs import log
from downpour.protos.system import clock, threads

RESUMABLE = " (its --reconnect-s). Its job can be resumed from the last checkpoint."
LOG_AFTER_S = 0.3  # a broken connection that is re-established at once is not an outage


class CoordinatorGone(Unreachable):
    """The server has been unreachable for longer than an outage is tolerated."""


class Outage:
    """Tracks the time since which a server has not replied; thread-safe."""

    def __init__(self, address: str) -> None:
        """Record no outage yet; until `tolerate` is called, calls have only their own deadlines.

        Args:
            address: The address of the server, `HOST:PORT`.
        """
        self._address = address
        self._limit_s: float | None = None
        self._advice = RESUMABLE
        self._since_s: float | None = None
        self._logged = False
        self._lock = threads.lock()

    def tolerate(self, limit_s: float, advice: str = RESUMABLE) -> None:
        """Tolerate outages of up to `limit_s`, or none if it is 0; `advice` is the end of the error message."""
        self._limit_s, self._advice = limit_s, advice

    @property
    def away(self) -> bool:
        """Whether the server did not reply to the last call."""
        return self._since_s is not None

    def missed(self) -> bool:
        """Record that a call has failed; return whether to retry it regardless of its own deadline.

        Raises:
            CoordinatorGone: The server has been unreachable for longer than is tolerated.
        """
        now, limit_s = clock.monotonic(), self._limit_s
        with self._lock:
            since_s = self._since_s = now if self._since_s is None else self._since_s
            first = bool(limit_s) and not self._logged and now > since_s + LOG_AFTER_S
            self._logged |= first
        if limit_s is None:
            return False
        if now > since_s + limit_s:
            raise CoordinatorGone(
                f"the server at {self._address} was lost and did not return within {limit_s:g} s{self._advice}"
                if limit_s
                else f"the server at {self._address} was lost while its job was ending."
            )
        if first:
            log(f"the server at {self._address} does not answer: waiting up to {limit_s:g} s for it to return")
        return True

    def answered(self) -> None:
        """Record that the server has replied, which ends the outage."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, logged = self._since_s, self._logged
            self._since_s, self._logged = None, False
        if logged and since_s is not None:
            log(f"the server at {self._address} answers again, after {clock.monotonic() - since_s:.1f} s")
