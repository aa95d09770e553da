"""A real server process and NumPy workers without a model, for benchmarks of the data plane."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.session import Session, SessionSettings

DATA = pb.DatasetInfo(name="bench", checksum="none", train_samples=1 << 20)
START_TIMEOUT_S = 60.0


@contextmanager
def server(flags: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """Runs shard 0 with `flags`; gives its address and its process id, and ends it."""
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        command = [
            sys.executable,
            "-m",
            "downpour.ps",
            "--run-dir",
            folder,
            "--model",
            "bench",
            "--dataset",
            "bench",
            *flags,
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout is not None
                yield json.loads(process.stdout.readline())["address"], process.pid
            finally:
                process.kill()


class NumpyWorker:
    """A worker that registers, and initialises if it is the first; its gradients are whatever is pushed.

    Attributes:
        session: Its session.
        client: Its connections.
    """

    def __init__(
        self, address: str, size: int, transport: str, timeout_s: float = 60.0, initial: np.ndarray | None = None
    ) -> None:
        """Joins a job whose weights are one vector `float32[size]`, zero if no `initial` ones are given."""
        layout = Layout.of([("weights", (size,), pb.TRAINED)])
        self._control = CoordinatorClient(address, timeout_s)
        job = self._control.describe(START_TIMEOUT_S)
        registration = pb.RegisterRequest(layout=layout.to_proto(), data=DATA)
        settings = SessionSettings(transport, timeout_s, heartbeat_s=1.0)
        self.session = Session(self._control, job, registration, settings)
        self.session.register()
        self.client = self.session.client
        weights = np.zeros(size, np.float32) if initial is None else initial
        self.session.await_start(lambda client: client.initialise(weights))

    def close(self) -> None:
        """Leaves."""
        self.session.leave()
        self._control.close()
