"""Changes of a script's `fit` that workers learn only when a checkpoint contains them.

Workers that live continue in the same call after a server has died, so the servers must not return to a state before
what these workers know. A *revision* is a change that workers learn: that all samples of an epoch are used, that all
have arrived at a barrier, what worker 0 has decided there. A worker receives it only when a checkpoint contains it.

This module is pure: it does no I/O and reads no clock.
"""

from __future__ import annotations

from downpour.ps.coordinator.job import Job


class FitRevisions:
    """The revisions of a script's `fit`, and those that a checkpoint contains.

    Attributes:
        number: The number of revisions so far.
    """

    def __init__(self, job: Job, number: int = 0) -> None:
        """Begin with a number of revisions, all of which a checkpoint contains.

        Args:
            job: The state of the job.
            number: The number of revisions.
        """
        self._job = job
        self.number = self._committed = number
        self._end_noted = False  # whether the end of the current epoch's samples is a revision

    @property
    def enabled(self) -> bool:
        """Return whether a call of `fit` has begun, and checkpoints are taken."""
        return self._job.layout is not None and self._job.settings.checkpoint_every != "off"

    @property
    def committed(self) -> bool:
        """Return whether a checkpoint contains all revisions."""
        return self._committed >= self.number or not self.enabled

    def add(self) -> None:
        """Record a change that workers must not learn yet."""
        self.number += 1

    def commit(self, number: int) -> None:
        """Record that a checkpoint contains the revisions up to a number, or that none could be written."""
        self._committed = max(self._committed, number)

    def begin_epoch(self, used: bool = False) -> None:
        """Begin an epoch; `used` is whether all of its samples are used, as a checkpoint states."""
        self._end_noted = used

    def end_of_samples(self, all_idle: bool) -> bool:
        """Return whether workers may learn that all samples of the epoch are used.

        Args:
            all_idle: Whether every worker has asked for its next samples, so that the last gradients are on all shards.
        """
        if not self.enabled:
            return True
        if not self._end_noted and all_idle:
            self._end_noted = True
            self._job.send(flush=True)
            self.add()
        return self._end_noted and self.committed
