"""The event file of a run for TensorBoard: scalars by version, histograms of staleness and the configuration."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from downpour.protos import events_pb2 as events
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import counted, sentence
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.monitoring.tfevents import EventFile, histogram, scalar, settings, text
from downpour.ps.trace.metrics import Metrics, mean

FOLDER = "tensorboard"
EVERY_S = 1.0
HYPERPARAMETERS = (
    "model", "dataset", "optimizer", "mode", "workers", "shards", "staleness_policy", "push_every", "codec",
    "transport", "seed",
)  # fmt: skip
MOST_WORKERS = 16  # that have histograms of their own


class TensorBoardWriter:
    """Writes the progress of a job at most every `EVERY_S` seconds. The step is the version."""

    def __init__(self, run: Path, coordinator: Coordinator, metrics: Metrics) -> None:
        """Prepare to write to a run directory.

        Args:
            run: The run directory.
            coordinator: The coordinator of the job.
            metrics: The metrics of shard 0.
        """
        self._run, self._coordinator, self._metrics = run, coordinator, metrics
        self._file: EventFile | None = None
        self._written_s = -math.inf
        self._failing = ""
        self._described = False  # the hyperparameters are in the file
        self._configuration = ""
        self._updates = self._samples = 0
        self._loss, self._correct, self._losses = 0.0, 0, 0
        self._staleness: dict[int, Counter[int]] = {}
        self._evaluated = 0
        self._tested = False

    def write(self, now: float, last: bool = False) -> None:
        """Write the values that are new.

        Args:
            now: The time in seconds since 1970.
            last: Whether this is the last call, which closes the file.
        """
        if now < self._written_s + EVERY_S and not last:
            return
        values = [*self._new_configuration(), *self._of_training(now), *self._of_evaluations()]
        self._written_s = now
        if values:
            self._append(now, values)
        if last and self._file is not None:
            self._file.close()

    def _append(self, now: float, values: list[events.Value]) -> None:
        """Write values. If the disk refuses them, the curves have a gap, and a note reports it."""
        failing = ""
        try:
            job = self._coordinator.job.settings
            self._file = self._file or EventFile(self._run / FOLDER / name_of(job), now)
            described = [] if self._described else [settings(hyperparameters(job), self._run.name, now)]
            self._file.write(now, self._metrics.updates, [*described, *values])
            self._described = True
        except OSError as error:
            failing = reason_of(error)
        if failing and not self._failing:
            self._coordinator.job.notes.append(sentence("tensorboard_not_written", reason=failing))
        elif self._failing and not failing:
            self._coordinator.job.notes.append(sentence("tensorboard_again"))
        self._failing = failing

    def _new_configuration(self) -> Iterator[events.Value]:
        try:
            content = (self._run / "config.json").read_text()
        except OSError:
            return
        if content != self._configuration:
            self._configuration = content
            yield text("configuration", _markdown(json.loads(content)))

    def _of_training(self, now: float) -> Iterator[events.Value]:
        metrics = self._metrics
        updates, samples = metrics.updates - self._updates, metrics.samples - self._samples
        if updates <= 0:
            return
        epochs = metrics.epochs.values()
        loss, correct = sum(each.loss_sum for each in epochs), sum(each.correct for each in epochs)
        losses = sum(each.samples for each in epochs)
        if losses > self._losses:
            yield scalar("train/loss", (loss - self._loss) / (losses - self._losses))
            if correct:  # scripts do not report it
                yield scalar("train/accuracy", (correct - self._correct) / (losses - self._losses))
        if self._updates:
            yield scalar("speed/samples per s", samples / (now - self._written_s))
            yield scalar("speed/updates per s", updates / (now - self._written_s))
        yield scalar("pushes/dropped", metrics.dropped.total())
        yield scalar("job/workers", len(self._coordinator.job.membership))
        yield from self._of_staleness()
        self._updates, self._samples = metrics.updates, metrics.samples
        self._loss, self._correct, self._losses = loss, correct, losses

    def _of_staleness(self) -> Iterator[events.Value]:
        new: Counter[int] = Counter()
        for number, worker in sorted(self._metrics.workers.items()):
            of_worker = worker.staleness - self._staleness.get(number, Counter())
            self._staleness[number] = worker.staleness.copy()
            new += of_worker
            if of_worker and number < MOST_WORKERS:
                yield histogram(f"staleness/worker {number}", of_worker)
        if new:
            yield histogram("staleness/all", new)
            yield scalar("staleness/mean", mean(new))

    def _of_evaluations(self) -> Iterator[events.Value]:
        work = self._coordinator.work
        epochs, results = work.newest_results()
        if epochs > self._evaluated:
            self._evaluated = epochs
            for name, value in sorted(results.items()):
                yield scalar(name, value)
        if work.test is not None and not self._tested:
            self._tested = True
            yield scalar("test/loss", work.test.loss)
            if work.has_accuracy:
                yield scalar("test/accuracy", work.test.accuracy)


def name_of(job: ServerSettings) -> str:
    """Return the name of the folder that TensorBoard shows after that of the run, such as `ssp-2-4-workers`."""
    return f"{re.sub('[^a-z0-9.]+', '-', job.mode)}-{counted(job.workers, 'worker').replace(' ', '-')}"


def hyperparameters(job: ServerSettings) -> dict[str, object]:
    """Return the settings by which TensorBoard's page HPARAMS compares runs."""
    values = {name: getattr(job, name) for name in HYPERPARAMETERS}
    rate = {} if job.script else {"learning_rate": job.effective_learning_rate, "batch_size": job.batch_size}
    return {**{name: value for name, value in values.items() if value is not None}, **rate}


def _markdown(configuration: dict[str, Any]) -> str:
    """Return the configuration as Markdown tables, one per section."""
    parts = []
    for name, part in configuration.items():
        rows = part if isinstance(part, dict) else dict(enumerate(part))
        lines = [f"### {name}", "", "| | |", "|---|---|"]
        parts.append("\n".join([*lines, *(f"| {key} | {value} |" for key, value in rows.items())]))
    return "\n\n".join(parts)
