"""Atomic writing of files: a file appears under its name when it is complete, and a killed writer leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from downpour.protos.system import descriptors, disk, entropy


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, whose content replaces the file `path` when the block ends without an error.

    On Linux the temporary file has no name (O_TMPFILE), so that the kernel removes it whenever this process ends.
    Elsewhere, and on file systems without that feature, it is the file `.NAME.part` beside `path`. The block may use
    the descriptors that the process holds in reserve.

    Args:
        path: The path of the file; an existing file is replaced.
        durable: Whether the content and the name must be on the disk when the block has ended.

    Raises:
        OSError: The disk is full, read-only or broken. The file `path` has not changed. The error names `path` and
            never the temporary file, whose random name would make every message another one.
    """
    with descriptors.reserve.released():
        yield from _written(path, durable)


def _written(path: Path, durable: bool) -> Iterator[Path]:
    beside = path.with_name(f".{path.name}.{entropy.random_bits(32):08x}.part")
    unnamed = disk.unnamed_file(path.parent)
    try:
        place = beside if unnamed is None else unnamed.place
        yield place
        if durable:
            disk.flush(place)
        if unnamed is not None:
            unnamed.link(beside)
        beside.replace(path)
        if durable:
            disk.flush(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if unnamed is not None:
            unnamed.close()
        with suppress(OSError):
            beside.unlink(missing_ok=True)
