"""How long a job waits: for its end, for lost shards, for workers, and for each step of a worker. Pure.

A worker that hangs while its heartbeats go on keeps its session and its lease, so its steps have a deadline, too:
`STEP_FACTOR` times the longest of the last steps of any worker. A step lasts from the reply, or the lease, to the push.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

# Parts of the drain timeout until evaluations are cut short, and until a job whose model is saved ends without them.
EVALUATE_PART, SAVED_PART = 4 / 7, 5.5 / 7
STEP_FACTOR = 30  # times the longest recent step; a straggler is slower than the others, but not by that much
RECENT_STEPS = 256
LEAST_SESSIONS = 6  # a step has at least so many times the session's length
FIRST_STEP_S = 600.0  # before any step has been seen


class JobDeadlines:
    """The deadlines of a job.

    Attributes:
        asked_s: When somebody asked for the end and began to wait for it; None before.
        lost_s: Since when the job waits for its shards, or their weights; None while it has them.
    """

    def __init__(self, reconnect_s: float, idle_timeout_s: float, drain_timeout_s: float) -> None:
        """Create deadlines of which none runs.

        Args:
            reconnect_s: How long the job waits for a lost shard.
            idle_timeout_s: How long the job waits for workers; 0: without a limit.
            drain_timeout_s: From the request to end until a job whose model nobody has saved has failed.
        """
        self.asked_s: float | None = None
        self.lost_s: float | None = None
        self._deserted_s: float | None = None
        self._reconnect_s, self._idle_timeout_s = reconnect_s, idle_timeout_s
        self._drain_timeout_s = drain_timeout_s

    @property
    def hurried(self) -> bool:
        """Return whether somebody waits for the end of the job."""
        return self.asked_s is not None

    def left_s(self, now: float) -> float:
        """Return the time that is left for evaluations if somebody waits for the end; 0 if there is no limit."""
        return 0.0 if self.asked_s is None else max(0.001, self.asked_s + EVALUATE_PART * self._drain_timeout_s - now)

    def suffices(self, now: float, deserted: bool) -> bool:
        """Return whether a job whose model is saved must end without its last evaluation."""
        return self.asked_s is not None and (deserted or now > self.asked_s + SAVED_PART * self._drain_timeout_s)

    def exhausted(self, now: float, deserted: bool, able: bool, missing: Sequence[int]) -> str:
        """Return why the job cannot continue; empty while it can.

        Args:
            now: The time.
            deserted: Whether no worker is left.
            able: Whether there are workers that can do what is to be done.
            missing: The shards that have not joined.
        """
        if self.asked_s is not None and deserted:
            return "no worker is left to save the model: the last checkpoint can be resumed"
        if self.asked_s is not None and now > self.asked_s + self._drain_timeout_s:
            return f"no worker saved the model within {self._drain_timeout_s:g} s: the last checkpoint can be resumed"
        if self.lost_s is not None and now > self.lost_s + self._reconnect_s:
            return f"shards {list(missing)} were not back within {self._reconnect_s:g} s: the job can be resumed"
        if able:
            self._deserted_s = None
        elif self._deserted_s is None:
            self._deserted_s = now
        elif self._idle_timeout_s and now > self._deserted_s + self._idle_timeout_s:
            return f"no worker for {self._idle_timeout_s:g} s: start one, or allow more with --idle-timeout-s"
        return ""


class StepDeadlines:
    """Finds workers that take too long for a step or an evaluation, by the times that others took."""

    def __init__(self, session_s: float) -> None:
        """Create deadlines before any step has been seen.

        Args:
            session_s: The length of a session, after which a silent worker has expired.
        """
        self._least_s = LEAST_SESSIONS * session_s
        self._steps_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._tasks_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._since: dict[int, tuple[float, bool]] = {}

    def begin(self, worker: int, now: float, task: bool = False) -> None:
        """Begin a worker's next step, or, with `task`, an evaluation."""
        self._since[worker] = (now, task)

    def end(self, worker: int, now: float) -> None:
        """End a worker's step or evaluation and record how long it took."""
        since, task = self._since.pop(worker, (now, False))
        if now > since:
            (self._tasks_s if task else self._steps_s).append(now - since)

    def put_off(self, worker: int, now: float) -> None:
        """Begin a worker's step anew, because it had to wait for others."""
        if worker in self._since:
            self._since[worker] = (now, self._since[worker][1])

    def forget(self, worker: int) -> None:
        """Drop the deadline of a worker."""
        self._since.pop(worker, None)

    def clear(self) -> None:
        """Drop all deadlines; the recorded times stay."""
        self._since.clear()

    def limit_s(self, task: bool = False) -> float:
        """Return how long the next step, or, with `task`, evaluation may take."""
        seen = self._tasks_s if task else self._steps_s
        if not seen:
            return max(FIRST_STEP_S, self._least_s)
        return max(STEP_FACTOR * max(seen), FIRST_STEP_S if task else self._least_s)

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that have taken longer than they may, each with its time so far in seconds."""
        limits = (self.limit_s(), self.limit_s(task=True))
        return [(worker, now - since) for worker, (since, task) in self._since.items() if now - since > limits[task]]
