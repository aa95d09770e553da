"""Real server processes and workers of a few lines: threads that push vectors of their own over real gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.worker.exchange.client import Pulled, Samples
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.session import Session, SessionSettings

ROOT = Path(__file__).parent.parent
CALL_TIMEOUT_S = 30.0


class NumpyWorker:
    """One worker: a session, streams to all shards, and pushes without leases.

    Attributes:
        number: As the coordinator gave it.
        pulled: What it has pulled last.
        replies: Of shard 0, one for each push.
        last: Weights when it left.
    """

    def __init__(self, control: CoordinatorClient, initial: np.ndarray, wait_s: float = 0.0) -> None:
        """Registers; the first worker brings the weights.

        Args:
            control: The coordinator.
            initial: `float32[n]`.
            wait_s: Emulated compute of a step.
        """
        self._wait_s = wait_s
        self.replies: list[pb.Reply] = []
        self.last = initial
        job = control.describe(CALL_TIMEOUT_S)
        layout = Layout.of([("w", (len(initial),), pb.TRAINED)])
        data = pb.DatasetInfo(name="numbers", checksum="0", train_samples=1 << 40)
        registration = pb.RegisterRequest(layout=layout.to_proto(), data=data)
        self._session = Session(control, job, registration, SessionSettings("grpc", CALL_TIMEOUT_S))
        self._session.register()
        self.number, self._client = self._session.worker, self._session.client
        self._session.await_start(lambda client: client.initialise(initial))
        self.pulled: Pulled = self.pull()

    def pull(self) -> Pulled:
        """Pulls; the weights are a copy."""
        return self._keep(self._client.pull())

    def step(self, gradient: np.ndarray, samples: int = 1) -> Pulled:
        """Computes for as long as a step takes, pushes a gradient and pulls."""
        if self._wait_s:
            time.sleep(self._wait_s)
        norm = float(np.linalg.norm(gradient))
        pulled = self._client.push_pull(gradient, norm, Samples(samples))
        self.replies.append(pulled.replies[0])
        self.pulled = self._keep(pulled)
        return self.pulled

    def leave(self) -> None:
        """Takes a last look at the weights and ends the session."""
        self.last = self.pull().flat
        self._session.leave()

    @staticmethod
    def _keep(pulled: Pulled) -> Pulled:
        return Pulled(pulled.flat.copy(), pulled.versions, pulled.replies)


@contextmanager
def server(*flags: str) -> Iterator[CoordinatorClient]:
    """A server process on a port of its own; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="downpour-") as folder:
        command = [
            sys.executable,
            "-m",
            "downpour.ps",
            f"--run-dir={folder}/run",
            "--model=numbers",
            "--dataset=numbers",
            *flags,
        ]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the server must announce its address; it ended: {' '.join(command)}")
                control = CoordinatorClient(json.loads(line)["address"], CALL_TIMEOUT_S)
                yield control
                control.close()
            finally:
                process.kill()  # nothing in it is to be kept


def together(
    control: CoordinatorClient,
    initial: np.ndarray,
    bodies: list[Callable[[NumpyWorker], None]],
    waits_s: list[float] | None = None,
    kind: type[NumpyWorker] = NumpyWorker,
) -> list[NumpyWorker]:
    """Runs one worker for each body, each in a thread; all begin when all have pulled, all leave when all are done.

    Raises:
        Exception: What the first body that failed raised.
    """
    waits_s = waits_s or [0.0] * len(bodies)
    workers: list[NumpyWorker | None] = [None] * len(bodies)
    failures: list[BaseException] = []
    begin, end = threading.Barrier(len(bodies)), threading.Barrier(len(bodies))

    def run(index: int) -> None:
        try:
            worker = workers[index] = kind(control, initial, waits_s[index])
            begin.wait(CALL_TIMEOUT_S)
            bodies[index](worker)
            end.wait(2 * CALL_TIMEOUT_S)
            worker.leave()
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
