"""Weights that workers on the same host read in place, until they send their next request."""

from __future__ import annotations

from downpour.ps.core.buffers import Buffer


class LentBuffers:
    """Holds the buffers that each session is reading, so that the shard does not overwrite them."""

    def __init__(self) -> None:
        """Create a collection without buffers."""
        self._lent: dict[int, list[Buffer]] = {}

    def add(self, session: int, buffer: Buffer) -> None:
        """Keep a buffer, on which the caller has taken one hold, until `release` or the end of the session."""
        self._lent.setdefault(session, []).append(buffer)

    def release(self, session: int, keep_last: bool = False) -> None:
        """Release the buffers that a session was reading; with `keep_last`, all but the last."""
        lent = self._lent.pop(session, None)
        if not lent:
            return
        if keep_last:
            self._lent[session] = [lent.pop()]
        for buffer in lent:
            buffer.pool.drop(buffer)
