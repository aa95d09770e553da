"""Messages about a job: its description for workers, and its progress for `status`, launchers and other watchers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import to_proto
from downpour.protos.frame import CHUNK_BYTES
from downpour.protos.protocol import PROTOCOL
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import OVER, Phase
from downpour.ps.coordinator.work import WorkProgress
from downpour.ps.trace.feed import Subscription, TraceFeed
from downpour.ps.trace.metrics import Rate, mean, throughput
from downpour.ps.trace.outcome_log import OutcomeLog

HEARTBEAT_S = 1.0


def job_description(coordinator: Coordinator) -> pb.JobDescription:
    """Return the description of the job that every worker needs."""
    settings = coordinator.job.settings
    return pb.JobDescription(
        protocol=PROTOCOL,
        job=coordinator.job.name,
        model=settings.model,
        dataset=settings.dataset,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        validation_split=settings.validation_split,
        codec=settings.codec,
        transport=settings.transport,
        mode=settings.mode,
        heartbeat_s=HEARTBEAT_S,
        session_s=settings.session_s,
        nonfinite_limit=settings.nonfinite_limit,
        clip_norm=settings.clip_norm,
        workers=settings.workers,
        shards=settings.shards,
        learning_rate=settings.effective_learning_rate,
        push_every=settings.push_every,
        fetch_every=settings.fetch_every or settings.push_every,
        overlap=settings.overlap,
        lease_batches=settings.lease_batches,
        warm_start=settings.warm_start,
        phase=coordinator.job.phase,
        chunk_bytes=CHUNK_BYTES,
        script=settings.script,
        reconnect_s=settings.reconnect_s,
        spread_validation=settings.spread_validation,
    )


class ProgressReport:
    """Builds the `Progress` messages of one job, with rates over the last seconds."""

    def __init__(
        self,
        coordinator: Coordinator,
        records: OutcomeLog,
        run: str,
        feed: TraceFeed,
        flush: Callable[[], None],
        others: Mapping[int, pb.ShardCounters],
    ) -> None:
        """Create a report without any rates yet.

        Args:
            coordinator: The coordinator of the job.
            records: The trace of the outcomes of shard 0.
            run: The name of the run directory.
            feed: The feed that receives new records of all shards' traces.
            flush: Publishes the newest records of shard 0.
            others: The newest totals of the other shards.
        """
        self.feed, self._flush = feed, flush
        self._coordinator, self._records, self._run, self._others = coordinator, records, run, others
        self._rate, self._window = 0.0, Rate()
        self._rates: dict[int, float] = {}
        self._waiting_s: float | None = None  # the time since when training is waited for
        self._windows: dict[int, Rate] = {}

    def sample(self, now: float) -> None:
        """Update the rates, and since when training is waited for; must be called regularly."""
        started = self._coordinator.job.started_s
        self._waiting_s = None if started is not None else now if self._waiting_s is None else self._waiting_s
        self._rate = self._window.of(self._records.metrics.samples, now)
        for number, worker in self._records.metrics.workers.items():
            self._rates[number] = self._windows.setdefault(number, Rate()).of(worker.samples, now)

    def message(self, now: float, notes_from: int = 0, events_from: int = 0) -> pb.Progress:
        """Return the present state of the job, with the notes and the events from these numbers on."""
        notes = self._coordinator.job.notes.since(notes_from)
        coordinator, metrics, settings = self._coordinator, self._records.metrics, self._coordinator.job.settings
        place = coordinator.work.progress()
        current = metrics.epochs.get(metrics.since + place.epoch - place.remaining_from)
        if current is None or not current.samples:  # an epoch that has just begun, or after the last one
            current = next((each for each in reversed(metrics.epochs.values()) if each.samples), None)
        started = coordinator.job.started_s
        since = self._waiting_s if started is None else started
        used, total, of_epoch, per_epoch = self._samples_used(place)
        rate = self._rate if coordinator.job.phase not in (Phase.FINISHING, *OVER) else throughput(metrics, started)[0]
        progress = pb.Progress(
            job=coordinator.job.name,
            model=settings.model,
            dataset=settings.dataset,
            mode=settings.mode,
            phase=coordinator.job.phase,
            epoch=place.epoch,
            epochs=place.epochs,
            samples=used,
            total_samples=total,
            samples_per_s=rate,
            loss=current.loss if current else 0.0,
            accuracy=current.accuracy if current else 0.0,
            staleness_mean=mean(metrics.staleness),
            version=metrics.updates,
            dropped=metrics.dropped.total(),
            duplicates=metrics.duplicates,
            elapsed_s=now - since if since is not None else 0.0,
            workers_wanted=coordinator.job.workers_wanted,
            staleness_policy=settings.staleness_policy,
            learning_rate=0.0 if settings.script else settings.effective_learning_rate,
            eta_s=(total - used) / self._rate if self._rate > 0 else 0.0,
            shards=settings.shards,
            shards_joined=len(coordinator.job.shards),
            workers=self._workers(),
            notes=notes,
            sentences=map(to_proto, notes),
            events=coordinator.job.events.since(events_from),
            run=self._run,
            epoch_samples=of_epoch,
            samples_per_epoch=per_epoch,
            optimizer=settings.optimizer,
            batch_size=place.batch_size,
            metrics=place.metrics,
            paused=coordinator.job.paused,
            bytes_pushed=metrics.bytes_pushed + sum(each.bytes_pushed for each in self._others.values()),
            bytes_pulled=metrics.bytes_pulled + sum(each.bytes_pulled for each in self._others.values()),
        )
        if coordinator.work.evaluations:
            last = coordinator.work.evaluations[max(coordinator.work.evaluations)]
            progress.val_loss = last.loss
            if coordinator.work.has_accuracy:
                progress.val_accuracy = last.accuracy
        if coordinator.work.test is not None and coordinator.work.test.samples and coordinator.work.has_accuracy:
            progress.test_accuracy = coordinator.work.test.accuracy
        return progress

    def _samples_used(self, place: WorkProgress) -> tuple[int, int, int, int]:
        """Return the samples used so far and in all epochs, and those used in the current epoch and in a whole one.

        Leases count them in built-in training. A script's are counted by its pushes, from the beginning of `fit`.
        """
        work, metrics = self._coordinator.work, self._records.metrics
        ledger = work.ledger
        if work.progress_by_leases:
            of_epoch = ledger.used(place.epoch) if ledger else 0
            return (ledger.used_total, ledger.total, of_epoch, ledger.samples) if ledger else (0, 0, 0, 0)
        counts = {number - metrics.since: each.samples for number, each in metrics.epochs.items()}
        complete = place.epoch - place.remaining_from
        per_epoch = counts.get(0, 0) if complete else place.samples_per_epoch
        used = sum(count for number, count in counts.items() if number >= 0)
        total = per_epoch * max(0, place.epochs - place.remaining_from)
        return min(used, total), total, counts.get(complete, 0), per_epoch

    def add_records(self, progress: pb.Progress, subscription: Subscription) -> None:
        """Add the trace records that a watcher has not received yet to a message for it."""
        self._flush()
        records, progress.skipped_bytes = subscription.take()
        progress.records.extend(pb.TraceRecords(shard=shard, records=part) for shard, part in records.items())

    def _workers(self) -> list[pb.WorkerProgress]:
        found = []
        for member in self._coordinator.job.membership.members:
            progress = pb.WorkerProgress(
                worker=member.worker,
                incarnation=member.incarnation,
                host=member.host,
                pid=member.pid,
                state=member.state,
            )
            known = self._records.metrics.workers.get(member.worker)
            if known is not None:
                progress.updates, progress.samples, progress.dropped = known.updates, known.samples, known.dropped
                progress.samples_per_s = self._rates.get(member.worker, 0.0)
                progress.loss, progress.staleness_last = known.loss, known.staleness_last
                progress.staleness_mean = mean(known.staleness)
            found.append(progress)
        return found
