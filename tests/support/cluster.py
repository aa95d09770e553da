"""Clusters of real server and worker processes, and workers in this process without TensorFlow."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.worker.exchange.client import Client, Pulled
from downpour.worker.exchange.coordinator_client import CoordinatorClient
from downpour.worker.exchange.push_info import PushInfo
from downpour.worker.exchange.session import Session, SessionSettings
from tests.support.paths import ROOT

DEADLINE_S = 60.0  # generous: a machine may be busy, and a timing is never a test
DATA = pb.DatasetInfo(name="tiny", checksum="c" * 64, train_samples=640, validation_samples=8, test_samples=8)


def vector_layout(n: int) -> Layout:
    """Return the layout of a model of one vector."""
    return Layout.of([("w", (n,), TRAINED)])


def wait_until(holds: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until a condition holds, and return its value; fail with its name at the deadline."""
    until = time.monotonic() + deadline_s
    tick = threading.Event()
    while not (value := holds()):
        assert time.monotonic() < until, f"within {deadline_s:g} s: {what}"
        tick.wait(0.02)
    return value


class Process:
    """A child process whose output is written to a file."""

    def __init__(self, log: Path, *command: str, env: dict[str, str] | None = None, before: Sequence[str] = ()) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DOWNPOUR_")}
        clean["PYTHONFAULTHANDLER"] = "1"  # a process that ends in native code prints where its threads were
        self.log = log
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                [*before, sys.executable, *command], stdout=subprocess.PIPE, stderr=out, stdin=subprocess.DEVNULL,
                cwd=ROOT, env={**clean, "TF_CPP_MIN_LOG_LEVEL": "3", **(env or {})},
            )  # fmt: skip

    @property
    def errors(self) -> str:
        return self.log.read_text(errors="replace")

    def announcement(self) -> dict[str, Any]:
        """Return the JSON line in which a server announces its address."""
        assert self.child.stdout is not None
        ready, _, _ = select.select([self.child.stdout], [], [], DEADLINE_S)
        line = self.child.stdout.readline() if ready else b""
        assert line.startswith(b"{"), f"no announcement, but {line!r}; {self.errors}"
        announcement = json.loads(line)
        assert isinstance(announcement, dict)
        return announcement

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        try:
            return self.child.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.child.args!r} should have ended by now; {self.errors}") from None

    def kill(self) -> None:
        """Kill the process with SIGKILL, like the failure of a machine."""
        if self.child.poll() is None:
            os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait(DEADLINE_S)
        if self.child.stdout is not None:
            self.child.stdout.close()


class Cluster:
    """The servers of one job, and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.processes: list[Process] = []
        self.servers: list[Process] = []
        self.members: list[Member] = []
        self.address = ""

    def serve(self, shards: int, **flags: Any) -> None:
        """Start the servers."""
        common = [f"--shards={shards}"]
        for name, value in flags.items():
            flag = f"--{name.replace('_', '-')}"
            common.append(flag if value is True else f"{flag}={value}")
        self.servers.append(self.start("ps-0", "-m", "downpour.ps", f"--run-dir={self.run}", *common))
        self.address = str(self.servers[0].announcement()["address"])
        for shard in range(1, shards):
            flag = f"--coordinator={self.address}"
            self.servers.append(self.start(f"ps-{shard}", "-m", "downpour.ps", f"--shard={shard}", flag, *common))
            self.servers[-1].announcement()

    def start(self, name: str, *command: str, env: dict[str, str] | None = None, before: Sequence[str] = ()) -> Process:
        """Start Python with the arguments `command`; `before` is a command that executes it, such as `env`."""
        process = Process(self.folder / f"{name}.log", *command, env=env, before=before)
        self.processes.append(process)
        return process

    def join(self, layout: Layout, data: pb.DatasetInfo = DATA, **options: Any) -> Member:
        member = Member(self.address, layout, data, **options)
        self.members.append(member)
        return member

    def train(self, layout: Layout, count: int, initial: np.ndarray | None = None, **options: Any) -> list[Member]:
        """Register a number of members of a job that trains from `initial` (default: zeros)."""
        members = [self.join(layout, **options) for _ in range(count)]
        weights = np.zeros(layout.size, np.float32) if initial is None else initial
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda member: member.await_start(weights), members))
        return members

    def status(self) -> pb.Progress:
        control = CoordinatorClient(self.address, DEADLINE_S)
        try:
            return control._stub.Status(pb.StatusRequest(), timeout=DEADLINE_S)
        finally:
            control.close()

    def stop(self) -> None:
        """End the job at once; the traces are complete when this returns."""
        control = CoordinatorClient(self.address, DEADLINE_S)
        control._stub.Stop(pb.StopRequest(now=True, reason="the test is over"), timeout=DEADLINE_S)
        control.close()
        for server in self.servers:
            server.wait()

    def trace(self, shard: int = 0) -> np.ndarray:
        return np.load(self.run / ("trace.npy" if shard == 0 else f"trace-shard{shard}.npy"))

    def close(self) -> None:
        """End all processes, even if some of them fail."""
        with ExitStack() as stack:
            for process in self.processes:
                stack.callback(process.kill)
            for member in self.members:
                stack.callback(member.close)


@contextmanager
def running(folder: Path, shards: int = 1, **flags: Any) -> Iterator[Cluster]:
    """Run a cluster, and end all of its processes afterwards."""
    cluster = Cluster(folder)
    try:
        cluster.serve(shards, **flags)
        yield cluster
    except BaseException:
        for process in cluster.processes:  # pytest shows what a test that fails has printed
            print(f"--- {process.log.name}, exit status {process.child.poll()}\n{process.errors}")
        raise
    finally:
        cluster.close()


class ProxiedCoordinator(CoordinatorClient):
    """A coordinator whose workers reach the shards through proxies."""

    def __init__(self, address: str, via: Callable[[str], str]) -> None:
        super().__init__(address, DEADLINE_S)
        self._via = via

    def register(self, request: pb.RegisterRequest) -> pb.RegisterReply:
        reply = super().register(request)
        for shard in reply.shards:
            shard.address = self._via(shard.address)
        return reply


class Member:
    """A worker in this process, with a session and no model."""

    def __init__(
        self, address: str, layout: Layout, data: pb.DatasetInfo = DATA, worker: int | None = None,
        transport: str = "grpc", via: Callable[[str], str] = lambda address: address, beats: bool = True,
    ) -> None:  # fmt: skip
        self.control = ProxiedCoordinator(address, via)
        self.job = self.control.describe(DEADLINE_S)
        self.layout = layout
        settings = SessionSettings(transport, DEADLINE_S, heartbeat_s=None if beats else 1e9)
        registration = pb.RegisterRequest(layout=layout.to_proto(), data=data, worker=worker)
        self.membership = Session(self.control, self.job, registration, settings)
        self.membership.register()
        self.session = self.membership.reply
        self.worker, self.incarnation = self.session.worker, self.session.incarnation
        self.pulled: Pulled | None = None

    @property
    def client(self) -> Client:
        return self.membership.client

    def pull(self) -> Pulled:
        """Pull the weights, from which the next push counts as computed."""
        self.pulled = self.client.pull()
        return self.pulled

    def push_pull(self, gradient: np.ndarray, norm: float = 1.0, **fields: Any) -> Pulled:
        """Push a gradient that was computed from the newest weights; `fields` are those of `PushInfo`."""
        self.pulled = self.client.push_pull(gradient, self.push_info(norm, **fields))
        return self.pulled

    def push_info(self, norm: float = 1.0, **fields: Any) -> PushInfo:
        base = self.pulled.versions if self.pulled is not None else (0,) * len(self.session.shards)
        return PushInfo(base, norm, **fields)

    def await_start(self, initial: np.ndarray) -> None:
        self.membership.await_start(lambda client: client.initialise(initial))

    def close(self) -> None:
        self.membership.disconnect()
        self.control.close()
