"""Files that appear under their names when they are whole; nothing is left of one whose writer was killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path, durable: bool = False) -> Iterator[Path]:
    """A place to write to: its content is the file `path` once the block has ended well.

    On Linux the place has no name in the folder, so that the kernel frees it when this process ends in whatever way.
    Elsewhere, and on file systems that cannot do that, it is a file beside `path`, `.NAME.part`.

    Args:
        path: Where the file is to be; one that is there is replaced.
        durable: Whether content and name are to be on the disk when the block has ended.

    Raises:
        OSError: The disk is full, read-only or broken. Nothing has changed under `path`.
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
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _without_name(folder: Path) -> int | None:
    """Descriptor of a new file without a name; None where there is no such thing."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (AttributeError, OSError):
        return None
    if _path_of(descriptor).exists():
        return descriptor
    os.close(descriptor)  # there is no /proc
    return None


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")
