"""What a job is doing, as one message for `status`, the launcher's progress bar and every other watcher."""

from __future__ import annotations

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.trace.metrics import Rate, mean
from downpour.ps.trace.outcome_log import OutcomeLog


class ProgressReport:
    """Builds `Progress` messages from the coordinator and the metrics of shard 0."""

    def __init__(self, coordinator: Coordinator, records: OutcomeLog, run: str) -> None:
        """Reports of one job.

        Args:
            coordinator: The job.
            records: Of shard 0.
            run: Name of the run directory.
        """
        self._coordinator, self._records, self._run = coordinator, records, run
        self._rate, self._window = 0.0, Rate()
        self._rates: dict[int, float] = {}
        self._windows: dict[int, Rate] = {}

    def sample(self, now: float) -> None:
        """Takes the rates of the last seconds; to be called regularly."""
        self._rate = self._window.of(self._records.metrics.samples, now)
        for number, worker in self._records.metrics.workers.items():
            self._rates[number] = self._windows.setdefault(number, Rate()).of(worker.samples, now)

    def message(self, now: float, notes_from: int = 0) -> pb.Progress:
        """The state of the job, with the notes from `notes_from` on."""
        coordinator, metrics, settings = self._coordinator, self._records.metrics, self._coordinator.settings
        ledger = coordinator.ledger
        epoch = ledger.epoch if ledger else 0
        current = metrics.epochs.get(epoch)
        started = coordinator.started_s
        used, total = (ledger.used_total, ledger.total) if ledger else (0, 0)
        progress = pb.Progress(
            job=coordinator.job,
            model=settings.model,
            dataset=settings.dataset,
            mode=settings.mode,
            phase=coordinator.phase,
            epoch=epoch,
            epochs=settings.epochs,
            samples=used,
            total_samples=total,
            samples_per_s=self._rate,
            loss=current.loss if current else 0.0,
            accuracy=current.accuracy if current else 0.0,
            staleness_mean=mean(metrics.staleness),
            version=metrics.updates,
            dropped=metrics.dropped.total(),
            duplicates=metrics.duplicates,
            elapsed_s=now - started if started is not None else 0.0,
            eta_s=(total - used) / self._rate if self._rate > 0 else 0.0,
            shards=settings.shards,
            shards_joined=len(coordinator.shards),
            workers=self._workers(),
            notes=coordinator.notes[notes_from:],
            run=self._run,
            epoch_samples=ledger.used(epoch) if ledger else 0,
            samples_per_epoch=ledger.samples if ledger else 0,
        )
        if coordinator.evaluations:
            last = coordinator.evaluations[max(coordinator.evaluations)]
            progress.val_loss, progress.val_accuracy = last.loss, last.accuracy
        if coordinator.test is not None and coordinator.test.samples:
            progress.test_accuracy = coordinator.test.accuracy
        return progress

    def _workers(self) -> list[pb.WorkerProgress]:
        lines = []
        for member in self._coordinator.membership.members:
            line = pb.WorkerProgress(
                worker=member.worker,
                incarnation=member.incarnation,
                host=member.host,
                pid=member.pid,
                state=member.state,
            )
            known = self._records.metrics.workers.get(member.worker)
            if known is not None:
                line.updates, line.samples, line.dropped = known.updates, known.samples, known.dropped
                line.samples_per_s = self._rates.get(member.worker, 0.0)
                line.loss, line.staleness_last, line.staleness_mean = (
                    known.loss,
                    known.staleness_last,
                    mean(known.staleness),
                )
            lines.append(line)
        return lines
