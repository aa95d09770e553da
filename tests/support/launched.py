"""A job that the launcher runs, seen from outside: its processes, and what it is doing."""

from __future__ import annotations

import json
from pathlib import Path

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.worker.exchange.coordinator_client import CoordinatorClient


def alive(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is not ours
    return found


def status(run: Path) -> pb.Progress | None:
    """What the job in a run directory is doing; None before it can be asked."""
    try:
        line = next(line for line in (run / "logs" / "ps-0.log").read_text().splitlines() if line.startswith("{"))
        control = CoordinatorClient(json.loads(line)["address"], 5.0)
        try:
            return control._call(control._stub.Status, pb.StatusRequest())
        finally:
            control.close()
    except (OSError, StopIteration, DownpourError):
        return None
