"""How long a job waits: for the end that somebody asked for, for shards that were lost, for workers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# Parts of the drain timeout until evaluations are cut short, and until a job whose model is saved ends without them.
EVALUATE_PART, SAVED_PART = 4 / 7, 5.5 / 7


class JobDeadlines:
    """The deadlines of a job.

    Attributes:
        asked_s: When somebody asked for the end and began to wait for it; None before.
        lost_s: Since when the job waits for its shards, or their weights; None while it has them.
    """

    def __init__(self, reconnect_s: float, idle_timeout_s: float, drain_timeout_s: float) -> None:
        """Waits for nothing.

        Args:
            reconnect_s: How long a lost shard is waited for.
            idle_timeout_s: How long workers are waited for; 0: for ever.
            drain_timeout_s: From the request to end until a job whose model nobody has saved has failed.
        """
        self.asked_s: float | None = None
        self.lost_s: float | None = None
        self._deserted_s: float | None = None
        self._reconnect_s, self._idle_timeout_s = reconnect_s, idle_timeout_s
        self._drain_timeout_s = drain_timeout_s

    @property
    def hurried(self) -> bool:
        """Whether somebody waits for the end of the job."""
        return self.asked_s is not None

    def left_s(self, now: float) -> float:
        """Time for evaluations, where somebody waits for the end of the job; 0: they take their time."""
        return 0.0 if self.asked_s is None else max(0.001, self.asked_s + EVALUATE_PART * self._drain_timeout_s - now)

    def suffices(self, now: float, deserted: bool) -> bool:
        """Whether a job whose model is saved must end without its last evaluation."""
        return self.asked_s is not None and (deserted or now > self.asked_s + SAVED_PART * self._drain_timeout_s)

    def exhausted(self, now: float, deserted: bool, able: bool, missing: Sequence[int]) -> str:
        """Why nobody can bring the job on; empty while there is hope.

        Args:
            now: The time.
            deserted: No worker is left.
            able: There are workers that can do what is to be done.
            missing: Shards that are not there.
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
