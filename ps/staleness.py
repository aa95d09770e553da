"""What a stale gradient is worth: one row per compensation."""

from __future__ import annotations

from collections.abc import Callable


def none(staleness: int) -> float:
    """A stale gradient counts like a fresh one."""
    return 1.0


POLICIES: dict[str, Callable[[int], float]] = {
    "none": none,
}
