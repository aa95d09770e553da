"""The server's log of its job: workers that join and leave, phases and the result."""

from __future__ import annotations

from collections.abc import Iterator

from downpour.protos.sentences.sentence import counted
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.coordinator.phase import BEFORE_TRAINING, OVER, Phase
from downpour.ps.trace.metrics import Metrics

FIRST_S, WAITING_EVERY_S = 2.0, 10.0  # until the first line about what the job waits for, and between two lines


class JobLog:
    """Produces the log lines of one job."""

    def __init__(self, coordinator: Coordinator, metrics: Metrics, run: str) -> None:
        """Create the log of a job about which nothing has been logged yet.

        Args:
            coordinator: The coordinator of the job.
            metrics: The metrics of shard 0.
            run: The path of the run directory.
        """
        self._coordinator, self._metrics, self._run = coordinator, metrics, run
        self._workers: set[tuple[int, int]] = set()
        self._phase = Phase.WAITING
        self._waiting_s: float | None = None
        self._next_s = 0.0  # when the wait is reported again

    def news(self, now: float | None = None) -> Iterator[str]:
        """Yield a line for each event since the last call, and while the job waits for processes.

        Args:
            now: The time in seconds; None if there is no time for another line about a wait.
        """
        coordinator = self._coordinator
        members = {(member.worker, member.incarnation): member for member in coordinator.job.membership.members}
        for life in sorted(self._workers - set(members)):
            yield f"worker {life[0]} has left"
        for life in sorted(set(members) - self._workers):
            yield f"worker {life[0]} has joined, process {members[life].pid} on {members[life].host}"
        self._workers = set(members)
        if coordinator.job.phase != self._phase:
            self._phase = coordinator.job.phase
            if line := self._of_phase():
                yield line
        if now is not None and (line := self._of_wait(now)):
            yield line

    def _of_wait(self, now: float) -> str:
        """Return what the job waits for, after `FIRST_S` seconds and then every `WAITING_EVERY_S`."""
        job = self._coordinator.job
        absent = [] if job.phase in OVER else job.shards.unsettled(job.membership.number)
        if job.phase not in BEFORE_TRAINING and not absent:
            self._waiting_s = None
            return ""
        if self._waiting_s is None:
            self._waiting_s, self._next_s = now, now + FIRST_S
        if now < self._next_s:
            return ""
        self._next_s = now + WAITING_EVERY_S
        for what, found, wanted in (
            ("shards", len(job.shards), job.settings.shards),
            ("workers", len(self._workers), job.settings.workers),
        ):
            if found < wanted and job.phase in BEFORE_TRAINING:
                return f"waiting for {what} for {now - self._waiting_s:.0f} s: {found} of {wanted} joined"
        if absent:
            named = ", ".join(f"shard {shard}" for shard in absent)
            return f"waiting for {named} for {now - self._waiting_s:.0f} s to acknowledge the workers of the job"
        return f"waiting for the workers to prepare for {now - self._waiting_s:.0f} s"

    def _of_phase(self) -> str:
        phase, workers = self._phase, len(self._workers)
        if phase == Phase.TRAINING:
            return f"training with {workers} worker{'s' * (workers != 1)}"
        if phase not in OVER:
            return ""
        test = self._coordinator.work.test
        result = f", test accuracy {test.accuracy:.4f}" if test is not None and test.samples else ""
        return f"the job has {phase}: {counted(self._metrics.updates, 'update')}{result}; see {self._run}"
