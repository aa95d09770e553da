"""The path of a gradient in docs/architecture.md is complete: a real push goes through these functions alone."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.transports import TRANSPORTS
from downpour.worker.compute.gradient import Gradient
from downpour.worker.exchange.client import Client
from downpour.worker.exchange.grpc_stream import GrpcTransport
from downpour.worker.exchange.shared_memory import SharedMemoryTransport
from downpour.worker.exchange.spin_wait import SpinWait
from downpour.worker.exchange.tcp.transport import TcpTransport
from downpour.worker.plan.push_plan import PushPlan
from downpour.worker.train.lease_steps import LeaseSteps
from tests.support.call_stacks import STACKS, Stack, recording, stack_of
from tests.support.cluster import Cluster, vector_layout
from tests.support.paths import ROOT

N = 100
TITLE = {"shm": "shared memory", "tcp": "TCP", "grpc": "gRPC"}
# Functions within a step at which the stack is recorded.
WITHIN_STEPS: tuple[tuple[type, str], ...] = (
    (Client, "_assembled"),
    (SharedMemoryTransport, "_repeat"),
    (SpinWait, "receive"),
    (SpinWait, "receive_into"),
    (TcpTransport, "_transmit"),
    (GrpcTransport, "_set_deadline"),
    (GrpcTransport, "_repeat"),
    (GrpcTransport, "_await_reply"),
)
FORWARD_ONLY = {
    "Loop.finish", "Loop.start", "EventLoopSocket._readable", "TcpConnection._readable",
    "TcpTransport._receive_header", "TcpTransport._repeat", "TcpTransport._await_reply", "HeaderReceiver.receive",
}  # fmt: skip
NEED_TENSORFLOW = {"Worker._train", "GradientFunction.__call__"}


def steps_over(transport: str) -> Stack:
    """Return file and function of every step of the list in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    path = text.split(f"### Over {TITLE[transport]}\n")[1].strip().split("\n\n")[0]
    return re.findall(r"^\d+\. \[`([^`]+)`\]\([^)]*\) `([\w.]+)`", path, re.M)


def without(functions: set[tuple[str, str]], *names: str) -> set[tuple[str, str]]:
    return {(file, name) for file, name in functions if name not in names}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_push_goes_through_the_steps_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    stacks: list[Stack] = []

    def ones(flat: np.ndarray, indices: np.ndarray, seed: Any, step: int) -> Gradient:
        stacks.append(stack_of(sys._getframe(1)))
        return Gradient(np.ones(N, np.float32), 1.0, 0.0, 0)

    written = tmp_path / "stacks.json"
    with closing(Cluster(tmp_path)) as cluster:
        servers = ("-m", "tests.support.call_stacks", "--workers=1", f"--run-dir={cluster.run}")
        server = cluster.start("traced", *servers, env={STACKS: str(written)})
        cluster.address = str(server.announcement()["address"])
        (member,) = cluster.train(vector_layout(N), 1, transport=transport)
        for owner, name in WITHIN_STEPS:
            monkeypatch.setattr(owner, name, recording(getattr(owner, name), stacks.append))
        job = pb.JobDescription(batch_size=1, learning_rate=0.1)
        steps = LeaseSteps(member.client, ones, None, PushPlan(), job, member.worker, N, 8)
        assert len(list(steps.train(pb.Task(kind=pb.TRAIN, stop=2)))) == 2
        on_server: list[Stack] = [[(file, name) for file, name in one] for one in json.loads(written.read_text())]
    listed = steps_over(transport)
    at_push = [stack for stack in stacks if ("worker/train/lease_steps.py", "LeaseSteps._pull") not in stack]
    seen = {function for stack in at_push for function in stack}
    seen = without(seen, *FORWARD_ONLY, *(f"{owner.__name__}.{name}" for owner, name in WITHIN_STEPS))
    assert seen == without({step for step in listed if step[0].startswith("worker/")}, *NEED_TENSORFLOW)
    of_pushes = {function for stack in on_server for function in stack}
    assert without(of_pushes, *FORWARD_ONLY) == {step for step in listed if step[0].startswith("ps/")}
    deepest = next(stack for stack in on_server if stack[-1][1] == "Optimizer.advance")
    deepest = [step for step in deepest if step[1] not in FORWARD_ONLY]
    assert deepest == [step for step in listed if step in deepest], "the list must be in the order of the calls"
