"""A server process and workers without a model, for the benchmarks and the conformance suite."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from downpour.bench.module_process import module_command, module_environment
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.worker.exchange.client import Pulled
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import Session, SessionSettings

DATA = pb.DatasetInfo(name="bench", checksum="none", train_samples=1 << 20)
START_TIMEOUT_S = 60.0


class RunningServer(NamedTuple):
    """The address `HOST:PORT` and the process id of a server."""

    address: str
    pid: int


@contextmanager
def running_server(flags: Sequence[str] = ()) -> Iterator[RunningServer]:
    """Run shard 0 with `flags` in a new process, which is killed when the block ends.

    Raises:
        RuntimeError: The server ended before it announced its address.
    """
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        command = module_command("downpour.ps", f"--run-dir={folder}/run", "--model=bench", "--dataset=bench", *flags)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=module_environment()
        ) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the server must announce its address. It ended: {' '.join(command)}.")
                yield RunningServer(json.loads(line)["address"], process.pid)
            finally:
                process.kill()


class NumpyWorker:
    """A worker that registers, uploads the initial weights if it is the first, and pushes the vectors it is given.

    Attributes:
        session: The session of the worker.
        client: The connections to the shards.
    """

    def __init__(
        self,
        address: str,
        size: int,
        transport: str,
        timeout_s: float = 60.0,
        initial: np.ndarray | None = None,
    ) -> None:
        """Join the job at `address` and return when it has started.

        Args:
            address: `HOST:PORT` of the coordinator.
            size: The number of weights, which form one vector.
            transport: The name of a transport, or `auto`.
            timeout_s: The deadline of every call.
            initial: The initial weights `float32[size]` (default: zeros).
        """
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
        self._base = Pulled(weights, (0,) * len(self.session.reply.shards), ())

    def pull(self) -> Pulled:
        """Return the current weights; the next push counts as computed from them."""
        self._base = self.client.pull()
        return self._base

    def push_pull(self, gradient: np.ndarray, norm: float = 1.0, samples: int = 1, steps: int = 1) -> Pulled:
        """Push a gradient `float32[size]` that was computed from the latest weights, and return the new ones."""
        self._base = self.client.push_pull(gradient, PushInfo(self._base.versions, norm, samples, steps=steps))
        return self._base

    def close(self) -> None:
        """Leave the job and close all connections."""
        self.session.leave()
        self._control.close()
