"""A TCP relay with the faults of a bad network: delay, loss, reordering, silence, resets, and times without a link."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

RETRANSMISSION_S = 0.2  # smallest time after which TCP sends a lost segment again


@dataclass(frozen=True)
class NetworkConditions:
    """The faults of a network.

    Attributes:
        delay_s: The delay of all data.
        jitter_s: The largest delay of single pieces of data beyond that. Within a connection, TCP keeps their order; of
            different connections, later data may arrive first.
        loss: The share of the pieces that are lost once. What follows them waits for the retransmission.
        silence: The number of pieces after which nothing is forwarded for a time, and this time in seconds; None for
            never.
        resets_after: The number of pieces after which a connection is closed, at most; 0 for never.
        flaps: The seconds for which there is a link, and then is none: connections close, and others are refused.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    silence: tuple[int, float] | None = None
    resets_after: int = 0
    flaps: tuple[float, float] | None = None


class Relay:
    """Listens at `address`, and forwards to another address over a bad network.

    Attributes:
        address: The address of the relay, `HOST:PORT`.
        disturbed: The number of pieces that were lost or held, and of connections that were closed or refused.
    """

    def __init__(self, target: str, conditions: NetworkConditions, seed: int = 0) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._conditions, self._seed = (host, int(port)), conditions, seed
        self._numbers, self._pieces = itertools.count(), itertools.count(1)
        self._open: set[socket.socket] = set()
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._silent_until_s, self._begun_s = 0.0, time.monotonic()
        self.disturbed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        if conditions.flaps is not None:
            threading.Thread(target=self._flap, args=conditions.flaps, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listener.close()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            for end in self._open:
                _shut(end)

    def _flap(self, up_s: float, down_s: float) -> None:
        while not self._closed.wait(up_s):
            with self._lock:
                self.disturbed += len(self._open) // 2
            self._close_all()
            self._closed.wait(down_s)

    @property
    def _down(self) -> bool:
        if self._conditions.flaps is None:
            return False
        up_s, down_s = self._conditions.flaps
        return (time.monotonic() - self._begun_s) % (up_s + down_s) > up_s

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._closed.is_set():
                near.close()
                return
            if self._down:
                self._note_disturbance()
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            rng = random.Random(f"{self._seed} {next(self._numbers)}")
            left = rng.randint(1, self._conditions.resets_after) if self._conditions.resets_after else 0
            for source, sink, limit in ((near, far, 0), (far, near, left)):
                own = random.Random(rng.random())
                threading.Thread(target=self._forward, args=(source, sink, own, limit), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, rng: random.Random, left: int) -> None:
        due_s, remaining = 0.0, left
        try:
            while data := source.recv(1 << 14):
                if left:
                    remaining -= 1
                    if remaining < 0:
                        self._note_disturbance()
                        return
                due_s = max(due_s, time.monotonic() + self._delay_s(rng))
                self._closed.wait(max(0.0, due_s - time.monotonic()))
                sink.sendall(data)
        except OSError:
            return
        finally:
            with self._lock:
                self._open -= {source, sink}
            for end in (source, sink):
                _shut(end)

    def _delay_s(self, rng: random.Random) -> float:
        conditions, now = self._conditions, time.monotonic()
        delay_s = conditions.delay_s + rng.random() * conditions.jitter_s
        if rng.random() < conditions.loss:
            self._note_disturbance()
            delay_s += RETRANSMISSION_S
        number = next(self._pieces)
        if conditions.silence is not None and number == conditions.silence[0]:
            self._silent_until_s = now + conditions.silence[1]
        if now < self._silent_until_s:
            self._note_disturbance()
            delay_s += self._silent_until_s - now
        return delay_s

    def _note_disturbance(self) -> None:
        with self._lock:
            self.disturbed += 1


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
