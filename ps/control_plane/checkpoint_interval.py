"""When the next checkpoint is due. Pure."""

from __future__ import annotations

APART = 20  # times as long as the last one took, at least, between two checkpoints


class CheckpointInterval:
    """Seconds or updates between two checkpoints, and more of them where one takes long."""

    def __init__(self, every_s: float, every_updates: int) -> None:
        """The first is due at once.

        Args:
            every_s: Time between two; 0: updates count.
            every_updates: Updates between two; 0: time counts. With both 0 none is ever due.
        """
        self._every_s, self._every_updates = every_s, every_updates
        self._due_s, self._due_version = 0.0, 0

    @property
    def enabled(self) -> bool:
        """Whether there are to be any."""
        return bool(self._every_s or self._every_updates)

    def is_due(self, now: float, version: int) -> bool:
        """Whether it is time for one."""
        if not self.enabled or now < self._due_s:
            return False
        return bool(self._every_s) or version >= self._due_version

    def took(self, begun_s: float, ended_s: float, version: int) -> None:
        """One of `version` was under way from `begun_s` to `ended_s`, whether or not the disk took it."""
        self._due_s = max(begun_s + self._every_s, ended_s + APART * (ended_s - begun_s))
        self._due_version = version + self._every_updates

    def put_off(self, until_s: float) -> None:
        """The one that was under way came to nothing."""
        self._due_s = until_s
