"""The requests of users who operate a job: pause it, change its settings, take a checkpoint, add a worker.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from downpour.protos.errors import InvalidRequest
from downpour.protos.sentences.sentence import sentence
from downpour.ps.config_change import Change, new_change
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.phase import Phase
from downpour.ps.coordinator.work import Work

MAX_REMEMBERED_REQUESTS = 100


class OperatorRequests:
    """Checks and carries out what users request while a job trains."""

    def __init__(self, job: Job, work: Work) -> None:
        """Create the requests of a job that has not begun.

        Args:
            job: The state of the job.
            work: The work of the job.
        """
        self._job, self._work = job, work
        self._added: list[str] = []  # the newest requests for another worker

    def pause(self, paused: bool, now: float) -> None:
        """Lease no more samples until the job is resumed, or resume it; `now` is in seconds.

        Raises:
            InvalidRequest: The job does not train, or its workers divide the samples among themselves.
        """
        if self._job.phase != Phase.TRAINING:
            raise InvalidRequest(sentence("pause_needs_training", phase=sentence(f"phase_{self._job.phase}")))
        if self._work.ledger is None:
            raise InvalidRequest(sentence("pause_needs_leases"))
        if self._job.paused != paused:
            self._job.pause(paused, now)

    def change(self, wanted: Mapping[str, str | float]) -> Change | None:
        """Change settings at the next cut of the shards; return the change, or None if they have these values already.

        Args:
            wanted: The new values of some of `mode`, `staleness` and `learning_rate`.

        Raises:
            InvalidRequest: The job does not train, an earlier change is pending, or this one is not possible.
        """
        job = self._job
        pending = job.pending_change
        if pending is not None and pending.after == wanted:
            return pending
        if job.phase != Phase.TRAINING:
            raise InvalidRequest(sentence("change_needs_training", phase=sentence(f"phase_{job.phase}")))
        if pending is not None:
            raise InvalidRequest(sentence("change_pending", change=pending.text))
        job.pending_change = new_change(job.settings, wanted, len(job.changes) + 1)
        return job.pending_change

    def request_checkpoint(self) -> None:
        """Take a checkpoint as soon as possible.

        Raises:
            InvalidRequest: The job does not train, or no checkpoints are taken of its work.
        """
        if self._job.phase != Phase.TRAINING:
            raise InvalidRequest(sentence("checkpoint_needs_training", phase=sentence(f"phase_{self._job.phase}")))
        if not self._work.checkpointable or self._work.ledger is None:
            raise InvalidRequest(sentence("checkpoint_needs_leases"))
        self._job.checkpoint_requested = True

    def add_worker(self, request: str, launched: bool) -> int:
        """Request one more worker from the launcher; return the number of workers that the job wants.

        Args:
            request: The identifier of the request; one that is repeated adds no other worker.
            launched: Whether a launcher watches the job, which starts workers.

        Raises:
            InvalidRequest: The job does not train, its number of workers is fixed, or it has no launcher.
        """
        job = self._job
        if request and request in self._added:
            return job.workers_wanted
        if job.phase != Phase.TRAINING:
            raise InvalidRequest(sentence("worker_needs_training", phase=sentence(f"phase_{job.phase}")))
        self._work.check_worker_added()
        if not launched:
            raise InvalidRequest(sentence("no_launcher"))
        self._added = [*self._added[-MAX_REMEMBERED_REQUESTS:], request]
        job.workers_wanted += 1
        job.notes.append(sentence("worker_added", workers=job.workers_wanted))
        return job.workers_wanted
