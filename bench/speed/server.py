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
from downpour.protos.channel import PROTOCOL
from downpour.protos.layout import Layout
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.coordinator_client import CoordinatorClient, Heartbeat

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
        client: Its connections.
    """

    def __init__(
        self,
        address: str,
        size: int,
        transport: str,
        codec: str = "float32",
        timeout_s: float = 60.0,
        initial: np.ndarray | None = None,
    ) -> None:
        """Joins a job whose weights are one vector `float32[size]`, zero if no `initial` ones are given."""
        layout = Layout.of([("weights", (size,), pb.TRAINED)])
        self._control = CoordinatorClient(address, timeout_s)
        job = self._control.describe(START_TIMEOUT_S).job
        request = pb.RegisterRequest(protocol=PROTOCOL, job=job, layout=layout.to_proto(), data=DATA)
        self.session = self._control.register(request)
        self.client = Client(self.session, layout, codec, timeout_s, transport)
        self._heartbeat = Heartbeat(self._control, self.session.session, 1.0, self.client.watch)
        done = False
        while True:
            reply = self._control.ready(self.session.session, done, warm=True)
            if reply.initialise:
                self.client.initialise(np.zeros(size, np.float32) if initial is None else initial)
                done = True
            if reply.start:
                return

    def close(self) -> None:
        """Leaves."""
        self._heartbeat.stop()
        self.client.close()
        self._control.leave(self.session.session, False, "")
        self._control.close()
