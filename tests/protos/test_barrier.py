"""A worker and the coordinator agree on when a barrier is answered."""

from __future__ import annotations

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.barrier import is_answered

DECISION = pb.Decision(logs={"loss": 1.0})
DECIDED = pb.BarrierReply(complete=True, decision=DECISION)
COMPLETE, VALIDATED = pb.BarrierReply(complete=True), pb.BarrierReply(complete=True, validated=[0])


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize(
    ("request_", "answers", "leaders"),
    [
        (pb.BarrierRequest(), [DECIDED], [COMPLETE, VALIDATED]),
        (pb.BarrierRequest(until_complete=True), [DECIDED, COMPLETE, VALIDATED], []),
        (pb.BarrierRequest(validated=True, validation=[1.0]), [DECIDED], [VALIDATED]),
        (pb.BarrierRequest(decision=DECISION), [DECIDED], []),
    ],
)
def test_a_worker_waits_for_the_decision_or_as_worker_0_for_the_others(
    request_: pb.BarrierRequest, answers: list[pb.BarrierReply], leaders: list[pb.BarrierReply], is_leader: bool
) -> None:
    expected = [*answers, *(leaders if is_leader else [])]
    for reply in (pb.BarrierReply(), COMPLETE, VALIDATED, DECIDED):
        assert is_answered(request_, reply, is_leader) == (reply in expected)
