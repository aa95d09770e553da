"""What the checks of a simulated job find: other answers than before, lost records, workers too far apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from downpour.bench.world.checks.push_replies import PushReplies
from downpour.bench.world.checks.ssp_clocks import SspClocks
from downpour.bench.world.system.scheduler import World
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.frame import encode
from downpour.ps.core.consistency import consistency_of
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.push import Push
from downpour.ps.core.rules.hyperparameters import Hyperparameters
from downpour.ps.core.shard import Shard
from downpour.ps.trace.format import DTYPE

PUSH = pb.Request(kind=pb.PUSH_PULL, worker=1, incarnation=2, seq=3)


class Call:
    """A stream of a worker to shard 0."""

    def __init__(self) -> None:
        self.method = "/downpour.v1.Shard/Exchange"
        self.connection = SimpleNamespace(server=SimpleNamespace(process=SimpleNamespace(name="ps-0")))


class Calls:
    """A shard that answers the push 3 of worker 1."""

    def __init__(self) -> None:
        self.world = World(1)
        self.replies = PushReplies(self.world, replicas=False)

    def push(self, version: int, generation: int = 1, false_claim: bool = False) -> None:
        call: Any = Call()
        message = next(encode(PUSH))
        if false_claim:
            self.replies.expect_refusal(message)
        self.replies.request(call, message)
        reply = pb.Reply(seq=3, outcome=pb.APPLIED, applied_version=version, version=version, generation=generation)
        self.replies.reply(call, next(encode(reply)))

    def check(self, *records: tuple[int, int, int, int]) -> list[str]:
        trace = np.zeros(len(records), DTYPE)
        for row, (worker, incarnation, seq, version) in zip(trace, records, strict=True):
            row["worker"], row["incarnation"], row["seq"], row["version"] = worker, incarnation, seq, version
        self.replies.check(0, trace, generation=1)
        return self.world.problems


def test_a_push_with_one_answer_that_the_trace_contains_is_no_problem() -> None:
    calls = Calls()
    calls.push(5)
    calls.push(5)
    calls.push(9, generation=2)  # another push of that number, after the job has started over
    assert calls.check((1, 2, 3, 5)) == []


def test_another_answer_to_a_repeated_push_is_a_problem() -> None:
    calls = Calls()
    calls.push(5)
    calls.push(6)
    assert len(calls.world.problems) == 1


@pytest.mark.parametrize("records", [(), ((1, 2, 3, 6),), ((1, 1, 3, 5),)])
def test_an_answer_that_the_trace_does_not_contain_is_a_problem(records: tuple[tuple[int, int, int, int], ...]) -> None:
    calls = Calls()
    calls.push(5)
    assert len(calls.check(*records)) == 1


def test_a_false_claim_that_is_accepted_is_a_problem() -> None:
    calls = Calls()
    calls.push(5, false_claim=True)
    assert "may not use" in calls.world.problems[0]


@pytest.mark.parametrize("pushes", [2, 3])
def test_workers_that_are_too_far_apart_are_a_problem(pushes: int) -> None:
    shard = Shard(np.zeros(2, np.float32), Optimizer("sgd", Hyperparameters(), 2), consistency_of("ssp:1"))
    shard.join(0, 1)
    shard.join(1, 1)
    world = World(1)
    clocks = SspClocks(world, 0, slack=1)
    clocks.check(shard)
    for seq in range(1, pushes + 1):
        shard.push(Push(worker=0, incarnation=1, seq=seq, base_version=0), np.ones(2, np.float32))
        clocks.check(shard)
    assert len(world.problems) == (pushes > 2)
