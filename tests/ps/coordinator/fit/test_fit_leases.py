"""The leased samples of a script's `fit`, its summary and its progress."""

from __future__ import annotations

from collections import Counter

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest, Unsupported
from downpour.ps.control_plane.messages import ProgressReport
from downpour.ps.coordinator.phase import Phase
from downpour.ps.monitoring.summary import summary
from downpour.ps.trace.feed import TraceFeed
from downpour.ps.trace.metrics import EpochMetrics, Metrics
from downpour.ps.trace.outcome_log import OutcomeLog
from tests.support.pure.pure_fit import PureFit


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


@pytest.mark.parametrize("after", [[], [EpochMetrics()], [EpochMetrics(), EpochMetrics()]])
def test_the_loss_of_an_epoch_without_samples_is_that_of_the_last_one(after: list[EpochMetrics]) -> None:
    """A loss of 0.0000 would be shown while the next epoch begins, and when the job has ended."""
    job = PureFit()
    job.start(fit=pb.FitDescription(model="mine", epochs=4, batch_size=4, steps_per_epoch=10))
    finish_epochs(job, 1 + len(after))
    log = OutcomeLog(Metrics())
    log.metrics.epochs = dict(enumerate([EpochMetrics(samples=40, loss_sum=4.0), *after]))
    found = ProgressReport(job.coordinator, log, "run", TraceFeed(), lambda: None, {}).message(job.now)
    assert found.loss == pytest.approx(0.1)


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


@pytest.mark.parametrize(("asked", "status"), [(True, "interrupted"), (False, "ended")])
def test_a_script_that_is_stopped_before_its_first_call_of_fit_is_interrupted(asked: bool, status: str) -> None:
    """One that calls no `fit` and ends by itself is not."""
    job = PureFit()
    job.coordinator.drain("the user requested it", job.now, asked)
    assert job.state.phase == Phase.ENDED
    assert summary(job.coordinator, Metrics(), {})["status"] == status


@pytest.mark.parametrize("lease_samples", [0, 4])
def test_the_epoch_in_which_a_job_begins_to_drain_is_the_last_one(lease_samples: int) -> None:
    """Also if no worker has learned of it at the barriers: the next epoch would have no samples."""
    job = PureFit(lease_samples=lease_samples)
    job.start()
    job.begin_epoch()
    job.coordinator.drain("SIGTERM", job.now)
    for worker in (0, 1):
        job.meet(worker, 0, (1.0,))
    job.meet(0, 0, (1.0,), decision=pb.Decision(logs={"loss": 1.0}))
    job.pass_barrier(pb.EPOCH_END, 0, logs={"loss": 1.0})
    assert job.meet(1, 0, kind=pb.EPOCH_END).decision.stop


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


def test_worker_0_trains_alone_during_the_warm_start() -> None:
    job = PureFit(lease_samples=4, warm_start=6)
    job.start()
    job.begin_epoch()
    assert job.task(1).kind == pb.WAIT
    job.use(0, job.task(0))
    assert job.task(1).kind == pb.WAIT
    job.use(0, job.task(0))  # 8 batches of one sample
    assert job.task(1).kind == pb.TRAIN


def test_worker_0_uses_the_parts_of_all_workers_during_the_warm_start() -> None:
    """In bsp each worker has a part of the samples, which is smaller than this warm start."""
    job = PureFit(lease_samples=4, warm_start=16, mode="bsp")
    job.start()
    job.begin_epoch()
    used = 0
    while used < 16:
        assert job.task(1).kind == pb.WAIT
        task = job.task(0)
        assert task.kind == pb.TRAIN
        job.use(0, task)
        used += task.stop - task.start
    assert job.task(1).kind == pb.TRAIN


def test_a_warm_start_needs_data_that_are_leased() -> None:
    with pytest.raises(Unsupported, match="--warm-start 6"):
        PureFit(warm_start=6).join(0)


def call_of_fit(job: PureFit, number: int, batch: int, lease_samples: int = 4) -> None:
    """Go through a call of `fit` of one epoch with data whose batches have so many samples."""
    data = pb.DatasetInfo(
        name="script", checksum="c", train_samples=20, lease_samples=lease_samples, batch_samples=batch
    )
    job.start(fit_call=number, data=data)
    job.begin_epoch()
    while lease_samples and (task := job.task(0)).kind == pb.TRAIN:
        job.use(0, task)
    job.finish_epoch(0)
    job.finish_fit()


@pytest.mark.parametrize("calls", [1, 2])
def test_data_that_are_not_leased_are_refused_before_a_generation_begins_and_only_during_the_warm_start(
    calls: int,
) -> None:
    job = PureFit(lease_samples=4, warm_start=15)
    for number in range(1, calls + 1):
        call_of_fit(job, number, batch=2)  # 10 batches
    generation = job.state.generation
    for _ in range(3):
        if calls == 1:
            with pytest.raises(Unsupported, match="--warm-start 15"):
                job.join(0, calls + 1, data=pb.DatasetInfo(name="script", checksum="c", train_samples=20))
            assert job.state.generation == generation
    if calls == 2:
        call_of_fit(job, calls + 1, batch=0, lease_samples=0)


def test_larger_batches_of_a_later_call_do_not_begin_the_warm_start_again() -> None:
    job = PureFit(lease_samples=4, warm_start=6)
    call_of_fit(job, 1, batch=2)
    data = pb.DatasetInfo(name="script", checksum="c", train_samples=20, lease_samples=4, batch_samples=4)
    job.start(fit_call=2, data=data)
    job.begin_epoch()
    assert job.task(1).kind == pb.TRAIN
    assert job.work.state()
