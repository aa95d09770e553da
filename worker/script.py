"""The place of a script in its cluster: which worker it runs as, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downpour.worker.fit.member import ScriptWorker

member: ScriptWorker | None = None  # set by `downpour run` before the script begins; None in any other process


def rank() -> int:
    """Return the number of this worker, from 0; 0 in a script that runs without a cluster.

    Worker 0 is the leader: what a script prints or writes once belongs to it.
    """
    return member.rank if member is not None else 0


def size() -> int:
    """Return the number of workers that the job was started with; 1 in a script that runs without a cluster."""
    return member.size if member is not None else 1
