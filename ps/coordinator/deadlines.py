"""The deadlines of a job: for its end, for lost shards, for workers, and for each step of a worker.

A worker that hangs but sends heartbeats keeps its session and its lease, so its steps have a deadline, too:
`STEP_FACTOR` times the longest of the last steps of any worker. A step lasts from the reply, or the lease, to the push.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

# Parts of the drain timeout until evaluations are cut short, and until a job whose model is saved ends without them.
from downpour.protos.sentences.sentence import sentence

EVALUATE_PART, SAVED_PART = 4 / 7, 5.5 / 7
STEP_FACTOR = 30  # multiple of the longest recent step; a straggler is slower than the others, but not by that much
RECENT_STEPS = 256
LEAST_SESSIONS = 6  # lower bound of a step's limit, as a multiple of the session's length
FIRST_STEP_S = 600.0  # before any step has been seen
BARRIER_S = 3600.0  # for a worker that others wait for at a barrier: validation and callbacks have this long


class JobDeadlines:
    """The deadlines of a job.

    Attributes:
        asked_s: The time at which a user requested the end of the job; None before.
        lost_s: The time since which the job has waited for its shards or their weights; None while it has them.
    """

    def __init__(self, reconnect_s: float, idle_timeout_s: float, drain_timeout_s: float) -> None:
        """Create deadlines that are not running yet.

        Args:
            reconnect_s: The seconds that the job waits for a lost shard.
            idle_timeout_s: The seconds that the job waits for workers; 0 means no limit.
            drain_timeout_s: The seconds after a request to end within which the model must be saved, or the job fails.
        """
        self.asked_s: float | None = None
        self.lost_s: float | None = None
        self._deserted_s: float | None = None
        self._reconnect_s, self._idle_timeout_s = reconnect_s, idle_timeout_s
        self._drain_timeout_s = drain_timeout_s

    @property
    def hurried(self) -> bool:
        """Return whether a user has requested the end of the job."""
        return self.asked_s is not None

    def left_s(self, now: float) -> float:
        """Return the seconds left for evaluations if a user has requested the end; 0 if there is no limit."""
        return 0.0 if self.asked_s is None else max(0.001, self.asked_s + EVALUATE_PART * self._drain_timeout_s - now)

    def suffices(self, now: float, deserted: bool) -> bool:
        """Return whether a job whose model is saved must end without its last evaluation."""
        return self.asked_s is not None and (deserted or now > self.asked_s + SAVED_PART * self._drain_timeout_s)

    def exhausted(self, now: float, deserted: bool, able: bool, missing: Sequence[int]) -> str:
        """Return why the job cannot continue; empty while it can.

        Args:
            now: The time.
            deserted: Whether no worker is left.
            able: Whether some worker can do the remaining work.
            missing: The shards that have not joined.
        """
        if self.asked_s is not None and deserted:
            return sentence("no_worker_to_save")
        if self.asked_s is not None and now > self.asked_s + self._drain_timeout_s:
            return sentence("not_saved_in_time", seconds=f"{self._drain_timeout_s:g}")
        if self.lost_s is not None and now > self.lost_s + self._reconnect_s:
            return sentence("shards_not_back", shards=str(list(missing)), seconds=f"{self._reconnect_s:g}")
        if able:
            self._deserted_s = None
        elif self._deserted_s is None:
            self._deserted_s = now
        elif self._idle_timeout_s and now > self._deserted_s + self._idle_timeout_s:
            return sentence("no_worker_for", seconds=f"{self._idle_timeout_s:g}")
        return ""


class StepDeadlines:
    """Detects workers that take far longer for a step or an evaluation than the workers took recently."""

    def __init__(self, session_s: float) -> None:
        """Create deadlines before any step has been observed.

        Args:
            session_s: The length of a session, after which a silent worker has expired.
        """
        self._least_s = LEAST_SESSIONS * session_s
        self._steps_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._tasks_s: deque[float] = deque(maxlen=RECENT_STEPS)
        self._since: dict[int, tuple[float, bool]] = {}

    def begin(self, worker: int, now: float, task: bool = False) -> None:
        """Start the clock of a worker's next step or, with `task`, of an evaluation."""
        self._since[worker] = (now, task)

    def end(self, worker: int, now: float) -> None:
        """End a worker's step or evaluation and record how long it took."""
        since, task = self._since.pop(worker, (now, False))
        if now > since:
            (self._tasks_s if task else self._steps_s).append(now - since)

    def put_off(self, worker: int, now: float) -> None:
        """Restart the clock of a worker's step, because the worker had to wait for others."""
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


class FitAbsences:
    """The time for which a script's `fit` waits for workers that it cannot end without.

    A worker that was killed is started again and runs the script up to the same call of `fit`. It has as long for this
    as workers took at first, and the time of a reconnection.
    """

    def __init__(self, reconnect_s: float) -> None:
        """Create the record of a job that no worker has joined yet.

        Args:
            reconnect_s: The seconds that the job waits for a worker in addition to the time of its first start.
        """
        self._reconnect_s = reconnect_s
        self._began_s: float | None = None
        self._start_s = 0.0  # longest time from the start of the job to the first registration of a worker
        self._seen: set[int] = set()
        self._since: dict[int, float] = {}

    def update(self, present: Collection[int], absent: Collection[int], now: float) -> None:
        """Record which workers are present, and which are absent though they are needed, at the time `now`."""
        self._began_s = now if self._began_s is None else self._began_s
        if not self._seen.issuperset(present):
            self._seen.update(present)
            self._start_s = max(self._start_s, now - self._began_s)
        self._since = {worker: self._since.get(worker, now) for worker in sorted(absent)}

    def exceeded(self, now: float) -> tuple[int, float] | None:
        """Return a worker that has been absent for too long, with the time in seconds; None if there is none."""
        limit_s = self._reconnect_s + self._start_s
        return next(((worker, now - since) for worker, since in self._since.items() if now > since + limit_s), None)


class BarrierDeadlines:
    """Detects workers that send heartbeats but neither push nor arrive at a barrier where others wait for them."""

    def __init__(self) -> None:
        """Create deadlines before any worker waits."""
        self._pushes: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def pushed(self, worker: int, pushes: int) -> None:
        """Restart the clock of a worker if the number of its pushes has changed."""
        if self._pushes.get(worker) != pushes:
            self._pushes[worker] = pushes
            self._since.pop(worker, None)

    def update(self, awaited: Collection[int], now: float) -> None:
        """Record which workers the others wait for at the time `now`."""
        self._since = {worker: self._since.get(worker, now) for worker in sorted(awaited)}

    def overdue(self, now: float) -> list[tuple[int, float]]:
        """Return the workers that have exceeded their time, each with its time so far in seconds."""
        return [(worker, now - since) for worker, since in self._since.items() if now > since + BARRIER_S]
