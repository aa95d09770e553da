"""What a script's worker pushes between two exchanges: every batch counts once, whatever the intervals are."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.ps.core.consistency import MODES, consistency_of
from downpour.worker.fit.cluster.leases import Span
from downpour.worker.fit.local.gradient_sums import SummedGradientOp
from downpour.worker.fit.local.local_steps import LocalStepsOp
from downpour.worker.fit.local.plan_checks import gradient_op_of
from downpour.worker.fit.optimizer.assignments import Assignments
from downpour.worker.fit.optimizer.gradient_op import NO_SPAN, GradientOp
from downpour.worker.fit.optimizer.model_optimizers import ModelOptimizers
from downpour.worker.plan.push_plan import PushPlan
from tests.support.local_exchange import RATE, Server, network, op_of

intervals = st.integers(1, 5)


@settings(max_examples=12, deadline=None)
@given(intervals, intervals, st.booleans(), st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_sums_count_every_batch_once(push: int, fetch: int, overlap: bool, gradients: list[int]) -> None:
    fetch = push if overlap else fetch
    op, server = op_of(SummedGradientOp, PushPlan(push, fetch, "gradient", overlap))
    state = np.zeros(4, np.float32)
    for number in gradients:
        # A batch changes its moving statistics by as much as its gradient.
        state = op._push_pull(
            b"",
            False,
            np.full(8, number, np.float32),
            state + np.float32(number),
            1.0,
            0.5,
            2,
            NO_SPAN,
            np.float32(RATE),
        )[8:]
    op.finish()
    assert server.flat[:8].tolist() == [-RATE * sum(gradients)] * 8
    assert server.flat[8:].tolist() == [sum(gradients)] * 4
    assert sum(info.samples for info in server.pushed) == op.used == 2 * len(gradients)
    assert sum(info.steps for info in server.pushed) == len(gradients)
    assert op.steps == len(server.pushed) and all(info.steps <= push for info in server.pushed)


def test_local_weights_are_those_of_plain_descent() -> None:
    op, server = op_of(SummedGradientOp, PushPlan(4, 4))
    for number in range(1, 5):
        found = op._push_pull(b"", False, np.ones(8, np.float32), np.zeros(4, np.float32), 1.0, 0.5, 2, NO_SPAN, RATE)
        assert found[:8].tolist() == [-RATE * number] * 8
    assert len(server.pushed) == 1


def test_a_gradient_that_is_not_finite_is_announced_at_once_and_the_servers_weights_are_used() -> None:
    op, server = op_of(SummedGradientOp, PushPlan(4, 4))
    zeros = np.zeros(4, np.float32)
    op._push_pull(b"", False, np.ones(8, np.float32), zeros, 1.0, 0.5, 2, NO_SPAN, RATE)
    found = op._push_pull(b"", False, np.full(8, np.nan, np.float32), zeros, np.nan, 0.5, 2, NO_SPAN, RATE)
    assert [info.finite for info in server.pushed] == [False] and found.tolist() == [0.0] * 12


def test_the_last_batch_of_a_lease_is_pushed_with_the_others() -> None:
    op, server = op_of(SummedGradientOp, PushPlan(4, 4))

    class OneLease:
        def valid(self, span: Span) -> bool:
            return True

        def is_pushed(self, span: Span) -> bool:
            return False

        def start_of(self, span: Span) -> int:
            return span.start

        def is_last(self, span: Span) -> bool:
            return span.stop == 6

        def apply(self, span: Span, optimizer: bytes) -> bool:
            return True

        def pushed(self, *spans: Span, ends: bool) -> None:
            done.extend(spans)

    done: list[Span] = []
    op._leases = OneLease()
    spans = [Span(7, 0, start, start + 2) for start in (0, 2, 4)]
    for span in spans:
        row = np.array(span, np.int64)
        op._push_pull(b"", False, np.ones(8, np.float32), np.zeros(4, np.float32), 1.0, 0.5, 2, row, RATE)
    (info,) = server.pushed
    assert (info.lease, info.start, info.stop, info.samples) == (7, 0, 6, 6) and done == spans


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9))
def test_differences_add_up_to_all_local_steps(period: int, batches: int) -> None:
    op, server = op_of(LocalStepsOp, PushPlan(period, period, "difference"))
    for _ in range(batches):
        op._assign(op.read() - np.float32(1))
        if op._counted(np.float32(1), np.float32(0), np.float32(2), NO_SPAN):
            flat, count = op._exchanged(op.read())
            op._assign(flat)
            assert count == sum(info.steps for info in server.pushed)
    op.finish()
    assert server.flat.tolist() == [-batches] * 12 == op.read().tolist()
    assert op.steps == sum(info.steps for info in server.pushed) == batches
    assert len(server.pushed) == -(-batches // period)


def test_a_replica_goes_on_in_the_next_epoch_unless_a_callback_assigns_weights() -> None:
    op, server = op_of(LocalStepsOp, PushPlan(2, 2, "replica"))
    own = op.read() + 5
    op._assign(own)
    op.finish()
    op.write(server.flat.copy())  # at the barrier
    op.begin_epoch(1)
    assert op.read().tolist() == own.tolist()
    op.finish()
    op.write(server.flat.copy())
    op.weights_assigned()
    op.begin_epoch(2)
    assert op.read().tolist() == server.flat.tolist()


def test_a_registered_mode_has_an_exchange() -> None:
    for row in MODES.values():
        mode = consistency_of(row.example)
        model = network()
        server: Any = Server(PushPlan.of(pb.JobDescription(mode=row.example, push_every=1)), 12, 8)
        op = gradient_op_of(model, ModelOptimizers([model.optimizer]), server)
        assert type(op) is (GradientOp if mode.payload == "gradient" else LocalStepsOp)


@pytest.mark.parametrize("plan", [PushPlan(4, 4), PushPlan(overlap=True), PushPlan(4, 4, "difference")])
def test_what_has_no_meaning_is_refused_before_the_first_step(plan: PushPlan) -> None:
    first, second = network(), network(keras.optimizers.SGD(RATE, gradient_accumulation_steps=2))
    server: Any = Server(plan, 12, 8)
    optimizers = [first.optimizer, network().optimizer]
    with pytest.raises(Unsupported, match="must have one optimizer"):
        gradient_op_of(first, ModelOptimizers(optimizers), server)
    with pytest.raises(Unsupported, match="must not accumulate"):
        gradient_op_of(second, ModelOptimizers([second.optimizer]), server)
    constrained = network(constraint=keras.constraints.NonNeg())
    with pytest.raises(Unsupported, match="must have no constraint.*Received: .*kernel with one"):
        gradient_op_of(constrained, ModelOptimizers([constrained.optimizer]), server)
    with pytest.raises(Unsupported, match="changed by the optimizer alone"):
        assigned = Assignments()
        assigned.add(first.trainable_variables[0]._value)
        gradient_op_of(first, ModelOptimizers([first.optimizer]), server, assigned=assigned)


@pytest.mark.parametrize("kind", [SummedGradientOp, LocalStepsOp])
def test_weights_that_a_batch_hook_assigns_are_not_taken_for_steps(kind: type[GradientOp]) -> None:
    op, server = op_of(kind, PushPlan(4, 4, "gradient" if kind is SummedGradientOp else "difference"))
    assigned: list[np.ndarray] = []
    server.assign = lambda flat, partial: assigned.append(flat)  # type: ignore[attr-defined]
    kernel = op.trained[0]
    kernel.assign(np.full(kernel.shape, 7.0))
    changed = Assignments()
    changed.add(kernel._value)
    op.send(changed)
    (sent,) = assigned
    start = op._start if kind is LocalStepsOp else op._weights
    assert start.tolist() == [value if not np.isnan(value) else 0.0 for value in sent]
