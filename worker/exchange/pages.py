"""Memory on pages of its own: TensorFlow reads in place what lies there (`downpour.worker.compute.zero_copy`)."""

from __future__ import annotations

import mmap
from contextlib import suppress


def pages(size_bytes: int) -> memoryview:
    """Zeros, to be written to; a page costs nothing until then."""
    memory = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:size_bytes]
