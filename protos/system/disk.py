"""File operations beyond `pathlib`: unnamed and locked files, files written at offsets, and flushing to the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from downpour.protos.system import threads

_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


class NoLocks(OSError):
    """The file system does not support locks.

    Attributes:
        descriptor: The descriptor of the file, which is open and not locked.
    """

    def __init__(self, error: OSError, descriptor: int) -> None:
        """Take over the descriptor of a file that could not be locked."""
        super().__init__(error.errno, error.strerror)
        self.descriptor = descriptor


class File(Protocol):
    """The interface of an open file that is written at offsets."""

    def size(self) -> int:
        """Return the size in bytes."""

    def truncate(self, size: int) -> None:
        """Set the size in bytes."""

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all data at an offset."""

    def sync(self) -> None:
        """Flush the file to the disk. Another thread may call this method."""

    def close(self) -> None:
        """Close the file, which must not be used afterwards; data that were not synced may be lost with the system."""


class UnnamedFile(Protocol):
    """The interface of a file without a name, which the operating system removes when the process ends.

    Attributes:
        place: The path to write to.
    """

    @property
    def place(self) -> Path:
        """The path to write to."""

    def link(self, path: Path) -> None:
        """Give the file a name, which no other file must have."""

    def close(self) -> None:
        """Close the file; without a name it disappears."""


class Disk(Protocol):
    """The interface of the file system of a process.

    Its paths have the methods of `pathlib.Path` that the storage of a run uses.
    """

    def path(self, name: str) -> Path:
        """Return the path of a name."""

    def unnamed_file(self, folder: Path) -> UnnamedFile | None:
        """Return a new file without a name; None if the file system does not support that."""

    def open_file(self, path: Path) -> File:
        """Open a file, which is created if it does not exist."""

    def flush(self, path: Path) -> None:
        """Flush the content of a file, or the names in a folder, to the disk (fsync)."""

    def lock(self, path: Path) -> int | None:
        """Lock a file until this process ends; return its descriptor, or None if another process holds the lock."""


class SystemFile:
    """An open file of the operating system."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is created if it does not exist."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self._file).st_size

    def truncate(self, size: int) -> None:
        """Set the size in bytes."""
        os.ftruncate(self._file, size)

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all data at an offset. A single `pwrite` may write only a part when the disk becomes full.

        Raises:
            OSError: The disk is full or fails.
        """
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, offset)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left, offset = left[written:], offset + written

    def sync(self) -> None:
        """Flush the file to the disk. Another thread may call this method."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file, which must not be used afterwards; data that were not synced may be lost with the system."""
        os.close(self._file)


class SystemUnnamedFile:
    """A file without a name (O_TMPFILE), which the kernel removes whenever this process ends."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor of the file."""
        self._descriptor = descriptor

    @property
    def place(self) -> Path:
        """The path to write to."""
        return Path(f"/proc/self/fd/{self._descriptor}")

    def link(self, path: Path) -> None:
        """Give the file a name, which no other file must have."""
        try:
            # A descriptor of a folder makes Python follow the link to the file: link(2) would not.
            os.link(self.place, path, src_dir_fd=self._descriptor, follow_symlinks=True)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            shutil.copyfile(self.place, path)  # the file system has no hard links
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Close the file; without a name it disappears."""
        os.close(self._descriptor)


class SystemDisk:
    """The file system of the operating system."""

    def path(self, name: str) -> Path:
        """Return the path of a name."""
        return Path(name)

    def unnamed_file(self, folder: Path) -> UnnamedFile | None:
        """Return a new file without a name; None if the file system does not support that."""
        try:
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except (AttributeError, OSError):
            return None
        file = SystemUnnamedFile(descriptor)
        if file.place.exists():
            return file
        file.close()  # /proc is not mounted
        return None

    def open_file(self, path: Path) -> File:
        """Open a file, which is created if it does not exist."""
        return SystemFile(path)

    def flush(self, path: Path) -> None:
        """Flush the content of a file, or the names in a folder, to the disk (fsync).

        Some file systems cannot flush a folder, such as SMB and some in user space; they write names through.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED or not path.is_dir():
                raise
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> int | None:
        """Lock a file until this process ends; return its descriptor, or None if another process holds the lock.

        Raises:
            NoLocks: The file system has no locks.
            OSError: The file cannot be opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            raise NoLocks(error, descriptor) from error
        return descriptor


_disk: Disk = SystemDisk()


def use(disk: Disk) -> None:
    """Replace the file system of this process."""
    global _disk
    _disk = disk


def path(name: str) -> Path:
    """Return the path of a name."""
    return _disk.path(name)


def unnamed_file(folder: Path) -> UnnamedFile | None:
    """Return a new file without a name; None if the file system does not support that."""
    return _disk.unnamed_file(folder)


def open_file(path: Path) -> File:
    """Open a file, which is created if it does not exist."""
    return _disk.open_file(path)


def flush(path: Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk (fsync)."""
    _disk.flush(path)


def lock(path: Path) -> int | None:
    """Lock a file until this process ends; return its descriptor, or None if another process holds the lock."""
    return _disk.lock(path)


def point_latest_to(run_dir: Path) -> None:
    """Point the link `latest`, beside a run directory, to it.

    Raises:
        OSError: The link cannot be made.
    """
    link = run_dir.parent / f".latest-{threads.process()[1]}"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(run_dir.name)
        link.replace(run_dir.parent / "latest")
    finally:
        with suppress(OSError):
            link.unlink(missing_ok=True)
