"""Which workers a script's `fit` waits for, and when it no longer waits.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection

from downpour.protos.sentences.sentence import sentence
from downpour.ps.coordinator.deadlines import BarrierDeadlines, FitAbsences
from downpour.ps.coordinator.fit.fit_call import LEADER, FitCall
from downpour.ps.coordinator.job import Job
from downpour.ps.coordinator.phase import Phase


class FitWaits:
    """The time limits of the workers that a script's calls of `fit` wait for."""

    def __init__(self, job: Job) -> None:
        """Create the time limits of a job that no worker has joined yet.

        Args:
            job: The state of the job.
        """
        self._job = job
        self._absences = FitAbsences(job.settings.reconnect_s)
        self._barrier_deadlines = BarrierDeadlines()
        self._return_by_s: float | None = None
        self._blocked = frozenset[int]()  # workers whose pushes wait for others

    def update(self, call: FitCall, now: float) -> None:
        """Record which workers the current call waits for at the time `now`."""
        members = self._job.membership.members
        present = [member.worker for member in members]
        awaited = call.awaited(present)
        if self._blocked and call.epoch_begun:
            awaited |= {member.worker for member in members if not member.resting} - self._blocked - call.arrived
        self._absences.update(present, call.absent(present), now)
        self._barrier_deadlines.update(awaited, now)

    def pushed(self, worker: int, pushes: int) -> None:
        """Record the number of pushes of a worker so far."""
        self._barrier_deadlines.pushed(worker, pushes)

    def blocked(self, workers: Collection[int]) -> None:
        """Record all workers whose pushes wait for other workers now, as in modes that average."""
        self._blocked = frozenset(workers)

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that others wait for, at a barrier or in a push, without progress for too long."""
        return self._barrier_deadlines.overdue(now)

    def limit_returns(self, call: FitCall, now: float) -> None:
        """Stop waiting for members of a checkpoint that have not returned within the length of a session."""
        if not call.returning or self._job.phase != Phase.TRAINING:
            return
        if self._return_by_s is None:
            self._return_by_s = now + self._job.settings.session_s
        elif now > self._return_by_s:
            call.returning.clear()
            call.complete_barriers()

    def restart(self) -> None:
        """Restart the time limit within which the members of a checkpoint must return."""
        self._return_by_s = None

    def failure(self, now: float) -> str | None:
        """Return why the job fails: a worker without which `fit` cannot end has been absent for too long."""
        exceeded = self._absences.exceeded(now)
        if exceeded is None:
            return None
        worker, absent_s = exceeded
        code = "leader_absent" if worker == LEADER else "part_absent"
        return sentence(code, worker=str(worker), seconds=f"{absent_s:.0f}")
