"""Workers of the conformance suite: threads that push vectors to a real server process over gRPC."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from downpour.bench.numpy_worker import NumpyWorker
from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.exchange.client import Pulled

CALL_TIMEOUT_S = 30.0


class SteppingWorker(NumpyWorker):
    """A worker that records the replies to its pushes and keeps a copy of the weights it pulled.

    Attributes:
        pulled: The result of the latest pull.
        replies: The replies of shard 0, one per push.
        last: The weights `float32[n]` when the worker left.
    """

    def __init__(self, address: str, initial: np.ndarray, wait_s: float = 0.0) -> None:
        """Join the job at `address` and pull the weights.

        Args:
            address: `HOST:PORT` of the coordinator.
            initial: The initial weights `float32[n]`, which the first worker uploads.
            wait_s: The emulated compute time of a step.
        """
        super().__init__(address, len(initial), "grpc", CALL_TIMEOUT_S, initial)
        self._wait_s = wait_s
        self.replies: list[pb.Reply] = []
        self.last = initial
        self.pulled: Pulled = self.pull()

    def pull(self) -> Pulled:
        """Return a copy of the current weights with their versions."""
        return _copy(super().pull())

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """Wait for the emulated compute time, push a gradient `float32[n]`, and return the pulled weights."""
        if self._wait_s:
            time.sleep(self._wait_s)
        norm = float(np.linalg.norm(gradient))
        pulled = self.push_pull(gradient, norm, samples)
        self.replies.append(pulled.replies[0])
        self.pulled = _copy(pulled)
        return self.pulled

    def close(self) -> None:
        """Pull the weights for the last time and leave the job."""
        self.last = self.pull().flat
        super().close()


def _copy(pulled: Pulled) -> Pulled:
    return Pulled(pulled.flat.copy(), pulled.versions, pulled.replies)


def run_workers(
    address: str,
    initial: np.ndarray,
    bodies: list[Callable[[SteppingWorker], None]],
    waits_s: list[float] | None = None,
    kind: type[SteppingWorker] = SteppingWorker,
) -> list[SteppingWorker]:
    """Run one worker per body, each in a thread: all start after all have pulled and leave after all have finished.

    Raises:
        Exception: The exception of the first body that failed.
    """
    waits_s = waits_s or [0.0] * len(bodies)
    workers: list[SteppingWorker | None] = [None] * len(bodies)
    failures: list[BaseException] = []
    begin, end = threading.Barrier(len(bodies)), threading.Barrier(len(bodies))

    def run(index: int) -> None:
        try:
            worker = workers[index] = kind(address, initial, waits_s[index])
            begin.wait(CALL_TIMEOUT_S)
            bodies[index](worker)
            end.wait(2 * CALL_TIMEOUT_S)
            worker.close()
        except BaseException as failure:
            failures.append(failure)
            begin.abort()
            end.abort()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [worker for worker in workers if worker is not None]
