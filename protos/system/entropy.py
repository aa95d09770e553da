"""Unpredictable random numbers, for the identifiers of sessions and the names of temporary files."""

from __future__ import annotations

import secrets
from collections.abc import Callable

SYSTEM_BITS: Callable[[int], int] = secrets.randbits
_bits = SYSTEM_BITS


def use(bits: Callable[[int], int]) -> None:
    """Replace the source of random bits of this process; a simulator uses a seeded one."""
    global _bits
    _bits = bits


def random_bits(count: int) -> int:
    """Return an integer with `count` random bits."""
    return _bits(count)
