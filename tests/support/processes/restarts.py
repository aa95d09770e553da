"""Servers that are killed, and restarted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from downpour.ps.storage.checkpoint_file import CheckpointError, load, numbers, path_of
from tests.support.cluster import Cluster, Process, wait_until

CHECKPOINT_S = 200.0


def checkpointed(run: Path, version: int) -> bool:
    """Return whether there is a checkpoint of at least a version of shard 0."""
    for number in numbers(run / "checkpoints"):
        try:
            if load(path_of(run / "checkpoints", number)).facts.shards[0].version >= version:
                return True
        except CheckpointError:  # the oldest may go while it is read
            continue
    return False


def await_checkpoint(cluster: Cluster, version: int) -> None:
    """Wait for a checkpoint of at least a version of shard 0.

    Checkpoints are twenty times as far apart as one takes to write, which is long on a slow disk.
    """
    what = f"a checkpoint of version {version} is written"
    wait_until(lambda: checkpointed(cluster.run, version), what, CHECKPOINT_S)


def start_again(cluster: Cluster, shard: int, address: str, *flags: str, **settings: Any) -> Process:
    """Restart a server that was killed, at its previous address."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    own = [f"--run-dir={cluster.run}", "--resume"] if shard == 0 else [f"--coordinator={cluster.address}"]
    name = f"ps-{shard}-again-{len(cluster.processes)}"
    process = cluster.start(name, "-m", "downpour.ps", f"--shard={shard}", f"--bind={address}", *own, *given, *flags)
    assert process.announcement()["address"] == address
    cluster.servers.append(process)
    return process


def summary(cluster: Cluster) -> dict[str, Any]:
    content = json.loads((cluster.run / "summary.json").read_text())
    assert isinstance(content, dict)
    return content
