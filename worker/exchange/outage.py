"""A coordinator that does not answer: noticed at once, said once, and waited for."""

from __future__ import annotations

import threading
import time

from downpour.protos.errors import Unreachable
from downpour.protos.logs import log

RESUMABLE = " (its --reconnect-s). Its job can be resumed from the last checkpoint."
SAY_S = 0.3  # a connection that broke and is made anew is no absence


class CoordinatorGone(Unreachable):
    """The server has been away for longer than it is waited for."""


class Outage:
    """Since when nobody answers at an address. For several threads."""

    def __init__(self, address: str) -> None:
        """Nothing has been asked yet; until `wait_for` is called, calls have only their own deadlines.

        Args:
            address: `HOST:PORT`.
        """
        self._address = address
        self._patience_s: float | None = None
        self._then = RESUMABLE
        self._since_s: float | None = None
        self._said = False
        self._lock = threading.Lock()

    def wait_for(self, patience_s: float, then: str = RESUMABLE) -> None:
        """From now on the server may be away for so long; 0: it will not come back. `then` ends what is said after."""
        self._patience_s, self._then = patience_s, then

    @property
    def away(self) -> bool:
        """Whether the server was missed when it was last called."""
        return self._since_s is not None

    def missed(self) -> bool:
        """Nobody has answered; returns whether the call is to be repeated whatever its own deadline.

        Raises:
            Gone: The server has been away for too long.
        """
        now, patience_s = time.monotonic(), self._patience_s
        with self._lock:
            since_s = self._since_s = now if self._since_s is None else self._since_s
            say = bool(patience_s) and not self._said and now > since_s + SAY_S
            self._said |= say
        if patience_s is None:
            return False
        if now > since_s + patience_s:
            raise CoordinatorGone(
                f"the server at {self._address} is gone and was not back within {patience_s:g} s{self._then}"
                if patience_s
                else f"the server at {self._address} is gone, while its job was ending."
            )
        if say:
            log(f"the server at {self._address} does not answer: waiting up to {patience_s:g} s for it to come back")
        return True

    def answered(self) -> None:
        """The server has answered."""
        if self._since_s is None:
            return
        with self._lock:
            since_s, said = self._since_s, self._said
            self._since_s, self._said = None, False
        if said and since_s is not None:
            log(f"the server at {self._address} answers again, after {time.monotonic() - since_s:.1f} s")
