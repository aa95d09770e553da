"""The summary of a job and the configuration that it ran with, as the run directory keeps them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import Phase
from downpour.ps.core.hyperparameters import resolve
from downpour.ps.trace.metrics import Metrics, divergence, staleness_summary


def configuration(
    settings: ServerSettings, facts: Mapping[tuple[int, int], dict[str, str]], data: pb.DatasetInfo | None = None
) -> dict[str, Any]:
    """Return every setting, version and fact that is needed to reproduce the job bit by bit."""
    # platform.platform() starts a process, which inherits the server's sockets and may briefly outlive the server.
    system = "-".join((platform.system(), platform.release(), platform.machine()))
    versions = {"python": platform.python_version(), "platform": system}
    for package in ("downpour-ps", "numpy", "grpcio", "protobuf"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    same: list[dict[str, Any]] = []  # all workers usually report the same facts
    for life, each in facts.items():
        group = next((group for group in same if group["facts"] == each), None)
        if group is None:
            same.append({"facts": each, "lives": [life]})
        else:
            group["lives"].append(life)
    return {
        "settings": settings.model_dump(),
        "optimizer": {"name": settings.optimizer, **resolve(settings.optimizer, settings.hyper)},
        "versions": versions,
        "data": {"name": data.name, "checksum": data.checksum, "train_samples": data.train_samples} if data else {},
        "worker": next(iter(facts.values()), {}),
        "workers": same,
    }


def summary(coordinator: Coordinator, metrics: Metrics, totals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the job: settings, counts, losses, accuracies, staleness; null where it is not known."""
    job, work = coordinator.job, coordinator.work.summary()
    settings, started = job.settings, job.started_s
    wall_s = max(0.0, metrics.last_s - started) if started is not None and metrics.first_s is not None else 0.0
    trained = [epoch for epoch in sorted(metrics.epochs) if metrics.epochs[epoch].samples]
    last = metrics.epochs[trained[-1]] if trained else None
    evaluations = coordinator.work.evaluations
    validation = evaluations[max(evaluations)] if evaluations else None
    test = coordinator.work.test if coordinator.work.test and coordinator.work.test.samples else None
    return {
        "status": "interrupted" if work.interrupted and job.phase == Phase.ENDED else str(job.phase),
        "job": job.name,
        "model": settings.model,
        "dataset": settings.dataset,
        "workers": settings.workers,
        "shards": settings.shards,
        "mode": settings.mode,
        "staleness_policy": settings.staleness,
        "optimizer": settings.optimizer,
        "learning_rate": settings.effective_learning_rate,
        "batch_size": work.batch_size,
        "epochs": work.epochs,
        "epochs_done": work.epochs_done,
        "seed": settings.seed,
        "transport": settings.transport,
        "codec": settings.codec,
        "updates": metrics.updates,
        "samples": metrics.samples if work.samples is None else work.samples,
        "samples_per_s": metrics.samples / wall_s if wall_s else 0.0,
        "wall_s": wall_s,
        "train_loss": last.loss if last else None,
        "train_accuracy": last.accuracy if last else None,
        "val_loss": validation.loss if validation else None,
        "val_accuracy": validation.accuracy if validation else None,
        "test_loss": test.loss if test else None,
        "test_accuracy": test.accuracy if test else None,
        "test_samples": test.samples if test else 0,
        "diverged": divergence(metrics) or None,
        "staleness": staleness_summary(metrics),
        "communication_share": job.exchange_s / job.step_s if job.step_s else None,
        **totals,
        "dropped_by_reason": dict(metrics.dropped),
        "history": [
            {
                "epoch": epoch,
                "train_loss": metrics.epochs[epoch].loss,
                "train_accuracy": metrics.epochs[epoch].accuracy,
                **(
                    {
                        "val_loss": evaluations[epoch].loss,
                        "val_accuracy": evaluations[epoch].accuracy,
                    }
                    if epoch in evaluations
                    else {}
                ),
            }
            for epoch in trained
        ],
        "notes": job.notes,
    }
