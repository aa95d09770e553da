"""The processes and the progress of a job that `downpour train` runs."""

from __future__ import annotations

import json
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.worker.exchange.coordinator_client import CoordinatorClient


def alive(mark: str) -> list[int]:
    """Return the ids of the processes whose environment contains a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is not ours
    return found


def status(run: Path) -> pb.Progress | None:
    """Return the progress of the job in a run directory, or None while its server does not answer yet."""
    try:
        line = next(line for line in (run / "logs" / "ps-0.log").read_text().splitlines() if line.startswith("{"))
        control = CoordinatorClient(json.loads(line)["address"], 5.0)
        try:
            return control._call(control._stub.Status, pb.StatusRequest())
        finally:
            control.close()
    except (OSError, StopIteration, DownpourError):
        return None
