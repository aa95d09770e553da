"""Memory that is aligned to pages, which TensorFlow reads in place (`downpour.worker.compute.zero_copy`)."""

from __future__ import annotations

import mmap
from contextlib import suppress


def pages(size_bytes: int) -> memoryview:
    """Return zeroed memory, aligned to pages; a page uses no memory until it is written to."""
    memory = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[:size_bytes]
