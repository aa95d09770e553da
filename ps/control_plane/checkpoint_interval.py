"""When the next checkpoint is due."""

from __future__ import annotations

APART_FACTOR = 20  # lower bound of the interval, as a multiple of the last checkpoint's duration


class CheckpointInterval:
    """Decides when the next checkpoint is due, by time or by updates, and later if checkpoints take long."""

    def __init__(self, every_s: float, every_updates: int) -> None:
        """Create an interval whose first checkpoint is due at once.

        Args:
            every_s: The seconds between two checkpoints; 0 if the interval is given in updates.
            every_updates: The updates between two checkpoints; 0 if the interval is given in seconds. If both are 0, no
                checkpoint is ever due.
        """
        self._every_s, self._every_updates = every_s, every_updates
        self._due_s, self._due_version = 0.0, 0

    @property
    def enabled(self) -> bool:
        """Return whether checkpoints are taken at all."""
        return bool(self._every_s or self._every_updates)

    def is_due(self, now: float, version: int) -> bool:
        """Return whether a checkpoint is due."""
        if not self.enabled or now < self._due_s:
            return False
        return bool(self._every_s) or version >= self._due_version

    def taken(self, begun_s: float, ended_s: float, version: int) -> None:
        """Record a checkpoint of `version` that lasted from `begun_s` to `ended_s`, even if it could not be written."""
        self._due_s = max(begun_s + self._every_s, ended_s + APART_FACTOR * (ended_s - begun_s))
        self._due_version = version + self._every_updates

    def put_off(self, until_s: float) -> None:
        """Try again at `until_s`: the checkpoint that was under way has been abandoned."""
        self._due_s = until_s
