"""Paths and open files of a simulated disk, with the methods of `pathlib.Path` that the storage of a run uses."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from downpour.bench.world.system.disk import Inode, VirtualDisk
from downpour.bench.world.system.scheduler import World


class VirtualPath(PurePosixPath):
    """A path on the disk of the machine whose process executes."""

    world: ClassVar[World]
    scratch: ClassVar[str]  # a real folder, for libraries that read files themselves

    @property
    def _disk(self) -> VirtualDisk:
        process = self.world.running
        assert process is not None, "only a process uses its machine's disk"
        return process.machine.disk

    def exists(self) -> bool:
        """Return whether the path exists."""
        disk, path = self._disk, str(self)
        disk.begin(change=False)
        return disk.resolved(path) in disk.names or disk.resolved(path) in disk.folders

    def is_dir(self) -> bool:
        """Return whether the path is a folder."""
        return self._disk.resolved(str(self)) in self._disk.folders

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Create a folder, which is durable at once."""
        disk = self._disk
        if str(self) in disk.folders:
            if exist_ok:
                return
            raise FileExistsError(str(self))
        disk.begin(change=True)
        disk.folders |= {str(self), *(str(parent) for parent in self.parents)}

    def iterdir(self) -> Iterator[VirtualPath]:
        """Yield the paths in this folder."""
        self._disk.begin(change=False)
        return iter([VirtualPath(path) for path in self._disk.entries(str(self))])

    def glob(self, pattern: str) -> Iterator[VirtualPath]:
        """Yield the paths in this folder whose names match a pattern."""
        self._disk.begin(change=False)
        return iter([VirtualPath(path) for path in self._disk.matching(str(self), pattern)])

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the name of a file or link from the disk."""
        disk, path = self._disk, str(self)
        if path not in disk.names and path not in disk.links:
            if missing_ok:
                return
            raise FileNotFoundError(path)
        disk.begin(change=True)
        if disk.links.pop(path, None) is None:
            disk.set_name(path, None)

    def rmdir(self) -> None:
        """Remove this folder, which must be empty."""
        disk = self._disk
        if disk.entries(str(self)):
            raise OSError(f"{self} is not empty")
        disk.folders.discard(str(self))

    def replace(self, target: Any) -> VirtualPath:
        """Rename this file, and replace an existing one."""
        disk, path = self._disk, str(self)
        disk.begin(change=True)
        if path in disk.links:
            disk.links[str(target)] = disk.links.pop(path)
        else:
            inode = disk.inode(path)
            disk.set_name(str(target), inode)
            disk.set_name(path, None)
        return VirtualPath(target)

    def symlink_to(self, target: Any) -> None:
        """Make this path a link."""
        self._disk.begin(change=True)
        self._disk.links[str(self)] = str(self.parent / target)

    def resolve(self) -> VirtualPath:
        """Return the path that a link points to."""
        return VirtualPath(self._disk.resolved(str(self)))

    def stat(self) -> Any:
        """Return the size of the file."""
        return SimpleNamespace(st_size=len(self._disk.inode(str(self)).content))

    def read_bytes(self) -> bytes:
        """Return the content of the file as bytes."""
        self._disk.begin(change=False)
        return bytes(self._disk.inode(str(self)).content)

    def read_text(self) -> str:
        """Return the content as a text."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> int:
        """Replace the content of the file; return the number of bytes written."""
        with self.open("wb") as file:
            return file.write(data)

    def write_text(self, text: str) -> int:
        """Replace the content by a text."""
        return self.write_bytes(text.encode())

    def open(self, mode: str = "rb") -> Any:
        """Open the file for reading or for writing from its beginning."""
        disk, path = self._disk, str(self)
        if mode == "rb":
            return io.BytesIO(self.read_bytes())
        assert mode == "wb", mode
        disk.begin(change=True)
        inode = disk.names.get(path)
        if inode is None:
            inode = Inode()
            disk.set_name(path, inode)
        inode.content.clear()
        return Writer(disk, inode)

    def __fspath__(self) -> str:
        """Return the path of a real copy of the file, for libraries that read files themselves."""
        place = os.path.join(self.scratch, self.name)
        with open(place, "wb") as file:
            file.write(self.read_bytes())
        return place


class Writer:
    """A file that is being written."""

    def __init__(self, disk: VirtualDisk, inode: Inode) -> None:
        """Begin at the start of an empty file."""
        self._disk, self._inode = disk, inode

    def write(self, data: Any) -> int:
        """Append data to the file; return the number of bytes.

        Raises:
            OSError: The disk is full or read-only.
        """
        view = memoryview(data).cast("B")
        self._disk.begin_write()
        self._inode.content += view
        return len(view)

    def flush(self) -> None:
        """Do nothing: nothing is kept in the process."""

    def close(self) -> None:
        """Do nothing: the virtual disk has no descriptors."""

    def __enter__(self) -> Writer:
        """Return this file, as `with` expects."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the virtual disk has no descriptors."""


class OpenFile:
    """A file that is written at offsets; see `downpour.protos.system.disk.File`."""

    def __init__(self, disk: VirtualDisk, inode: Inode) -> None:
        """Open the file that an inode of the disk describes."""
        self._disk, self._inode = disk, inode

    def size(self) -> int:
        """Return the size in bytes."""
        return len(self._inode.content)

    def truncate(self, size: int) -> None:
        """Set the size in bytes."""
        self._disk.begin(change=True)
        content = self._inode.content
        del content[size:]
        content += bytes(size - len(content))

    def write_at(self, data: bytes, offset: int) -> None:
        """Write all data at an offset."""
        self._disk.begin_write()
        content = self._inode.content
        content += bytes(max(0, offset - len(content)))
        content[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Write the content to the disk so that it survives a power failure."""
        self._disk.flush_file(self._inode)

    def close(self) -> None:
        """Do nothing: the virtual disk has no descriptors."""


class UnnamedVirtualFile:
    """A file without a name."""

    def __init__(self, disk: VirtualDisk, place: VirtualPath) -> None:
        """Create the file; it has a path that no one else uses."""
        self._disk, self._place = disk, place
        disk.names[str(place)] = Inode()

    @property
    def place(self) -> Path:
        """The path to write to."""
        return cast(Path, self._place)

    def link(self, path: Path) -> None:
        """Give the file a name."""
        self._disk.begin(change=True)
        self._disk.set_name(str(path), self._disk.names[str(self._place)])

    def close(self) -> None:
        """Close the file; without a name it disappears."""
        self._disk.names.pop(str(self._place), None)


class ProcessDisk:
    """The disk of the machine whose process executes; see `downpour.protos.system.disk.Disk`."""

    def __init__(self, world: World) -> None:
        """Create the disk of a world."""
        self._world, self._unnamed = world, 0

    @property
    def _disk(self) -> VirtualDisk:
        process = self._world.running
        assert process is not None, "only a process uses its machine's disk"
        process.check_alive()
        return process.machine.disk

    def path(self, name: str) -> Path:
        """Return the path of a name."""
        return cast(Path, VirtualPath(name))

    def unnamed_file(self, folder: Path) -> UnnamedVirtualFile | None:
        """Return a new file without a name."""
        if str(folder) not in self._disk.folders:
            return None
        self._unnamed += 1
        return UnnamedVirtualFile(self._disk, VirtualPath(f"/unnamed/{self._unnamed}"))

    def open_file(self, path: Path) -> OpenFile:
        """Open a file, which is created if it does not exist."""
        disk = self._disk
        inode = disk.names.get(str(path))
        if inode is None:
            disk.begin(change=True)
            inode = Inode()
            disk.set_name(str(path), inode)
        return OpenFile(disk, inode)

    def flush(self, path: Path) -> None:
        """Make the content of a file, or the names in a folder, durable."""
        disk = self._disk
        if str(path) in disk.folders:
            disk.flush_folder(str(path))
        else:
            disk.flush_file(disk.inode(str(path)))

    def lock(self, path: Path) -> int | None:
        """Lock a file until the process ends; return its descriptor, or None if another process holds the lock."""
        disk, process = self._disk, self._world.running
        assert process is not None
        if str(path) not in disk.names:
            self.open_file(path)
        holder = disk.locks.get(str(path))
        if holder is not None and holder.alive and holder is not process:
            return None
        disk.locks[str(path)] = process
        return 1
