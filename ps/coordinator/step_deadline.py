"""How long workers may take for a step: deadlines follow the steps that were seen. Pure.

A worker that hangs while its heartbeat goes on keeps its session, and what it has on loan. So it also has until
`TIMES` the longest of the last steps of any worker; steps are from the reply, or the lease, to the push.
"""

from __future__ import annotations

from collections import deque

TIMES = 30  # the longest step seen lately; a straggler is slower than others, but not as much
RECENT = 256  # steps
SESSIONS = 6  # a step has at least so many times the session's length
FIRST_S = 600.0  # before anything is known


class StepDeadlines:
    """Which workers are overdue."""

    def __init__(self, session_s: float) -> None:
        """No step has been seen.

        Args:
            session_s: After which a silent worker has died.
        """
        self._least_s = SESSIONS * session_s
        self._steps_s: deque[float] = deque(maxlen=RECENT)
        self._tasks_s: deque[float] = deque(maxlen=RECENT)
        self._since: dict[int, tuple[float, bool]] = {}

    def begin(self, worker: int, now: float, task: bool = False) -> None:
        """A worker has what it needs for its next step, or for a `task` other than training."""
        self._since[worker] = (now, task)

    def end(self, worker: int, now: float) -> None:
        """It has done that."""
        since, task = self._since.pop(worker, (now, False))
        if now > since:
            (self._tasks_s if task else self._steps_s).append(now - since)

    def put_off(self, worker: int, now: float) -> None:
        """What it does can begin only now: it had to wait for others."""
        if worker in self._since:
            self._since[worker] = (now, self._since[worker][1])

    def forget(self, worker: int) -> None:
        """Nothing is waited for."""
        self._since.pop(worker, None)

    def clear(self) -> None:
        """Nothing is waited for from anybody; what was seen holds."""
        self._since.clear()

    def limit_s(self, task: bool = False) -> float:
        """How long the next step, or task, may take."""
        seen = self._tasks_s if task else self._steps_s
        if not seen:
            return max(FIRST_S, self._least_s)
        return max(TIMES * max(seen), FIRST_S if task else self._least_s)

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Workers that have taken longer than they may, and how long so far."""
        limits = (self.limit_s(), self.limit_s(task=True))
        return [(worker, now - since) for worker, (since, task) in self._since.items() if now - since > limits[task]]
