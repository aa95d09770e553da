"""A script's `fit` after the death of a server: what workers learn before it, and how they go on after it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict
from downpour.ps.coordinator.phase import Phase
from tests.support.pure.pure_fit import PureFit, rates

SAMPLES = 20


def after_death(job: PureFit, state: bytes) -> PureFit:
    """Return the job as its servers continue it from a checkpoint, without members."""
    again = PureFit(workers=job.state.settings.workers, lease_samples=job.lease_samples)
    again.coordinator.begin_generation(2, again.now)
    again.work.restore_state(pb.FitState.FromString(state))
    again.coordinator.restored(0, again.now)
    again.coordinator.shard_event(0, pb.ShardEvent(initialised=True), again.now)
    again.deliver()
    return again


def come_back(job: PureFit, worker: int, **fields: Any) -> None:
    job.join(worker, in_fit=True, has_trained=True, **fields)
    reply = job.ready(worker)
    assert reply.start and not reply.initialise


@pytest.mark.parametrize("drained", [False, True])
def test_a_call_that_was_drained_goes_on_when_its_run_is_resumed(drained: bool) -> None:
    """Training stops because the job drains, and not because of a callback, whose decision holds for ever."""
    job = PureFit(workers=1, lease_samples=SAMPLES)
    job.start(1)
    job.begin_epoch(workers=1)
    if drained:
        job.coordinator.drain("SIGINT", job.now)
    job.meet(0, 0, (1.0,), stop=True, decision=pb.Decision(stop=True))
    job.pass_barrier(pb.EPOCH_END, 0, workers=1, stop=True)
    assert job.meet(0, 0, kind=pb.EPOCH_END).decision.stop
    job.pass_barrier(pb.FIT_END, 0, workers=1, stop=True)
    again = after_death(job, job.work.state())
    reply = again.coordinator.register(again.request(0, in_fit=True, has_trained=True), again.now)
    again.sessions[0] = reply.session
    assert [decision.stop for decision in again.work.decisions] == [not drained]
    assert (again.work.completed_call == 0) == drained
    if drained:
        again.deliver()
        again.ready(0)
        again.begin_epoch(1, workers=1)
        assert again.task(0).kind == pb.TRAIN


def test_workers_learn_of_a_barrier_when_a_checkpoint_contains_it() -> None:
    job = PureFit(workers=1)
    job.start(1)
    job.commits = False
    decided = pb.Decision(learning_rates=[0.5])
    assert not job.meet(0, kind=pb.EPOCH_BEGIN, decision=decided).HasField("decision")
    job.work.commit(job.work.revision)
    assert job.meet(0, kind=pb.EPOCH_BEGIN, decision=decided).decision == decided
    assert not job.meet(0, values=(2.0,)).complete
    job.work.commit(job.work.revision)
    assert list(job.meet(0, values=(2.0,)).sums) == [2.0]


def test_workers_learn_of_the_end_of_the_samples_when_a_checkpoint_contains_it() -> None:
    job = PureFit(workers=1, lease_samples=SAMPLES)
    job.start(1)
    job.begin_epoch(workers=1)
    job.commits = False
    job.use(0, job.task(0))
    before = len(job.commands)
    assert job.task(0).kind == pb.WAIT
    assert any(command.flush for command in job.commands[before:])
    job.work.commit(job.work.revision)
    assert job.task(0).kind == pb.END


def test_the_end_of_the_samples_waits_for_the_last_gradients_on_all_shards() -> None:
    job = PureFit(lease_samples=10)
    job.start()
    job.begin_epoch()
    first, second = job.task(0), job.task(1)
    job.use(0, first)
    job.use(1, second)
    assert job.task(0).kind == pb.WAIT  # worker 1 has perhaps no reply of the other shards yet
    job.task(1)
    assert job.task(0).kind == job.task(1).kind == pb.END


@pytest.mark.parametrize("reached", ["begin", "arrived", "metrics", "end"])
def test_workers_repeat_a_barrier_and_no_epoch_is_lost_or_doubled(reached: str) -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0, logs={"loss": 4.0})
    job.begin_epoch(1)
    if reached != "begin":
        for worker in (0, 1):
            job.meet(worker, 1, (1.0 + worker,))
    if reached in ("metrics", "end"):
        job.meet(0, 1, decision=pb.Decision(logs={"loss": 3.0}))
    if reached == "end":
        job.pass_barrier(pb.EPOCH_END, 1, logs={"loss": 3.0})
    again = after_death(job, job.work.state())
    for worker in (1, 0):
        come_back(again, worker)
    for worker in (0, 1):
        again.meet(worker, 1, (1.0 + worker,))
    if reached in ("begin", "arrived"):
        assert list(again.meet(0, 1, (1.0,)).sums) == [3.0]
    assert again.meet(0, 1, decision=pb.Decision(logs={"loss": 3.0})).decision.logs["loss"] == 3.0
    assert again.meet(1, 1, (2.0,)).decision.logs["loss"] == 3.0
    again.pass_barrier(pb.EPOCH_END, 1, logs={"loss": 3.0})
    again.finish_epoch(2, logs={"loss": 2.0})
    assert again.work.summary().history == [{"loss": 4.0}, {"loss": 3.0}, {"loss": 2.0}]
    assert again.work.epochs_done == 3


def test_samples_since_the_checkpoint_are_leased_again_and_no_others() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    job.begin_epoch()
    used: Counter[int] = Counter()

    def train(of: PureFit, worker: int) -> bool:
        task = of.task(worker)
        if task.kind == pb.TRAIN:
            of.use(worker, task)
            used.update(range(task.start, task.stop))
        return task.kind == pb.TRAIN

    train(job, 0)
    train(job, 1)
    state, kept = job.work.state(), used.copy()
    train(job, 0)
    used.clear()
    used.update(kept)
    again = after_death(job, state)
    for worker in (0, 1):
        come_back(again, worker)
    while train(again, 0) | train(again, 1):
        pass
    assert used == Counter(range(SAMPLES)) and again.task(1).kind == pb.END
    assert again.work.summary().samples == SAMPLES


def test_a_barrier_waits_for_the_members_of_the_checkpoint_for_the_length_of_a_session() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    again = after_death(job, job.work.state())
    again.work._call.required = frozenset()
    come_back(again, 0)
    assert not again.meet(0, values=(1.0,)).complete
    again.coordinator.tick(again.now)
    again.now += 11.0
    again.coordinator.heartbeat(again.sessions[0], again.now)
    again.coordinator.tick(again.now)
    again.deliver()
    assert again.meet(0, values=(1.0,)).complete


def test_the_next_call_begins_when_the_members_of_the_checkpoint_have_left_the_last_one() -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0)
    job.pass_barrier(pb.FIT_END, 0, stop=True)
    again = after_death(job, job.work.state())
    assert not again.work.may_register(again.request(1, fit_call=2))
    come_back(again, 0)  # for the weights at the end
    assert again.meet(0, kind=pb.FIT_END, decision=pb.Decision()).decision.stop
    again.coordinator.leave(0, again.now)
    assert again.work.may_register(again.request(1, fit_call=2))


def test_learning_rates_and_optimizers_are_those_that_were_set_last() -> None:
    job = PureFit()
    job.start()
    table = rates(0.05, 0.01)
    job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[0], rates=[table]), job.now)
    again = after_death(job, job.work.state())
    (command,) = [command for command in again.commands if command.optimizers]
    assert list(command.learning_rates) == [table] and command.restored_call
    assert again.state.settings.optimizer == "momentum"


def test_a_worker_of_a_call_that_the_servers_have_lost_is_refused() -> None:
    job = PureFit()
    with pytest.raises(JobConflict, match="a checkpoint of call 1 of fit"):
        job.join(0, in_fit=True, has_trained=True)
    job.join(0, in_fit=True)
    assert job.work.fit_call == 1


def test_a_worker_that_was_away_ends_its_epoch_when_the_others_are_in_the_next_one() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    job.finish_epoch(0)
    assert job.coordinator.next_task(job.sessions[1], job.now, epoch=0).kind == pb.END
    assert job.coordinator.next_task(job.sessions[1], job.now, epoch=1).kind == pb.TRAIN


def test_a_lost_shard_is_awaited_and_the_first_call_begins_again_without_a_checkpoint() -> None:
    job = PureFit(shards=2)
    job.start()
    job.coordinator.shard_lost(1, job.now)
    assert job.phase() == Phase.RECOVERING and "shard 1 was lost: the job waits" in job.state.notes[-1]
    job.coordinator.start_over(job.now)
    assert job.phase() == Phase.WAITING and job.work.fit_call == 0
    job.state.shards.add(pb.ShardAddress(shard=1, address="host:1"))
    job.join(0, in_fit=True)
    assert job.ready(0).initialise


def test_a_worker_that_hangs_with_leased_samples_loses_them() -> None:
    job = PureFit(lease_samples=4, session_s=10.0)
    job.start()
    job.begin_epoch()
    job.use(0, job.task(0))
    task = job.task(1)
    job.now += 601.0
    for worker in (0, 1):
        job.coordinator.heartbeat(job.sessions[worker], job.now)
    job.task(0)
    job.coordinator.tick(job.now)
    assert [member.worker for member in job.state.membership.members] == [0]
    starts = {job.task(0).start for _ in range(4)}
    assert task.start in starts
