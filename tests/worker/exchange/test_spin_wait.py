"""A wait polls where replies come soon, and sleeps where they do not."""

from __future__ import annotations

import socket
import struct

import pytest

from downpour.worker.exchange.spin_wait import SPIN_S, SpinWait

LOOK_S = SPIN_S / 10  # that a look takes


class Line:
    """A socket with a clock, on which a message arrives a number of seconds after the wait begins."""

    def __init__(self) -> None:
        """No time has passed."""
        self.now = self.after_s = 0.0
        self.looks = self.sleeps = 0

    def recv(self, limit_bytes: int, flags: int = 0) -> bytes:
        """Return a message of a number of bytes."""
        if flags == socket.MSG_DONTWAIT:
            self.looks, self.now = self.looks + 1, self.now + LOOK_S
            if self.after_s > LOOK_S:
                self.after_s -= LOOK_S
                raise BlockingIOError
        else:
            self.sleeps, self.now = self.sleeps + 1, self.now + self.after_s
        return bytes(limit_bytes)

    def wait(self, waiter: SpinWait, after_s: float) -> tuple[int, int]:
        """Count the polls, and note whether the wait slept, until a message arrived."""
        self.after_s, self.looks, self.sleeps = after_s, 0, 0
        assert waiter.receive(self) == bytes(7)  # type: ignore[arg-type]
        return self.looks, self.sleeps


def test_a_short_wait_spins_and_a_long_wait_sleeps() -> None:
    line = Line()
    waiter = SpinWait(7, lambda: line.now)
    assert line.wait(waiter, 0.0) == (1, 0)
    assert line.wait(waiter, 2.5 * LOOK_S) == (3, 0)
    looks, sleeps = line.wait(waiter, 100 * SPIN_S)
    assert 9 <= looks <= 11 and sleeps == 1, "it must not look for longer than it may"
    assert line.wait(waiter, LOOK_S / 2) == (1, 0), "one long wait must not put it to sleep"
    waits = [line.wait(waiter, 100 * SPIN_S) for _ in range(10)]
    assert waits[-1] == (0, 1), "it must expect a long wait after several"
    waits = [line.wait(waiter, LOOK_S / 2) for _ in range(15)]
    assert waits[0] == (0, 1) and waits[-1] == (1, 0), "it must come to expect short waits again"


def test_a_spinning_socket_keeps_its_deadline_and_detects_its_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        waiter = SpinWait(100)
        theirs.send(b"one")
        assert waiter.receive(ours) == b"one"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 10_000))
        with pytest.raises(BlockingIOError):
            waiter.receive(ours)
        theirs.close()
        assert waiter.receive(ours) == b""
