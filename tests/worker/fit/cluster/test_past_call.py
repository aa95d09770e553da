"""A call of `fit` that the others have completed: its barriers return what was decided."""

from __future__ import annotations

import numpy as np

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.cluster.completed_fit import CompletedFit
from downpour.worker.fit.cluster.past_call import PastCall
from downpour.worker.fit.cluster.stage import UpdateCounts


def test_every_barrier_of_a_past_call_returns_the_decision_on_it() -> None:
    decisions = [pb.Decision(logs={"loss": 3.0}), pb.Decision(logs={"loss": 2.0}, stop=True)]
    past = PastCall(
        CompletedFit(np.zeros(3, np.float32), {}, UpdateCounts([4], [4])), decisions, pb.Decision(stop=True)
    )
    for epoch, decision in enumerate(decisions):
        assert past.barrier(pb.BarrierRequest(epoch=epoch, kind=pb.EPOCH_BEGIN)).HasField("decision")
        for kind in (pb.EPOCH_METRICS, pb.EPOCH_END):
            assert past.barrier(pb.BarrierRequest(epoch=epoch, kind=kind)).decision == decision
    assert past.barrier(pb.BarrierRequest(epoch=2, kind=pb.EPOCH_BEGIN)).decision.stop
    assert past.barrier(pb.BarrierRequest(kind=pb.FIT_END)).decision.stop
