"""A script's calls of `fit` on the coordinator: stages, barriers, learning rates, leases and the summary."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, JobConflict, LayoutMismatch, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.messages import ProgressReport
from downpour.ps.coordinator.admission import settings_with_optimizers
from downpour.ps.coordinator.deadlines import BARRIER_S
from downpour.ps.coordinator.job_factory import new_coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.monitoring.summary import summary
from downpour.ps.trace.feed import TraceFeed
from downpour.ps.trace.metrics import EpochMetrics, Metrics
from downpour.ps.trace.outcome_log import OutcomeLog
from tests.support.pure_fit import MOMENTUM, PureFit, rates

# ---------------------------------------------------------------------- the optimizer


def test_a_script_brings_its_optimizer_and_the_shards_receive_it_with_its_rates() -> None:
    job = PureFit()
    job.join(0)
    (command,) = [command for command in job.commands if command.settings]
    settings = json.loads(command.settings)
    assert (settings["optimizer"], settings["learning_rate"], settings["momentum"]) == ("momentum", 0.1, 0.5)
    assert list(command.learning_rates) == [rates(0.1)]
    assert [command.HasField("layout") for command in job.commands].index(True) > job.commands.index(command)


def test_the_hyperparameters_of_the_server_do_not_mix_with_those_of_the_script() -> None:
    server = ServerSettings.model_validate({"optimizer": "adam", "script": True, "beta_1": 0.5})
    settings = settings_with_optimizers(server, [pb.OptimizerSpec(name="momentum", hyperparameters=MOMENTUM)])
    assert (settings.optimizer, settings.model_dump()["beta_1"]) == ("momentum", None)
    assert settings.session_s == server.session_s


@pytest.mark.parametrize(
    "spec",
    [
        pb.OptimizerSpec(name="muon"),
        pb.OptimizerSpec(name="sgd", hyperparameters={"beta_1": 0.9}),
        pb.OptimizerSpec(name="sgd", hyperparameters={"learning_rate": -1.0}),
    ],
)
def test_an_optimizer_that_the_servers_do_not_have_is_refused_and_begins_nothing(spec: pb.OptimizerSpec) -> None:
    job = PureFit()
    with pytest.raises(Unsupported):
        job.join(0, optimizers=[spec])
    job.deliver()
    assert job.work.fit_call == 0 and not job.commands and not len(job.state.membership)


def test_all_workers_bring_the_same_optimizer() -> None:
    job = PureFit()
    job.join(0)
    with pytest.raises(JobConflict, match="the same optimizers, momentum; received adam"):
        job.join(1, optimizers=[pb.OptimizerSpec(name="adam", learning_rates=rates(0.1))])


@pytest.mark.parametrize("mode", ["easgd", "local_sgd"])
def test_a_mode_without_gradients_is_refused_when_the_server_starts(mode: str) -> None:
    with pytest.raises((Unsupported, ValueError)):
        new_coordinator(ServerSettings(mode=mode, script=True), "job-1", lambda: 1)


def test_only_worker_0_sets_learning_rates() -> None:
    job = PureFit()
    job.start()
    table = rates(0.05, 0.01)
    job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[0], rates=[table]), job.now)
    job.deliver()
    assert list(job.commands[-1].learning_rates) == [table]
    before = len(job.commands)
    with pytest.raises(InvalidRequest, match="worker 0 must set the learning rate; received it from 1"):
        job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[1], rates=[table]), job.now)
    unsorted = pb.LearningRates(updates=[1, 0], rates=[0.1, 0.1])
    with pytest.raises(InvalidRequest):
        job.coordinator.set_rates(pb.SetLearningRatesRequest(session=job.sessions[0], rates=[unsorted]), job.now)
    job.deliver()
    assert len(job.commands) == before


# ---------------------------------------------------------------------- stages


def test_the_next_call_of_fit_begins_a_generation_when_all_workers_have_left_the_one_before() -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0)
    assert not job.work.may_register(job.request(0, fit_call=2))
    job.finish_fit()
    assert job.work.may_register(job.request(0, fit_call=2))
    job.start(fit_call=2)
    assert (job.work.fit_call, job.state.generation, job.state.phase) == (2, 2, Phase.TRAINING)
    assert list(job.work.decisions) == [] and job.work.epochs_done == 1


def test_a_late_worker_receives_the_decisions_of_the_completed_calls() -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0, logs={"loss": 1.0})
    assert job.work.past_reply(job.request(1)) is None
    job.finish_fit()
    first = job.work.past_reply(job.request(1))
    job.start(fit_call=2)
    assert first is not None and first == job.work.past_reply(job.request(1))
    assert [decision.logs["loss"] for decision in first.decisions] == [1.0]


def initialised(job: PureFit) -> None:
    event = pb.ShardEvent(initialised=True, initialisation=job.state.shards.initialisation)
    job.coordinator.shard_event(0, event, job.now)
    job.deliver()


def test_training_begins_when_worker_0_has_sent_the_slots_too() -> None:
    """The shards have weights before worker 0 assigns the slots of an earlier call."""
    job = PureFit()
    job.join(0)
    job.join(1)
    assert job.ready(0).initialise and not job.ready(1).start
    initialised(job)
    assert not job.ready(1).start and job.phase() == Phase.INITIALISING
    assert job.ready(0, initialised=True).start and job.ready(1).start


def test_a_worker_0_that_dies_before_it_has_sent_the_slots_sends_all_again() -> None:
    job = PureFit()
    job.join(0)
    job.join(1)
    assert job.ready(0).initialise
    initialised(job)
    job.coordinator.leave(0, job.now)
    job.deliver()
    assert not job.ready(1).initialise  # it may have no slots of the calls before
    initialised_before = job.state.shards.initialised
    job.join(0)
    assert not initialised_before and job.ready(0).initialise
    initialised(job)
    assert not job.ready(1).start and job.ready(0, initialised=True).start


@pytest.mark.parametrize("fit_call", [0, 2])
def test_a_call_of_fit_that_is_not_due_is_refused(fit_call: int) -> None:
    job = PureFit()
    with pytest.raises((JobConflict, Unsupported)):
        job.join(0, fit_call=fit_call)
    assert job.work.fit_call == 0 and not len(job.state.membership)


def test_names_of_weights_may_differ_but_not_their_shapes() -> None:
    job = PureFit()
    job.join(0)
    job.join(1, layout=Layout.of([("other_name", (6,), TRAINED)]).to_proto())
    with pytest.raises(LayoutMismatch, match="the same weights on all workers"):
        job.join(2, layout=Layout.of([("w", (7,), TRAINED)]).to_proto())
    assert len(job.state.membership) == 2


def with_data(**fingerprints: str) -> pb.DatasetInfo:
    return pb.DatasetInfo(name="script", checksum="c", train_samples=20, fingerprints=fingerprints)


def test_other_data_refuse_the_call_for_all_workers_and_the_next_call_may_begin() -> None:
    job = PureFit()
    job.join(0, data=with_data(x="float32[4] aa", y="int64[4] bb"))
    with pytest.raises(LayoutMismatch, match=r"x = float32\[4\] aa on one worker, float32\[4\] dd .* seed"):
        job.join(1, data=with_data(x="float32[4] dd", y="int64[4] bb"))
    for attempt in (lambda: job.ready(0), lambda: job.join(2, data=with_data(x="float32[4] aa", y="int64[4] bb"))):
        with pytest.raises(LayoutMismatch, match="before they are divided"):
            attempt()
    job.coordinator.leave(0, job.now)
    job.work.tick(1e9)
    assert not job.state.notes
    job.start(fit_call=2)


def test_an_array_that_only_one_worker_has_is_named() -> None:
    job = PureFit()
    job.join(0, data=with_data(x="float32[4] aa"))
    with pytest.raises(LayoutMismatch, match=r"y = none on one worker, int64\[4\] bb on another"):
        job.join(1, data=with_data(x="float32[4] aa", y="int64[4] bb"))


# ---------------------------------------------------------------------- barriers


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
    assert list(job.meet(1, values=(1.0, 2.0)).decision.learning_rates) == [0.5]
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
    assert late is not None and late.failure.text == "pruned"
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


# ---------------------------------------------------------------------- leased samples and the summary


def train_leased(job: PureFit, epochs: int, workers: int = 2) -> Counter[tuple[int, int]]:
    """All workers use the leases of every epoch; returns how often each position was used."""
    used: Counter[tuple[int, int]] = Counter()
    for epoch in range(epochs):
        busy = set(range(workers))
        while busy:
            for worker in sorted(busy):
                task = job.task(worker)
                if task.kind == pb.TRAIN:
                    job.use(worker, task)
                    used.update((task.epoch, position) for position in range(task.start, task.stop))
                elif task.kind == pb.END:
                    busy.discard(worker)
        job.finish_epoch(epoch, workers)
    return used


def test_every_sample_of_every_epoch_is_leased_once() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    assert train_leased(job, 3) == Counter((epoch, position) for epoch in range(3) for position in range(20))


def test_samples_are_not_leased_unless_the_script_asks_for_it() -> None:
    job = PureFit()
    job.start()
    with pytest.raises(InvalidRequest, match="divided in advance"):
        job.task(0)


@pytest.mark.parametrize("lease_samples", [0, 4])
def test_the_summary_of_a_script_states_its_own_work(lease_samples: int) -> None:
    job = PureFit(lease_samples=lease_samples, epochs=77, batch_size=55)
    job.start()
    if lease_samples:
        train_leased(job, 2)
    else:
        job.finish_epoch(0)
        job.finish_epoch(1)
    job.finish_fit()
    job.coordinator.drain("asked to stop", job.now)
    found = summary(job.coordinator, Metrics(), {})
    assert found["status"] == "ended"
    assert found["epochs_done"] == 2 and found["epochs"] is None and found["batch_size"] is None
    assert found["samples"] == (40 if lease_samples else 0)


def finish_epochs(job: PureFit, count: int) -> None:
    """Complete some epochs whose logs are those of `logs_of`."""
    for epoch in range(count):
        job.finish_epoch(epoch, logs=logs_of(epoch))


def logs_of(epoch: int) -> dict[str, float]:
    return {"loss": 1.0 / (epoch + 1), "accuracy": 0.5, "val_loss": 2.0, "val_mae": 0.25}


def test_the_summary_of_a_script_states_its_model_its_epochs_and_its_logs() -> None:
    job = PureFit()
    for fit_call, (first, last) in enumerate([(0, 2), (2, 5)], start=1):
        fit = pb.FitDescription(model="mine", initial_epoch=first, epochs=last, batch_size=48)
        job.start(fit_call=fit_call, fit=fit)
        finish_epochs(job, last - first)
        job.finish_fit()
    found = summary(job.coordinator, Metrics(), {})
    assert (found["model"], found["epochs"], found["epochs_done"], found["batch_size"]) == ("mine", 5, 5, 48)
    assert [row["epoch"] for row in found["history"]] == [1, 2, 3, 4, 5]
    assert found["history"][-1] == {"epoch": 5, **logs_of(2)} and found["metrics"] == logs_of(2)
    newest = [found[name] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy")]
    assert newest == [logs_of(2)["loss"], 0.5, 2.0, None, None]


@pytest.mark.parametrize(("per_epoch", "complete", "share"), [(40, 0, 5 / 120), (40, 1, 45 / 120), (0, 1, 45 / 120)])
def test_the_progress_of_a_script_is_that_of_its_current_call(per_epoch: int, complete: int, share: float) -> None:
    """40 samples are one epoch of three; where their number is not known, the first epoch counts them."""
    job = PureFit()
    steps = per_epoch // 4
    fit = pb.FitDescription(model="mine", initial_epoch=1, epochs=4, batch_size=4, steps_per_epoch=steps)
    job.start(fit=fit)
    finish_epochs(job, complete)
    log = OutcomeLog(Metrics())
    log.metrics.epochs = {epoch: EpochMetrics(samples=40, loss_sum=4.0) for epoch in range(complete)}
    log.metrics.epochs[complete] = EpochMetrics(samples=5, loss_sum=2.0)
    found = ProgressReport(job.coordinator, log, "run", TraceFeed(), lambda: None, {}).message(job.now)
    assert (found.model, found.epoch, found.epochs, found.batch_size) == ("mine", 1 + complete, 4, 4)
    assert found.samples / found.total_samples == pytest.approx(share)
    assert found.loss == pytest.approx(0.4)
    assert dict(found.metrics) == (logs_of(complete - 1) if complete else {})


@pytest.mark.parametrize("lease_samples", [0, 4])
def test_the_summary_of_a_stopped_script_states_the_interruption(lease_samples: int) -> None:
    job = PureFit(lease_samples=lease_samples)
    job.start()
    job.finish_epoch(0)
    job.coordinator.drain("SIGTERM", job.now)
    assert job.coordinator.draining and job.state.phase == Phase.TRAINING
    for worker in (0, 1):
        job.coordinator.leave(worker, job.now)
    job.coordinator.drain("asked to stop", job.now)
    assert summary(job.coordinator, Metrics(), {})["status"] == "interrupted"


def test_a_request_to_end_between_two_calls_of_fit_interrupts_nothing() -> None:
    job = PureFit()
    job.start()
    job.pass_barrier(pb.FIT_END, stop=True)
    job.coordinator.drain("asked to stop", job.now)
    for worker in (0, 1):
        job.coordinator.leave(worker, job.now)
    job.coordinator.drain("asked to stop", job.now)
    assert summary(job.coordinator, Metrics(), {})["status"] == "ended"


def test_a_script_has_no_evaluation_tasks() -> None:
    job = PureFit(lease_samples=4)
    job.start()
    assert job.work.ledger is not None and job.work.checkpointable
    with pytest.raises(InvalidRequest, match="only built-in training has evaluation tasks"):
        job.coordinator.report(pb.ReportRequest(session=job.sessions[0], kind=pb.VALIDATE), job.now)
