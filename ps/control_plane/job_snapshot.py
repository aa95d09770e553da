"""Converts the coordinator's state to the facts of a checkpoint and back.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import Layout
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.ledger import Ledger, Span
from downpour.ps.storage.checkpoint_file import (
    Checkpoint,
    DataFacts,
    EpochFacts,
    EvaluationFacts,
    JobFacts,
    LedgerFacts,
    MetricsFacts,
    ShardFacts,
    TensorFacts,
    WorkerFacts,
)
from downpour.ps.trace.metrics import EpochMetrics, Metrics, WorkerMetrics


def job_facts(coordinator: Coordinator, metrics: Metrics, now: float) -> JobFacts:
    """Return the present facts of a job; those of the shards are not known yet."""
    layout, data, ledger = coordinator.job.layout, coordinator.job.data, coordinator.work.ledger
    assert layout is not None and data is not None
    settings, started = coordinator.job.settings, coordinator.job.started_s
    epoch, position = ledger.position if ledger is not None else (0, 0)
    return JobFacts(
        job=coordinator.job.name,
        generation=coordinator.job.generation,
        optimizer=settings.optimizer,
        seed=settings.seed,
        batch_size=settings.batch_size,
        layout=tuple(TensorFacts(name=t.name, shape=t.shape, section=t.section) for t in layout.tensors),
        data=DataFacts(
            name=data.name,
            checksum=data.checksum,
            train_samples=data.train_samples,
            validation_samples=data.validation_samples,
            test_samples=data.test_samples,
            numeric_targets=data.numeric_targets,
        ),
        ledger=LedgerFacts(unused=tuple(ledger.unused()) if ledger else (), epoch=epoch, position=position),
        incarnations=coordinator.job.membership.incarnations,
        shards=(ShardFacts(version=0, updates=(0,), time_s=0.0, records=0),),
        closed_epochs=coordinator.work.closed_epochs,
        evaluations={epoch: _evaluation(e) for epoch, e in coordinator.work.evaluations.items()},
        partial_pushes=coordinator.job.orphans.partial,
        elapsed_s=max(0.0, now - started) if started is not None else coordinator.job.elapsed_s,
        metrics=_metrics_facts(metrics),
        work=base64.b64encode(coordinator.work.state()).decode(),
    )


def with_shards(job: JobFacts, shards: Sequence[pb.SnapshotInfo]) -> JobFacts:
    """Return the job's facts with those of the shards added.

    A push that is buffered in every shard is not part of the checkpoint, so its samples are free. One that is buffered
    in some shards and part of the weights of others stays used, and is counted as partial.
    """
    waiting: list[set[Span]] = [{(s.epoch, s.start, s.stop) for s in shard.pending} for shard in shards]
    free = set.intersection(*waiting)
    partial = job.partial_pushes + len(set.union(*waiting) - free)
    facts = tuple(
        ShardFacts(
            version=s.version,
            updates=tuple(s.updates),
            time_s=s.time_s,
            records=s.records,
            gradients=tuple(s.gradients),
        )
        for s in shards
    )
    ledger = job.ledger.model_copy(update={"unused": tuple(sorted([*job.ledger.unused, *free]))})
    return job.model_copy(update={"shards": facts, "ledger": ledger, "partial_pushes": partial})


def check_fits(checkpoint: Checkpoint, coordinator: Coordinator) -> None:
    """Raise ValueError unless a job with these settings can be resumed from the checkpoint."""
    facts = checkpoint.facts
    saved: dict[str, str | int] = {"optimizer": facts.optimizer, "seed": facts.seed, "batch_size": facts.batch_size}
    coordinator.work.check_resumed(saved)


def restore_job(coordinator: Coordinator, metrics: Metrics, facts: JobFacts, later: str = "") -> None:
    """Restore layout, data, ledger and counts from a checkpoint; `Coordinator.restored` must follow.

    Args:
        coordinator: The coordinator of the job.
        metrics: The counts of shard 0.
        facts: The facts of the checkpoint.
        later: The state of a script's `fit` that was recorded after the checkpoint, in base64; empty if there is none.

    Raises:
        ValueError: The checkpoint's ledger does not fit the job's epochs.
        InvalidRequest: The checkpoint's layout cannot be cut into the job's number of shards.
    """
    if coordinator.work.restores_state:
        coordinator.work.restore_state(fit_state(facts, later))
    else:
        _restore_training(coordinator, facts)
    coordinator.job.membership.remember(facts.incarnations)
    coordinator.job.restore_progress(facts.elapsed_s, facts.partial_pushes)
    restore_metrics(metrics, facts.metrics)


def fit_state(facts: JobFacts, later: str) -> pb.FitState:
    """Return the state of a script's `fit`.

    Raises:
        ValueError: The checkpoint is not that of a script.
    """
    try:
        state = pb.FitState.FromString(base64.b64decode(later or facts.work))
    except DecodeError as error:
        raise ValueError(f"the checkpoint must hold the state of a script's fit; it does not: {error}") from error
    if not state.optimizers:
        raise ValueError("the checkpoint must be one of a script; received one of built-in training.")
    if state.HasField("leases") and not later:  # with the samples of pushes that no update has used yet
        del state.unused[:]
        state.unused.extend(pb.SampleRange(epoch=e, start=a, stop=b) for e, a, b in facts.ledger.unused)
    return state


def has_batches_left(state: pb.FitState) -> bool:
    """Return whether a worker that joins the current call of `fit` trains on some batches before its next metrics."""
    if state.over or state.kind != pb.EPOCH_METRICS:
        return True
    if state.complete:
        return False
    return bool(state.unused) or state.position_epoch <= state.epoch or not state.leases.samples


def _restore_training(coordinator: Coordinator, facts: JobFacts) -> None:
    layout = Layout.of((t.name, t.shape, t.section) for t in facts.layout)
    layout.cut(coordinator.job.settings.shards)
    ledger = Ledger(facts.data.train_samples, coordinator.job.settings.epochs, 1)
    ledger.restore(facts.ledger.unused, facts.ledger.epoch, facts.ledger.position)
    coordinator.agree(layout, pb.DatasetInfo(**facts.data.model_dump()))
    assert coordinator.work.ledger is not None
    coordinator.work.ledger.restore(facts.ledger.unused, facts.ledger.epoch, facts.ledger.position)
    coordinator.work.evaluations.clear()
    for epoch, result in facts.evaluations.items():
        coordinator.work.evaluations[epoch] = pb.Evaluation(**result.model_dump())


def _evaluation(result: pb.Evaluation) -> EvaluationFacts:
    return EvaluationFacts(samples=result.samples, loss=result.loss, accuracy=result.accuracy)


def _metrics_facts(metrics: Metrics) -> MetricsFacts:
    def worker(w: WorkerMetrics) -> WorkerFacts:
        staleness = dict(w.staleness)
        return WorkerFacts(updates=w.updates, samples=w.samples, dropped=w.dropped, loss=w.loss, staleness=staleness)

    return MetricsFacts(
        updates=metrics.updates,
        samples=metrics.samples,
        dropped=dict(metrics.dropped),
        duplicates=metrics.duplicates,
        workers={number: worker(w) for number, w in metrics.workers.items()},
        epochs={
            number: EpochFacts(samples=e.samples, loss_sum=e.loss_sum, correct=e.correct)
            for number, e in metrics.epochs.items()
        },
        since=metrics.since,
    )


def restore_metrics(metrics: Metrics, facts: MetricsFacts | None) -> None:
    """Restore the counts of a checkpoint, or zero; the counts of transferred bytes and duplicates are kept."""
    metrics.workers.clear()
    metrics.epochs.clear()
    facts = facts or MetricsFacts(updates=0, samples=0, dropped={}, duplicates=0, workers={}, epochs={})
    metrics.updates, metrics.samples = facts.updates, facts.samples
    metrics.since = facts.since
    metrics.dropped = Counter(facts.dropped)
    metrics.duplicates = max(metrics.duplicates, facts.duplicates)
    for number, w in facts.workers.items():
        metrics.workers[number] = WorkerMetrics(w.updates, w.samples, w.dropped, w.loss, Counter(w.staleness))
    for number, e in facts.epochs.items():
        metrics.epochs[number] = EpochMetrics(e.samples, e.loss_sum, e.correct)


def shard_facts(facts: JobFacts, shards: int) -> Mapping[int, ShardFacts]:
    """Return the facts of each of `shards` shards: its own if the number of shards is the same, else shard 0's.

    A shard that is new has an empty trace.
    """
    if shards == len(facts.shards):
        return dict(enumerate(facts.shards))
    first = facts.shards[0]
    none = first.model_copy(update={"records": 0})
    return {shard: first if shard == 0 else none for shard in range(shards)}
