"""Atomic writing of files: a file appears under its name when it is complete, and a killed writer leaves nothing."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, whose content replaces the file `path` when the block ends without an error.

    On Linux the temporary file has no name (O_TMPFILE), so that the kernel removes it whenever this process ends.
    Elsewhere, and on file systems without that feature, it is the file `.NAME.part` beside `path`.

    Args:
        path: The path of the file; an existing file is replaced.
        durable: Whether the content and the name must be on the disk when the block has ended.

    Raises:
        OSError: The disk is full, read-only or broken. The file `path` has not changed.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = _without_name(path.parent)
    try:
        place = beside if descriptor is None else _path_of(descriptor)
        yield place
        if durable:
            flush(place)
        if descriptor is not None:
            # A descriptor of a folder makes Python follow the link to the file: link(2) would not.
            os.link(place, beside, src_dir_fd=descriptor, follow_symlinks=True)
        beside.replace(path)
        if durable:
            flush(path.parent)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without_name(folder: Path) -> int | None:
    """Return the descriptor of a new file without a name; None if the system does not support that."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):
        return None
    if _path_of(descriptor).exists():
        return descriptor
    os.close(descriptor)  # /proc is not mounted
    return None


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")
