"""The course of a job: phases, tasks, expiry, drain, and its end wherever workers die."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, UnknownWorker
from downpour.ps.coordinator.coordinator import DISCONNECT_GRACE_S
from downpour.ps.coordinator.deadlines import EVALUATE_PART, SAVED_PART
from downpour.ps.coordinator.phase import OVER, Phase
from tests.support.pure.pure_job import EVERYTHING, PureJob


@pytest.mark.parametrize("shards", [1, 3])
def test_a_job_from_its_first_worker_to_its_end(shards: int) -> None:
    job = PureJob(shards=shards)
    assert job.phase() == Phase.WAITING
    first, second = job.join(), job.join()
    assert job.phase() == Phase.INITIALISING
    assert job.ready(first).initialise and not job.ready(second).initialise
    job.initialise()
    assert job.ready(first, initialised=True).start
    assert job.phase() == Phase.TRAINING
    job.run([first, second])
    assert job.phase() == Phase.ENDED
    assert job.used == EVERYTHING
    assert sorted(job.reports) == [(pb.VALIDATE, 0), (pb.FINISH, 1)]
    assert set(job.coordinator.work.evaluations) == {0, 1} and job.coordinator.work.test is not None
    assert job.pinned == set()
    assert [job.task(session).kind for session in (first, second)] == [pb.END, pb.END]


def test_one_worker_initialises_and_another_takes_over_if_it_dies() -> None:
    job = PureJob()
    first, second = job.join(), job.join()
    assert job.ready(first).initialise and not job.ready(second).initialise
    job.coordinator.leave(0, job.now)
    assert job.ready(second).initialise
    assert not job.ready(second, initialised=True).initialise


def test_the_weights_of_an_initialiser_that_dies_half_way_are_void() -> None:
    """Shard 0 has the first worker's weights and shard 1 the second's: that must not be taken for initialised."""
    job = PureJob(shards=2)
    first, second = job.join(), job.join()
    assert job.ready(first).initialise
    job.event(0, initialised=True)
    job.coordinator.leave(0, job.now)
    (command,) = [command for command in job.commands if command.initialisation]
    assert command.view.number == job.state.membership.number  # the dead worker is out of it
    assert job.ready(second).initialise
    job.event(1, initialised=True)  # said before the command came
    job.event(1, initialised=True, initialisation=command.initialisation)
    assert job.phase() == Phase.INITIALISING
    job.event(0, initialised=True, initialisation=command.initialisation)
    assert job.phase() == Phase.WARMING


def test_a_worker_sends_initial_weights_once_no_shard_can_void_them_any_more() -> None:
    """A shard that received them before the command to void those of a dead worker voided them, too, for ever."""
    job = PureJob(prompt=False, shards=2)
    first, second = job.join(), job.join()
    job.answer()
    assert job.ready(first).initialise
    job.coordinator.leave(0, job.now)
    assert not job.ready(second).initialise
    view = job.state.membership.number
    job.event(0, view_seen=view)
    assert not job.ready(second).initialise
    job.event(1, view_seen=view)
    assert job.ready(second).initialise


def test_a_shard_that_has_voided_weights_for_an_earlier_coordinator_counts_as_initialised() -> None:
    """The number of initialisations began again with the coordinator, and the job waited for ever."""
    job = PureJob(shards=2, workers=1)
    session = job.join()
    job.ready(session)
    job.event(0, initialised=True)
    job.event(1, initialised=True, initialisation=1)
    assert job.ready(session, initialised=True).start


def test_training_waits_for_all_workers_until_a_deadline() -> None:
    job = PureJob(workers=3, start_timeout_s=60.0, session_s=1000.0)
    first = job.join()
    job.ready(first)
    job.initialise()
    job.pass_time(59.0)
    assert job.phase() == Phase.WARMING and job.task(first).kind == pb.WAIT
    job.pass_time(1.0)
    assert job.phase() == Phase.TRAINING and job.task(first).kind == pb.TRAIN


def test_every_shard_must_have_its_weights_before_training() -> None:
    job = PureJob(shards=2, workers=1)
    session = job.join()
    job.ready(session)
    job.event(0, initialised=True)
    assert job.phase() == Phase.INITIALISING
    job.event(1, initialised=True)
    assert job.ready(session, initialised=True).start


def test_an_epoch_is_evaluated_on_weights_that_every_shard_has_pinned() -> None:
    job = PureJob(prompt=False, shards=2, workers=1)
    session = job.join()
    job.answer()
    job.ready(session)
    job.initialise()
    job.ready(session)
    while not job.coordinator.work.ledger or not job.coordinator.work.ledger.complete(0):
        job.do(session, job.task(session))
    (pin,) = job.pinned
    assert job.task(session).kind == pb.TRAIN
    job.event(0, pinned=pin)
    assert job.task(session).kind == pb.TRAIN
    job.event(1, pinned=pin)
    task = job.task(session)
    assert (task.kind, task.epoch, task.pin) == (pb.VALIDATE, 0, pin)


@pytest.mark.parametrize("kind", [pb.VALIDATE, pb.FINISH])
def test_the_evaluation_of_a_worker_that_dies_is_assigned_to_another(kind: pb.TaskKind) -> None:
    job = PureJob()
    first, second = job.start()
    task = job.take(first, kind)
    job.coordinator.leave(0, job.now, "killed")
    again = job.task(second)
    assert (again.kind, again.epoch, again.pin) == (kind, task.epoch, task.pin)
    with pytest.raises(UnknownWorker):
        job.report(first, task)
    job.do(second, again)
    job.run([second])
    assert job.pinned == set()


def test_the_job_does_not_end_while_an_evaluation_is_out() -> None:
    job = PureJob()
    first, second = job.start()
    task = job.take(first, pb.VALIDATE)
    other = job.take(second, pb.FINISH)
    job.report(second, other)
    assert job.phase() == Phase.FINISHING
    job.report(first, task)
    assert job.phase() == Phase.ENDED and set(job.coordinator.work.evaluations) == {0, 1}


def test_a_silent_worker_expires_and_its_samples_are_leased_again() -> None:
    job = PureJob(session_s=10.0)
    first, second = job.start()
    lost = job.task(first)
    job.use(first, lost, 0, 4)
    job.pass_time(9.0)
    job.coordinator.heartbeat(second, job.now)
    job.pass_time(1.0)
    with pytest.raises(UnknownWorker, match="register again"):
        job.task(first)
    again = job.task(second)
    assert (again.epoch, again.start, again.stop) == (0, 4, lost.stop)
    assert any("worker 0 has sent no heartbeat" in note for note in job.state.notes)


def test_a_worker_that_lives_and_does_nothing_loses_its_lease_by_the_pace_of_the_others() -> None:
    job = PureJob(session_s=10.0)
    first, second = job.start()
    hung, task = job.task(first), job.task(second)
    job.now += 2.0
    job.use(second, task, task.start, task.start + 4)  # a step takes 2 s: 60 s is too long
    job.now += 59.0
    for session in (first, second):
        job.coordinator.heartbeat(session, job.now)
    job.use(second, task, task.start + 4, task.stop)
    job.coordinator.tick(job.now)
    assert job.task(second).kind == pb.TRAIN  # 59 s is the longest step now, so no worker is overdue
    for _ in range(250):
        job.pass_time(8.0)
        if job.state.membership.get(0) is None:
            break
        for session in (first, second):
            job.coordinator.heartbeat(session, job.now)
        job.coordinator.blocked([1], job.now)  # waits at a gate: that is no slow step
    assert "worker 0 sends heartbeats but has made no progress for 177" in job.state.notes[-1]
    again = job.take(second, pb.TRAIN)
    assert (again.start, again.stop) == (hung.start, hung.stop)
    with pytest.raises(UnknownWorker):
        job.task(first)
    assert job.state.membership.get(1) is not None


def test_a_broken_connection_ends_no_session_that_has_heartbeats() -> None:
    job = PureJob()
    first, second = job.start()
    job.coordinator.connection_lost(0, job.now)
    job.coordinator.connection_lost(1, job.now)
    job.pass_time(DISCONNECT_GRACE_S / 2)
    job.coordinator.heartbeat(first, job.now)
    job.pass_time(DISCONNECT_GRACE_S / 2)
    assert [member.session for member in job.state.membership.members] == [first]


def test_a_request_for_a_task_gives_up_the_previous_task() -> None:
    job = PureJob()
    first, _ = job.start()
    task = job.task(first)
    job.use(first, task, 0, 4)
    again = job.task(first)
    assert (again.start, again.stop) == (4, task.stop)


def test_a_second_registration_of_a_number_fences_the_first_holder() -> None:
    job = PureJob()
    first, second = job.start()
    task = job.task(first)
    new = job.join(worker=0)
    with pytest.raises(UnknownWorker):
        job.coordinator.heartbeat(first, job.now)
    assert job.state.membership.of_session(new).incarnation == 2
    assert job.task(second).start == task.start
    rejoined = job.join(worker=0, rejoin=True)
    assert job.state.membership.of_session(rejoined).worker == 2
    assert job.state.membership.of_session(new).worker == 0


@pytest.mark.parametrize("used", [0, 3])
def test_drain_saves_the_current_weights(used: int) -> None:
    job = PureJob()
    first, second = job.start()
    tasks = [job.task(first), job.task(second)]
    for start in range(used):
        job.use(first, tasks[0], start, start + 1)
    job.coordinator.drain("SIGTERM", job.now)
    assert job.coordinator.heartbeat(first, job.now).drain
    assert job.task(first).kind == pb.WAIT
    assert job.phase() == Phase.DRAINING
    finish = job.task(second)
    assert finish.kind == pb.FINISH
    job.report(second, finish)
    assert job.phase() == Phase.ENDED and job.used.total() == used and job.pinned == set()


@pytest.mark.parametrize("done", [False, True])
def test_a_job_whose_workers_are_idle_says_that_it_drains(done: bool) -> None:
    """A worker that had been signalled like the job left it, and nobody saved the model."""
    job = PureJob(workers=1)
    (session,) = job.start(1)
    if done:
        job.take(session, pb.FINISH)
    job.coordinator.drain("SIGTERM", job.now)
    assert job.task(session).kind == pb.FINISH and job.phase() == Phase.FINISHING
    assert job.coordinator.heartbeat(session, job.now).drain


def test_drain_before_training_ends_the_job_with_a_note() -> None:
    job = PureJob()
    session = job.join()
    job.coordinator.drain("SIGTERM", job.now)
    assert job.phase() == Phase.ENDED and job.coordinator.work.test is None
    assert any("before training began" in note for note in job.state.notes)
    assert job.task(session).kind == pb.END


def test_drain_of_a_job_that_recovers_fails_it_because_nothing_is_saved() -> None:
    job = PureJob(workers=1)
    (session,) = job.start(1)
    job.take(session, pb.TRAIN)
    job.coordinator.shard_lost(0, job.now)
    assert job.phase() == Phase.RECOVERING
    job.coordinator.drain("SIGTERM", job.now)
    assert job.phase() == Phase.FAILED
    assert "can be resumed" in job.state.notes[-1] and not any("nothing to save" in note for note in job.state.notes)


def test_a_shard_that_is_lost_after_the_end_may_join_again() -> None:
    """It was refused as one that had joined already, and its process ended with an error."""
    job = PureJob()
    job.join()
    job.coordinator.drain("SIGTERM", job.now)
    assert job.phase() == Phase.ENDED
    job.coordinator.shard_lost(0, job.now)
    assert job.phase() == Phase.ENDED
    job.state.shards.add(pb.ShardAddress(shard=0, address="host:2"))


def test_drain_of_a_resumed_job_before_a_worker_trains_fails_it() -> None:
    job = PureJob(workers=1)
    job.coordinator.begin_generation(2, job.now)
    job.coordinator.drain("SIGTERM", job.now)
    assert job.phase() == Phase.FAILED and "can be resumed" in job.state.notes[-1]


def test_drain_after_the_last_sample_changes_nothing() -> None:
    job = PureJob(workers=1)
    (session,) = job.start(1)
    task = job.take(session, pb.FINISH)
    job.coordinator.drain("SIGTERM", job.now)
    job.report(session, task)
    assert job.phase() == Phase.ENDED


@pytest.mark.parametrize("drain_timeout_s", [7.0, 60.0])
def test_a_requested_end_gives_evaluations_a_deadline(drain_timeout_s: float) -> None:
    job, evaluate_s = PureJob(session_s=1000.0, drain_timeout_s=drain_timeout_s), EVALUATE_PART * drain_timeout_s
    first, second = job.start()
    assert job.coordinator.heartbeat(first, job.now).remaining_s == 0
    validate = job.take(first, pb.VALIDATE)
    assert validate.remaining_s == 0
    job.coordinator.drain("SIGTERM", job.now)
    assert 0 < job.coordinator.heartbeat(first, job.now).remaining_s <= evaluate_s
    job.pass_time(1.0)
    finish = job.task(second)
    assert finish.kind == pb.FINISH and finish.remaining_s == evaluate_s - 1.0
    assert job.task(first).kind == pb.WAIT  # the validation that it gave up is not assigned again
    job.pass_time(evaluate_s)
    assert job.coordinator.heartbeat(second, job.now).remaining_s > 0
    job.report(second, finish)
    assert job.phase() == Phase.ENDED and job.pinned == set()


@pytest.mark.parametrize("drain_timeout_s", [7.0, 60.0])
def test_a_job_with_a_saved_but_unevaluated_model_succeeds(drain_timeout_s: float) -> None:
    job = PureJob(workers=1, session_s=1000.0, drain_timeout_s=drain_timeout_s)
    (session,) = job.start(1)
    job.take(session, pb.FINISH)
    job.coordinator.drain("SIGTERM", job.now)
    job.pass_time(SAVED_PART * drain_timeout_s)
    assert job.phase() == Phase.FINISHING
    job.state.saved = True
    job.pass_time(0.1)
    assert job.phase() == Phase.ENDED
    assert "saved and not evaluated" in job.state.notes[-1]


@pytest.mark.parametrize("drain_timeout_s", [7.0, 60.0])
def test_a_job_whose_model_is_not_saved_in_time_fails(drain_timeout_s: float) -> None:
    job = PureJob(workers=1, session_s=1000.0, drain_timeout_s=drain_timeout_s)
    (session,) = job.start(1)
    job.take(session, pb.FINISH)
    job.coordinator.drain("SIGTERM", job.now)
    job.pass_time(drain_timeout_s)
    assert job.phase() == Phase.FINISHING
    job.pass_time(0.1)
    assert job.phase() == Phase.FAILED and "no worker saved the model" in job.state.notes[-1]


def test_a_test_result_of_a_part_of_the_samples_is_noted() -> None:
    job = PureJob(workers=1)
    (session,) = job.start(1)
    task = job.take(session, pb.FINISH)
    partial = pb.Evaluation(samples=3, loss=1.0, accuracy=0.5)
    job.coordinator.report(pb.ReportRequest(session=session, kind=pb.FINISH, epoch=task.epoch, test=partial), job.now)
    assert job.phase() == Phase.ENDED
    assert "the first 3 of 4 test samples" in job.state.notes[-1]


@given(deaths=st.sets(st.integers(0, 60), max_size=8), drain=st.none() | st.integers(5, 40), seed=st.integers(0, 999))
def test_the_job_ends_wherever_workers_die(deaths: set[int], drain: int | None, seed: int) -> None:
    """Workers die at any step, in a lease or a task, and others join: nothing is used twice, nothing is lost."""
    job, choose = PureJob(), random.Random(seed)
    sessions = job.start()
    for step in range(2_000):
        job.now += 0.01
        if job.state.phase in OVER:
            break
        session = choose.choice(sessions)
        task = job.task(session)
        if step == drain:
            job.coordinator.drain("SIGTERM", job.now)
        if step in deaths:
            if task.kind == pb.TRAIN:
                job.do(session, task, batches=1)
            sessions.append(job.join())
            job.ready(sessions[-1])
            sessions.remove(session)
            job.coordinator.leave(job.state.membership.of_session(session).worker, job.now)
        else:
            job.do(session, task)
    assert job.phase() == Phase.ENDED
    assert set(job.used.values()) <= {1}
    if drain is None:
        assert job.used == EVERYTHING
        assert set(job.coordinator.work.evaluations) == {0, 1}
    assert job.pinned == set()


def test_a_report_of_another_task_is_refused() -> None:
    job = PureJob()
    first, _ = job.start()
    with pytest.raises(InvalidRequest, match="FINISH, epoch 0"):
        job.report(first, pb.Task(kind=pb.FINISH))
    assert job.coordinator.work.test is None


def test_a_job_that_has_ended_takes_no_other() -> None:
    job = PureJob(workers=1)
    job.run(job.start(1))
    with pytest.raises(JobConflict, match="job 'job-1' has ended: start a new server for a new job"):
        job.join()


def test_shards_have_places() -> None:
    job = PureJob(shards=2)
    with pytest.raises(InvalidRequest, match="below 2; received 2"):
        job.state.shards.add(pb.ShardAddress(shard=2, address="x:1"))
    with pytest.raises(JobConflict, match="already joined from host:1"):
        job.state.shards.add(pb.ShardAddress(shard=1, address="x:1"))


def test_without_validation_data_epochs_are_not_evaluated() -> None:
    job = PureJob(workers=1)
    request = job.request()
    request.data.validation_samples = 0
    session = job.coordinator.register(request, 0.0).session
    job.ready(session)
    job.initialise()
    job.run([session])
    assert job.reports == [(pb.FINISH, 1)]


def test_a_paused_job_leases_nothing_and_a_resumed_one_uses_every_sample() -> None:
    job = PureJob()
    sessions = job.start()
    first = job.coordinator.next_task(sessions[0], job.now)
    assert first.kind == pb.TRAIN
    job.coordinator.operator.pause(True, job.now)
    assert job.coordinator.next_task(sessions[1], job.now).kind == pb.WAIT
    assert job.coordinator.next_task(sessions[0], job.now).kind == pb.WAIT  # its own lease is given back
    job.pass_time(1.0)
    assert job.phase() == Phase.TRAINING and "paused" in job.state.notes[-1]
    job.coordinator.operator.pause(True, job.now)
    job.coordinator.operator.pause(False, job.now)
    assert [(event.kind, event.elapsed_s) for event in job.state.events.since(0)] == [
        ("paused", pytest.approx(job.state.elapsed_at(job.now) - 1.0)), ("continued", job.state.elapsed_at(job.now)),
    ]  # fmt: skip
    assert [event.kind for event in job.state.events.since(1)] == ["continued"] and job.state.events.total == 2
    assert [note for note in job.state.notes if "paused" in note or note == "resumed"][-1] == "resumed"
    assert job.coordinator.next_task(sessions[1], job.now).kind == pb.TRAIN


def test_a_job_that_is_not_training_cannot_be_paused() -> None:
    with pytest.raises(InvalidRequest, match="while it trains; this one is waiting"):
        PureJob().coordinator.operator.pause(True, 0.0)


def test_a_job_that_is_stopped_before_its_first_worker_joins_is_interrupted() -> None:
    """Its run has not ended: `--resume` may continue it."""
    job = PureJob()
    job.coordinator.drain("SIGTERM", job.now)
    assert job.phase() == Phase.ENDED
    assert job.coordinator.work.summary().interrupted
