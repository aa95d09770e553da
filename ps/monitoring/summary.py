"""The summary of a job and the configuration that it ran with, as the run directory keeps them."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.sentences.sentence import to_json
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.phase import Phase
from downpour.ps.coordinator.work import Work, WorkSummary
from downpour.ps.core.rules.hyperparameters import resolve
from downpour.ps.trace.metrics import Metrics, divergence, staleness_summary, throughput

SCHEMA_VERSION = 2  # 2: the epochs of the history are numbered from 1


def configuration(
    settings: ServerSettings, facts: Mapping[tuple[int, int], dict[str, str]], data: pb.DatasetInfo | None = None
) -> dict[str, Any]:
    """Return every setting, version and fact that is needed to reproduce the job bit by bit."""
    # platform.platform() starts a process, which inherits the server's sockets and may briefly outlive the server.
    system = "-".join((platform.system(), platform.release(), platform.machine()))
    versions = {"python": platform.python_version(), "platform": system, **_package_versions()}
    same: list[dict[str, Any]] = []  # all workers usually report the same facts
    for life, each in facts.items():
        group = next((group for group in same if group["facts"] == each), None)
        if group is None:
            same.append({"facts": each, "incarnations": [life]})
        else:
            group["incarnations"].append(life)
    return {
        "settings": settings.model_dump(),
        "optimizer": {"name": settings.optimizer, **resolve(settings.optimizer, settings.hyper)},
        "versions": versions,
        "data": {"name": data.name, "checksum": data.checksum, "train_samples": data.train_samples} if data else {},
        "worker": next(iter(facts.values()), {}),
        "workers": same,
    }


@functools.cache
def _package_versions() -> dict[str, str]:
    versions = {}
    for package in ("downpour-ps", "numpy", "grpcio", "protobuf"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def summary(coordinator: Coordinator, metrics: Metrics, totals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the job: settings, counts, losses, accuracies, staleness; null where it is not known."""
    job, work = coordinator.job, coordinator.work.summary()
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "interrupted" if work.interrupted and job.phase == Phase.ENDED else str(job.phase),
        **_description(job, work),
        **_throughput(job, work, metrics),
        **_results(coordinator.work, metrics),
        "diverged": divergence(metrics) or None,
        "staleness": staleness_summary(metrics),
        "communication_share": job.exchange_s / job.step_s if job.step_s else None,
        **totals,
        "dropped_by_reason": dict(metrics.dropped),
        "history": _history(coordinator.work, metrics),
        "checkpoint_versions": [list(each) for each in job.checkpoints],
        "changes": [each.model_dump() for each in job.changes],
        "notes": job.notes,
        "sentences": [to_json(note) for note in job.notes],
        "events": [
            {"kind": event.kind, "elapsed_s": event.elapsed_s, "number": event.number, "version": event.version}
            for event in job.events.since(0)
        ],
    }


def _description(job: Job, work: WorkSummary) -> dict[str, Any]:
    settings = job.settings
    return {
        "job": job.name,
        "model": settings.model,
        "dataset": settings.dataset,
        "workers": settings.workers,
        "shards": settings.shards,
        "mode": settings.mode,
        "staleness_policy": settings.staleness_policy,
        "optimizer": settings.optimizer,
        "learning_rate": settings.effective_learning_rate,
        "batch_size": work.batch_size,
        "epochs": work.epochs,
        "epochs_done": work.epochs_done,
        "seed": settings.seed,
        "transport": settings.transport,
        "codec": settings.codec,
    }


def _throughput(job: Job, work: WorkSummary, metrics: Metrics) -> dict[str, Any]:
    rate, wall_s = throughput(metrics, job.started_s)
    return {
        "updates": metrics.updates,
        "samples": metrics.samples if work.samples is None else work.samples,
        "samples_per_s": rate,
        "wall_s": wall_s,
    }


def _results(work: Work, metrics: Metrics) -> dict[str, Any]:
    """Return the newest losses and accuracies on the training, validation and test data."""
    trained = _trained_epochs(metrics)
    last = metrics.epochs[trained[-1]] if trained else None
    validation = work.evaluations[max(work.evaluations)] if work.evaluations else None
    test = work.test if work.test and work.test.samples else None
    logs = history[-1] if (history := work.summary().history) else {}
    return {
        "train_loss": logs.get("loss", last.loss if last else None),
        "train_accuracy": last.accuracy if last and work.counts_accuracy else logs.get("accuracy"),
        "val_loss": validation.loss if validation else logs.get("val_loss"),
        "val_accuracy": validation.accuracy if validation and work.counts_accuracy else logs.get("val_accuracy"),
        "test_loss": test.loss if test else None,
        "test_accuracy": test.accuracy if test and work.counts_accuracy else None,
        "test_samples": test.samples if test else 0,
        "metrics": dict(logs),
    }


def _history(work: Work, metrics: Metrics) -> list[dict[str, Any]]:
    """Return the results of each trained epoch, which are numbered from 1 as in the logs.

    Those of a script are the logs of its epochs, by the names of Keras. In built-in training, only evaluated epochs
    have validation results.
    """
    if (logs := work.summary().history) is not None:
        return [{"epoch": epoch, **each} for epoch, each in enumerate(logs, start=1)]
    history = []
    for epoch in _trained_epochs(metrics):
        trained, validation = metrics.epochs[epoch], work.evaluations.get(epoch)
        row = {"epoch": epoch + 1, "train_loss": trained.loss}
        row |= {"train_accuracy": trained.accuracy} if work.has_accuracy else {}
        if validation is not None:
            row |= {"val_loss": validation.loss}
            row |= {"val_accuracy": validation.accuracy} if work.has_accuracy else {}
        history.append(row)
    return history


def _trained_epochs(metrics: Metrics) -> list[int]:
    return [epoch for epoch in sorted(metrics.epochs) if metrics.epochs[epoch].samples]
