"""A disk with the semantics of fsync: data that are not flushed may be lost, wholly or partly, in a power failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from typing import TYPE_CHECKING

from downpour.bench.world.system.scheduler import World, exponential
from downpour.bench.world.system.threads import executing_thread

if TYPE_CHECKING:
    from downpour.bench.world.system.process import VirtualProcess

BLOCK_BYTES = 512  # unit of writing: after a power failure a block is old or new, never mixed
OPERATION_S, FLUSH_S = 0.0002, 0.003  # mean duration of an operation, and of a flush


@dataclass(eq=False)
class Inode:
    """The content of a file: `content` as processes read it, and `flushed`, which survives a power failure."""

    content: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""


class VirtualDisk:
    """The files of one machine.

    Attributes:
        full: Whether writes fail because there is no room.
        read_only: Whether all changes fail.
        operations: The number of changes so far.
    """

    def __init__(self, world: World) -> None:
        """Create a disk that holds the root folder only."""
        self._world = world
        self.names: dict[str, Inode] = {}
        self.folders: set[str] = {"/"}
        self._flushed_names: dict[str, Inode] = {}
        self._unflushed: dict[str, list[str]] = {}  # folder -> paths whose entries have changed since its last fsync
        self.links: dict[str, str] = {}
        self.locks: dict[str, VirtualProcess] = {}
        self.full = self.read_only = False
        self.operations = 0

    # ------------------------------------------------------------------ the rules of every operation

    def begin(self, change: bool, flush: bool = False) -> None:
        """Begin an operation: wait for its duration if a thread executes it, and check that it can be carried out.

        Args:
            change: Whether the operation changes the disk.
            flush: Whether the operation waits until data are on the disk.

        Raises:
            ProcessKilled: The process has been killed, perhaps while it waited for the disk.
            OSError: The disk is full or read-only.
        """
        process = self._world.running
        if process is not None:
            process.check_alive()
        thread = executing_thread()
        if thread is not None:
            mean_s = FLUSH_S if flush else OPERATION_S
            thread.block(self._world.now + exponential(self._world.random, mean_s))
        if change:
            self.operations += 1
            if self.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def begin_write(self) -> None:
        """Begin a write: wait for its duration, and check that it can be carried out.

        Raises:
            OSError: The disk is full or read-only.
        """
        self.begin(change=True)
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # ------------------------------------------------------------------ names

    def inode(self, path: str) -> Inode:
        """Return the content of a file.

        Raises:
            FileNotFoundError: There is no such file.
        """
        found = self.names.get(self.resolved(path))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def resolved(self, path: str) -> str:
        """Return a path whose last part is no link."""
        return self.links.get(path, path)

    def set_name(self, path: str, inode: Inode | None) -> None:
        """Give a name to a file, or remove a name."""
        folder = path.rpartition("/")[0] or "/"
        if folder not in self.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if inode is None:
            self.names.pop(path, None)
        else:
            self.names[path] = inode
        self._unflushed.setdefault(folder, []).append(path)

    def entries(self, folder: str) -> list[str]:
        """Return the paths in a folder, in alphabetical order.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        if folder not in self.folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        inside = folder.rstrip("/") + "/"
        return sorted(
            path for path in (*self.names, *self.links, *self.folders)
            if path.startswith(inside) and path != folder and "/" not in path[len(inside) :]
        )  # fmt: skip

    def matching(self, folder: str, pattern: str) -> Iterator[str]:
        """Yield the paths in a folder whose names match a pattern."""
        if folder in self.folders:
            for path in self.entries(folder):
                if fnmatchcase(path.rpartition("/")[2], pattern):
                    yield path

    # ------------------------------------------------------------------ durability

    def flush_file(self, inode: Inode) -> None:
        """Make the content of a file durable."""
        self.begin(change=False, flush=True)
        if self.read_only:
            return
        inode.flushed = bytes(inode.content)

    def flush_folder(self, folder: str) -> None:
        """Make the names in a folder durable."""
        self.begin(change=False, flush=True)
        for path in self._unflushed.pop(folder, ()):
            self._keep_name(path)

    def _keep_name(self, path: str) -> None:
        if path in self.names:
            self._flushed_names[path] = self.names[path]
        else:
            self._flushed_names.pop(path, None)

    def lose_power(self) -> None:
        """Lose the memory of the machine: of the changes that were not flushed, a random subset is on the disk."""
        random = self._world.random
        for folder in sorted(self._unflushed):
            paths = list(dict.fromkeys(self._unflushed[folder]))
            for path in paths:
                if random.random() < 0.5:
                    self._keep_name(path)
        self._unflushed.clear()
        self.names = dict(self._flushed_names)
        for inode in self.names.values():
            inode.content = bytearray(self._after_crash(inode))
            inode.flushed = bytes(inode.content)
        self.locks.clear()

    def _after_crash(self, inode: Inode) -> bytes:
        if bytes(inode.content) == inode.flushed:
            return inode.flushed
        random = Random(self._world.random.getrandbits(32))  # the sizes of some files differ between machines
        new, old = bytes(inode.content), inode.flushed
        size = random.choice((len(old), len(new)))
        new, old = new.ljust(size, b"\0"), old.ljust(size, b"\0")
        blocks = range(0, size, BLOCK_BYTES)
        after = b"".join((new if random.random() < 0.5 else old)[at : at + BLOCK_BYTES] for at in blocks)
        return after[:size]
