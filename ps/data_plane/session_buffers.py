"""The buffers of weights that workers on the same host read in place, until they send their next request."""

from __future__ import annotations

from downpour.ps.core.buffers import Buffer


class SessionBuffers:
    """The buffers that each session is reading, each held once, so that the shard does not overwrite them."""

    def __init__(self) -> None:
        """Create a collection in which no session reads a buffer."""
        self._reading: dict[int, list[Buffer]] = {}

    def add(self, session: int, buffer: Buffer) -> None:
        """Keep a buffer, on which the caller has taken one hold, until `release` or the end of the session."""
        self._reading.setdefault(session, []).append(buffer)

    def release(self, session: int, keep_last: bool = False) -> None:
        """Release the buffers that a session was reading; with `keep_last`, all but the last."""
        buffers = self._reading.pop(session, None)
        if not buffers:
            return
        if keep_last:
            self._reading[session] = [buffers.pop()]
        for buffer in buffers:
            buffer.pool.drop(buffer)
