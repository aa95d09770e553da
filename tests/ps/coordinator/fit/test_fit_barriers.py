"""The barriers of a script's `fit`, and the workers that others wait for."""

from __future__ import annotations

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict
from downpour.ps.coordinator.deadlines import BARRIER_S
from downpour.ps.coordinator.phase import Phase
from tests.support.pure.pure_fit import PureFit


@pytest.mark.parametrize("shards", [1, 3])
def test_workers_meet_after_an_epoch_and_worker_0_decides_for_all(shards: int) -> None:
    job = PureFit(shards=shards)
    job.start()
    job.begin_epoch()
    first = job.meet(1, values=(1.0, 2.0))
    assert not first.complete and not first.HasField("decision")
    second = job.meet(0, values=(10.0, 20.0))
    assert second.complete and list(second.sums) == [11.0, 22.0] and second.pin == 1
    flush, pin = job.commands[-2:]
    assert flush.flush and pin.pin == 1
    job.meet(0, values=(10.0, 20.0), decision=pb.Decision(learning_rates=[0.5]))
    assert any(command.unpin == 1 for command in job.commands)
    passed = job.meet(1, values=(1.0, 2.0))
    assert list(passed.decision.learning_rates) == [0.5]
    assert list(passed.sums) == [11.0, 22.0]  # also for a worker that asks when worker 0 has decided already
    assert job.work.epochs_done == 1
    with pytest.raises(InvalidRequest, match="at EPOCH_END of epoch 0; received EPOCH_METRICS of epoch 1"):
        job.meet(1, epoch=1)


def test_a_barrier_is_not_complete_before_every_shard_has_pinned_its_weights() -> None:
    job = PureFit(workers=1, shards=2)
    job.start(1)
    job.begin_epoch(workers=1)
    request = pb.BarrierRequest(session=job.sessions[0], values=[1.0], kind=pb.EPOCH_METRICS)
    assert not job.coordinator.meet(request, job.now).complete
    job.state.outbox.clear()  # the shards have not received the pin yet
    job.coordinator.shard_event(0, pb.ShardEvent(pinned=1), job.now)
    assert not job.coordinator.meet(request, job.now).complete
    job.coordinator.shard_event(1, pb.ShardEvent(pinned=1), job.now)
    job.work.commit(job.work.revision)
    assert job.coordinator.meet(request, job.now).complete


def test_an_epoch_begins_when_worker_0_has_begun_it() -> None:
    job = PureFit()
    job.start()
    assert not job.meet(1, kind=pb.EPOCH_BEGIN).HasField("decision")
    job.meet(0, kind=pb.EPOCH_BEGIN, decision=pb.Decision(learning_rates=[0.5], weights_assigned=True))
    decision = job.meet(1, kind=pb.EPOCH_BEGIN).decision
    assert decision.learning_rates[0] == 0.5 and decision.weights_assigned


def test_an_epoch_does_not_begin_before_all_workers_have_come() -> None:
    job = PureFit()
    job.start()
    assert not job.meet(0, kind=pb.EPOCH_BEGIN, decision=pb.Decision()).complete
    assert job.meet(1, kind=pb.EPOCH_BEGIN).HasField("decision")
    assert job.meet(0, kind=pb.EPOCH_BEGIN, decision=pb.Decision()).complete


def test_an_epoch_with_fixed_parts_does_not_end_without_a_worker_that_died() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    assert not job.meet(0, values=(1.0,)).complete
    job.coordinator.leave(1, job.now, "killed")
    job.deliver()
    assert not job.meet(0, values=(1.0,)).complete
    job.join(1)
    assert job.meet(1, kind=pb.EPOCH_BEGIN).complete  # it uses its part of the epoch again
    job.meet(1, values=(2.0,))
    assert list(job.meet(0, values=(1.0,)).sums) == [3.0]


def test_an_epoch_ends_without_a_worker_that_died_after_its_part() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    job.meet(1, values=(2.0,))
    job.coordinator.leave(1, job.now, "killed")
    job.deliver()
    assert list(job.meet(0, values=(1.0,)).sums) == [3.0]


def test_an_epoch_with_leases_ends_without_a_worker_that_died() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    job.begin_epoch()
    assert not job.meet(0, values=(1.0,)).complete
    job.coordinator.leave(1, job.now, "killed")
    job.deliver()
    assert job.meet(0, values=(1.0,)).complete


def test_a_worker_that_joins_late_begins_where_the_others_began() -> None:
    job = PureFit()
    job.join(0, fit=pb.FitDescription(initial_epoch=3, epochs=5))
    job.join(1, fit=pb.FitDescription(initial_epoch=4, epochs=5))  # it resumes from a checkpoint of its own
    assert job.work.initial_epoch == 3


def test_a_worker_does_not_join_between_the_batches_of_two_epochs() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    assert job.work.may_register(job.request(1))
    for worker in (1, 0):
        job.meet(worker, values=(1.0,))
    assert not job.work.may_register(job.request(1)) and job.work.may_register(job.request(0))
    job.meet(0, values=(1.0,), decision=pb.Decision())
    assert not job.work.may_register(job.request(1))
    job.pass_barrier(pb.EPOCH_END)
    assert job.work.may_register(job.request(1)) and not job.work.epoch_begun


def test_a_callback_of_any_worker_stops_all() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    assert not job.coordinator.heartbeat(job.sessions[0], job.now).drain
    job.meet(1, values=(1.0,), stop=True)
    assert job.coordinator.heartbeat(job.sessions[0], job.now).drain
    job.meet(0, values=(1.0,), decision=pb.Decision())
    job.meet(1, kind=pb.EPOCH_END)
    assert job.meet(0, kind=pb.EPOCH_END, decision=pb.Decision(stop=False)).decision.stop


def test_the_error_of_a_worker_ends_the_call_of_all() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    assert not job.meet(0, values=(1.0,)).HasField("failure")
    job.work.worker_failed(1, "builtins:ValueError", "pruned")
    job.coordinator.leave(1, job.now, "worker 1 gave up: pruned")
    job.deliver()
    assert job.coordinator.heartbeat(job.sessions[0], job.now).drain
    failure = job.meet(0, values=(1.0,)).failure
    assert (failure.worker, failure.error_type, failure.text) == (1, "builtins:ValueError", "pruned")
    job.work.worker_failed(0, "builtins:ValueError", "another")
    job.coordinator.leave(0, job.now)
    late = job.work.past_reply(job.request(1))
    assert late is not None and late.failure.text == "pruned" and late.epoch_begun
    job.start(fit_call=2)
    assert job.phase() == Phase.TRAINING


def test_the_error_of_a_worker_leaves_the_others_the_decisions_before_it() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    job.meet(1, values=(1.0,))
    job.meet(0, values=(1.0,), decision=pb.Decision(logs={"loss": 1.0}))
    job.work.worker_failed(0, "builtins:ValueError", "pruned")
    assert job.meet(1, values=(1.0,)).decision.logs["loss"] == 1.0


@pytest.mark.parametrize("worker", [0, 1])
def test_the_job_fails_if_a_worker_that_is_needed_does_not_return(worker: int) -> None:
    job = PureFit(reconnect_s=5.0, session_s=1000.0)
    job.start()
    job.begin_epoch()
    job.coordinator.leave(worker, job.now, "killed")
    job.coordinator.tick(job.now + 5.0)
    assert job.phase() == Phase.TRAINING
    job.join(worker)
    job.coordinator.tick(job.now + 50.0)
    assert job.phase() == Phase.TRAINING
    job.coordinator.leave(worker, job.now + 50.0)
    job.coordinator.tick(job.now + 105.1)
    assert job.phase() == Phase.FAILED and f"worker {worker}" in job.state.notes[-1]
    with pytest.raises(JobConflict, match="the job has failed"):
        job.meet(1 - worker)


def test_a_worker_that_hangs_is_not_awaited_without_end() -> None:
    job = PureFit(session_s=1e6)
    job.start()
    job.begin_epoch()
    job.meet(0, values=(1.0,))
    for pushes in range(3):  # it is slow, but it pushes
        job.now += BARRIER_S - 1.0
        job.coordinator.pushed(1, pushes + 1)
        job.coordinator.tick(job.now)
    assert job.state.membership.get(1) is not None
    job.coordinator.tick(job.now + BARRIER_S + 2.0)
    assert job.state.membership.get(1) is None and "worker 1 sends heartbeats" in job.state.notes[-1]
    job.coordinator.tick(job.now + BARRIER_S + 1000.0)
    assert job.phase() == Phase.FAILED


@pytest.mark.parametrize("mode", ["bsp", "ssp:2"])
def test_a_worker_that_hangs_in_a_batch_is_not_awaited_without_end_by_the_pushes_of_others(mode: str) -> None:
    """In modes that wait, the others do not come to a barrier either: their pushes wait for it."""
    job = PureFit(session_s=1e9, mode=mode)
    job.start()
    job.begin_epoch()
    job.coordinator.blocked([0], job.now)
    job.coordinator.tick(job.now)
    job.now += BARRIER_S - 1.0
    job.coordinator.pushed(1, 1)  # it is slow, but it pushes
    job.coordinator.tick(job.now)
    job.now += 2.0
    job.coordinator.tick(job.now)
    assert len(job.state.membership) == 2
    job.now += BARRIER_S
    job.coordinator.tick(job.now)
    assert [member.worker for member in job.state.membership.members] == [0]
    assert "worker 1 sends heartbeats but has made no progress" in job.state.notes[-1]


def test_nobody_is_awaited_when_no_push_waits_any_more() -> None:
    job = PureFit(session_s=1e9, mode="bsp")
    job.start()
    job.begin_epoch()
    for number in range(4):
        job.coordinator.blocked([0] if number % 2 else [], job.now)
        job.coordinator.tick(job.now)
        job.now += BARRIER_S - 1.0
    assert len(job.state.membership) == 2


def test_worker_0_is_not_awaited_without_end_while_it_validates() -> None:
    job = PureFit(session_s=1e6)
    job.start()
    job.begin_epoch()
    for worker in (0, 1):
        job.meet(worker, values=(1.0,))
    job.coordinator.tick(job.now)
    job.coordinator.tick(job.now + BARRIER_S + 1.0)
    assert job.state.membership.get(0) is None


def test_no_worker_is_awaited_while_all_train() -> None:
    job = PureFit(session_s=1e9)
    job.start()
    job.begin_epoch()
    for now in (0.0, BARRIER_S + 1.0, 3 * BARRIER_S):
        job.coordinator.tick(now)
    assert len(job.state.membership) == 2


def test_a_script_without_checkpoints_fails_with_a_shard() -> None:
    job = PureFit(shards=2, checkpoint_every="off")
    job.start()
    job.coordinator.shard_lost(1, job.now)
    assert job.state.phase == Phase.FAILED and "shard 1 was lost" in job.state.notes[-1]


def test_workers_validate_their_parts_before_worker_0_decides_on_the_logs() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    for worker in (0, 1):
        job.meet(worker, values=(1.0,))
    assert not job.meet(0, values=(1.0,), validated=True, validation=[2.0, 4.0]).validated
    reply = job.meet(1, values=(1.0,), validated=True, validation=[1.0, 1.0])
    assert list(reply.validated) == [0, 1] and list(reply.validation) == [3.0, 5.0] and not reply.HasField("decision")
    assert list(job.meet(0, values=(1.0,), validated=True, validation=[2.0, 4.0]).validation) == [3.0, 5.0]
    assert job.meet(0, decision=pb.Decision(logs={"val_loss": 0.6})).decision.logs == {"val_loss": 0.6}


def test_worker_0_is_told_which_parts_nobody_has_validated() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    job.begin_epoch()
    while (task := job.task(0)).kind == pb.TRAIN:
        job.use(0, task)
    for worker in (0, 1):
        job.meet(worker, values=(1.0,))
    job.meet(0, values=(1.0,), validated=True, validation=[2.0])
    job.coordinator.leave(1, job.now)
    reply = job.meet(0, values=(1.0,), validated=True, validation=[2.0])
    assert list(reply.validated) == [0] and list(reply.validation) == [2.0]


def test_a_worker_that_hangs_in_its_part_of_the_validation_is_not_awaited_without_end() -> None:
    job = PureFit(session_s=1e9)
    job.start()
    job.begin_epoch()
    for worker in (0, 1):
        job.meet(worker, values=(1.0,))
    job.meet(0, values=(1.0,), validated=True, validation=[2.0])
    job.coordinator.tick(job.now)
    job.coordinator.tick(job.now + BARRIER_S + 1.0)
    assert [member.worker for member in job.state.membership.members] == [0]
