"""The run directory: configuration, trace, model and summary of one job. The coordinator alone writes there."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from protos import parameter_server_pb2 as pb
from ps import calls
from ps.config import ServerSettings
from ps.coordinator import Coordinator
from ps.hyper import resolve
from ps.metrics import Metrics, divergence, staleness_summary
from ps.traces import Traces
from ps.whole import whole


def new_run_directory(runs_dir: Path, model: str, now: datetime | None = None) -> Path:
    """Makes `runs_dir/<UTC time>-<model>`, with a number appended if that is taken."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', model).strip('-.') or 'model'}"
    for attempt in range(1, 1000):
        path = runs_dir / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(f"{runs_dir / name} and 998 variants of it exist already: clear the runs folder.")


def run_directory(settings: ServerSettings) -> Path:
    """Where the files of a server's run lie.

    As `--run-dir` says; else, with `--resume`, the newest run in the runs folder if it is of the same job and has
    not ended; else a new one.
    """
    if settings.run_dir:
        return Path(settings.run_dir)
    runs_dir = Path(settings.runs_dir)
    unfinished = _unfinished(runs_dir / "latest", settings) if settings.resume else None
    return unfinished or new_run_directory(runs_dir, settings.model)


def _unfinished(latest: Path, settings: ServerSettings) -> Path | None:
    """The run that `latest` points to, if it is to be gone on with."""
    if not latest.is_dir():
        return None
    path = latest.parent / latest.resolve().name
    if (_read_json(path / "summary.json") or {}).get("status") == "ended":
        return None
    begun = (_read_json(path / "config.json") or {}).get("settings", {})
    wanted = settings.model_dump(mode="json")
    job = [name for group in ("model and data", "asynchrony", "optimizer") for name in settings.groups[group]]
    return path if all(begun.get(name, wanted[name]) == wanted[name] for name in job) else None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class RunDirectory:
    """Files of one run.

    Attributes:
        path: The directory.
        traces: Of all shards.
    """

    def __init__(self, path: Path) -> None:
        """Makes the directory."""
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.traces = Traces(path)
        self._lock: int | None = None
        self.calls = Traces(path, "calls", calls.DTYPE)

    def lock(self) -> bool:
        """Takes the directory for this process, until it ends; returns whether nobody else has it."""
        if self._lock is None:
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def publish(self) -> None:
        """Points `latest` beside the directory to it."""
        link = self.path.parent / f".latest-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path.name)
        link.replace(self.path.parent / "latest")

    def discard(self) -> None:
        """Removes the directory again if there is nothing in it."""
        with suppress(OSError):
            if {entry.name for entry in self.path.iterdir()} <= {".lock"}:
                (self.path / ".lock").unlink(missing_ok=True)
            self.path.rmdir()

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Writes a file whole or not at all."""
        with whole(self.path / name) as place:
            place.write_text(json.dumps(content, indent=2) + "\n")

    def begin_life(self) -> int:
        """The generation that begins with this start: one more than any before it in this directory."""
        path = self.path / "generation"
        for part in (*self.path.glob(".*.part"), *self.checkpoints.glob(".*.part")):
            part.unlink(missing_ok=True)  # of a process that was killed
        try:
            generation = int(path.read_text()) + 1
        except (OSError, ValueError):
            generation = 1
        self.note_generation(generation)
        return generation

    def note_generation(self, generation: int) -> None:
        """Keeps the newest generation for the next start; a record of the one before is void."""
        self.calls.drop()
        (self.path / "initial.safetensors").unlink(missing_ok=True)
        with whole(self.path / "generation") as place:
            place.write_text(f"{generation}\n")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"


def configuration(
    settings: ServerSettings, facts: Mapping[tuple[int, int], dict[str, str]], data: pb.Data | None = None
) -> dict[str, Any]:
    """Every setting, version and fact that is needed to run the job again, and that its bits depend on."""
    # platform.platform() starts a process, which for a moment holds the server's sockets, even if that is killed then.
    system = "-".join((platform.system(), platform.release(), platform.machine()))
    versions = {"python": platform.python_version(), "platform": system}
    for package in ("downpour", "numpy", "grpcio", "protobuf"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    same: list[dict[str, Any]] = []  # workers are alike, as a rule
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


def summary(coordinator: Coordinator, metrics: Metrics, totals: Mapping[str, Any], drained: bool) -> dict[str, Any]:
    """What the job came to: settings, counts, losses, accuracies, staleness."""
    settings, ledger = coordinator.settings, coordinator.ledger
    started = coordinator.started_s
    wall_s = max(0.0, metrics.last_s - started) if started is not None and metrics.first_s is not None else 0.0
    trained = [epoch for epoch in sorted(metrics.epochs) if metrics.epochs[epoch].samples]
    last = metrics.epochs[trained[-1]] if trained else None
    validation = coordinator.evaluations[max(coordinator.evaluations)] if coordinator.evaluations else None
    test = coordinator.test if coordinator.test and coordinator.test.samples else None
    return {
        "status": "interrupted" if drained and coordinator.phase == "ended" else str(coordinator.phase),
        "job": coordinator.job,
        "model": settings.model,
        "dataset": settings.dataset,
        "workers": settings.workers,
        "shards": settings.shards,
        "mode": settings.mode,
        "staleness_policy": settings.staleness,
        "optimizer": settings.optimizer,
        "learning_rate": settings.effective_learning_rate,
        "batch_size": settings.batch_size,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "transport": settings.transport,
        "codec": settings.codec,
        "updates": metrics.updates,
        "samples": ledger.used_total if ledger else metrics.samples,
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
        "communication_share": coordinator.exchange_s / coordinator.step_s if coordinator.step_s else None,
        **totals,
        "dropped_by_reason": dict(metrics.dropped),
        "history": [
            {
                "epoch": epoch,
                "train_loss": metrics.epochs[epoch].loss,
                "train_accuracy": metrics.epochs[epoch].accuracy,
                **(
                    {
                        "val_loss": coordinator.evaluations[epoch].loss,
                        "val_accuracy": coordinator.evaluations[epoch].accuracy,
                    }
                    if epoch in coordinator.evaluations
                    else {}
                ),
            }
            for epoch in trained
        ],
        "notes": coordinator.notes,
    }
