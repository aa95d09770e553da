"""A ledger without a coordinator, and as much of a worker as leases ask for."""

from __future__ import annotations

import threading

from downpour.protos import parameter_server_pb2 as pb


class Ledger:
    """Leases of one epoch after the other; an epoch ends when a worker asks and none is left."""

    def __init__(self, samples: int, lease_samples: int) -> None:
        self.samples, self.lease_samples, self.epoch, self.at, self.lease = samples, lease_samples, 0, 0, 0
        self._lock = threading.Lock()

    def next(self) -> pb.Task:
        with self._lock:
            if self.at >= self.samples:
                return pb.Task(kind=pb.END)
            start, self.at = self.at, min(self.at + self.lease_samples, self.samples)
            self.lease += 1
            return pb.Task(kind=pb.TRAIN, lease=self.lease, epoch=self.epoch, start=start, stop=self.at)

    def begin_epoch(self, epoch: int) -> None:
        self.epoch, self.at = epoch, 0


class Worker:
    """As much of a script's worker as a dataset asks for."""

    epoch = 0

    def __init__(self, ledger: Ledger, seed: int = 3) -> None:
        self.seed, self.draining = seed, False
        self._ledger = ledger

    def lease(self, ahead: bool = False, to_push: int = 0, per_push: int = 0) -> pb.Task:
        return self._ledger.next()
