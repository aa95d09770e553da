"""Replaces Python's file functions in a worker of a script, so that workers do not see each other's changes.

On worker 0, the replaced functions record every change in the journal before they make it. On the other workers, they
translate each path to its place in the worker's view. This module replaces `builtins.open`, `io.open` and functions of
`os`, which pathlib, shutil, glob, tempfile, zipfile, tarfile, NumPy and pandas call; `library_patches` replaces the
functions of TensorFlow and h5py that open files themselves. Processes that the script starts are not covered.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import os
import shutil
import tarfile
import threading
import tokenize
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import SourceFileLoader
from typing import Any, Protocol

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SYSTEM = ("/dev", "/proc", "/sys")


class Files(Protocol):
    """The interface of the files of one worker, which the replaced functions call with absolute paths."""

    def to_read(self, path: str) -> str:
        """Return where to read a path."""

    def to_write(self, path: str, flags: int) -> str:
        """Return where to write a path that is opened with the given flags of `os.open`."""

    def to_change(self, path: str) -> str:
        """Return where to change the attributes of a path."""

    def listed(self, folder: str) -> list[str] | None:
        """Return the names in a folder; None for those that the operating system lists."""

    def make_folder(self, path: str, mode: int) -> None:
        """Create a folder with the given permissions."""

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file or an empty folder."""

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder."""


class Guard(threading.local):
    """A flag of each thread: whether it is within a replaced function, whose own calls go to the operating system."""

    busy = False

    def entered(self) -> AbstractContextManager[None]:
        """Return a context in which file functions are those of the operating system."""
        return self._set(True)

    def left(self) -> AbstractContextManager[None]:
        """Return a context in which file functions are the replaced ones again."""
        return self._set(False)

    @contextmanager
    def _set(self, busy: bool) -> Iterator[None]:
        before, self.busy = self.busy, busy
        try:
            yield
        finally:
            self.busy = before


guard = Guard()


class FilePatches:
    """The replaced functions of one process."""

    def __init__(self, files: Files, outside: tuple[str, ...] = ()) -> None:
        """Create the functions that replace those of the operating system.

        Args:
            files: The files of this worker.
            outside: Folders, in addition to `SYSTEM`, whose files are not part of the view.
        """
        self._files = files
        self._outside = tuple(f"{folder}{os.sep}" for folder in (*SYSTEM, *outside))
        self._system = {name: getattr(os, name) for name in dir(os)}
        self._folder: str | None = None  # the current one, if it is only in the view

    def install(self) -> None:
        """Replace the functions of Python."""
        own_open = builtins.open
        opened = functools.wraps(own_open)(functools.partial(self._open, own_open))
        for owner in (builtins, io):
            setattr(owner, "open", opened)  # noqa: B010 - mypy does not permit an assignment to this name
        setattr(tarfile, "bltn_open", opened)  # noqa: B010
        setattr(tokenize, "_builtin_open", opened)  # noqa: B010 - inspect and tracebacks read sources with it
        setattr(shutil, "_use_fd_functions", False)  # noqa: B010 - rmtree then passes paths instead of descriptors
        for name in ("stat", "lstat", "access", "readlink", "statvfs", "listxattr", "getxattr"):
            self._replace(name, self._reading)
        for name in ("chmod", "chown", "lchown", "utime", "truncate", "setxattr"):
            self._replace(name, self._changing)
        self._replace("chdir", self._chdir)
        setattr(os, "getcwd", lambda: self._folder or self._system["getcwd"]())  # noqa: B010
        self._replace("open", self._os_open)
        for name in ("listdir", "scandir"):
            self._replace(name, getattr(self, f"_{name}"))
        self._replace("mkdir", self._mkdir)
        for name in ("unlink", "remove", "rmdir"):
            self._replace(name, functools.partial(self._remove, name == "rmdir"))
        for name in ("rename", "replace"):
            self._replace(name, self._move)
        for name in ("link", "symlink"):
            self._replace(name, self._link)
        self._replace_in_importlib()

    def absolute(self, path: Any) -> str | None:
        """Return the absolute form of a path in the view; None for a descriptor and for a path outside of the view."""
        if guard.busy or isinstance(path, int):
            return None
        try:
            text = os.path.abspath(os.fsdecode(path))  # from the current folder, which may be in the view only
        except (TypeError, ValueError, OSError):
            return None
        return None if f"{text}{os.sep}".startswith(self._outside) else text

    def _replace(self, name: str, replacement: Callable[..., Any]) -> None:
        if not hasattr(os, name):
            return
        own = self._system[name]

        @functools.wraps(own)
        def replaced(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            absolute = None if kwargs.get("dir_fd") is not None else self.absolute(path)
            if absolute is None:
                return own(path, *args, **kwargs)
            try:
                with guard.entered():
                    return replacement(own, path, absolute, *args, **kwargs)
            except OSError as error:
                _name(error, path)
                raise

        setattr(os, name, replaced)
        for supported in (os.supports_fd, os.supports_follow_symlinks, os.supports_dir_fd):
            if own in supported:
                supported.add(replaced)

    # ------------------------------------------------------------------ the functions

    def _reading(self, own: Any, path: Any, absolute: str, *args: Any, **kwargs: Any) -> Any:
        return own(self._files.to_read(absolute), *args, **kwargs)

    def _changing(self, own: Any, path: Any, absolute: str, *args: Any, **kwargs: Any) -> Any:
        return own(self._files.to_change(absolute), *args, **kwargs)

    def _chdir(self, own: Any, path: Any, absolute: str) -> None:
        place = absolute if os.path.isdir(absolute) else self._files.to_read(absolute)
        own(place)
        self._folder = absolute if place != absolute else None

    def _os_open(self, own: Any, path: Any, absolute: str, flags: int, *args: Any, **kwargs: Any) -> Any:
        place = self._files.to_write(absolute, flags) if flags & WRITING else self._files.to_read(absolute)
        return own(place, flags, *args, **kwargs)

    def _open(self, own: Any, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        absolute = self.absolute(file)
        opener = kwargs.get("opener") or (args[5] if len(args) > 5 else None)
        if absolute is None or opener is not None:
            return own(file, mode, *args, **kwargs)

        def of_view(_: str, flags: int) -> int:
            with guard.entered():
                place = self._files.to_write(absolute, flags) if flags & WRITING else self._files.to_read(absolute)
                descriptor: int = self._system["open"](place, flags, 0o666)
                if not flags & WRITING and (now := self._files.to_read(absolute)) != place:
                    os.close(descriptor)  # worker 0 has begun to change the file in the meantime
                    descriptor = self._system["open"](now, flags)
                return descriptor

        try:
            return own(file, mode, *args[:5], **{**kwargs, "opener": of_view})
        except OSError as error:
            _name(error, file)
            raise

    def _replace_in_importlib(self) -> None:
        """Make imports find modules that the script has written."""
        external: Any = importlib._bootstrap_external
        names = {name: getattr(os, name, value) for name, value in vars(external._os).items()}
        setattr(external, "_os", types.SimpleNamespace(**names))  # noqa: B010
        own = SourceFileLoader.get_data

        def of_view(loader: Any, path: Any) -> Any:
            absolute = self.absolute(path)
            if absolute is None:
                return own(loader, path)
            with guard.entered():
                return own(loader, self._files.to_read(absolute))

        setattr(SourceFileLoader, "get_data", functools.wraps(own)(of_view))  # noqa: B010

    def _listdir(self, own: Any, path: Any, absolute: str) -> Any:
        names = self._files.listed(absolute)
        if names is None:
            return own(path)
        own(self._files.to_read(absolute))  # raises the error of the operating system if this is no folder
        return [os.fsencode(name) for name in names] if isinstance(path, bytes) else names

    def _scandir(self, own: Any, path: Any, absolute: str) -> Any:
        names = self._files.listed(absolute)
        if names is None:
            return own(path)
        own(self._files.to_read(absolute)).close()
        encoded = [os.fsencode(name) for name in names] if isinstance(path, bytes) else names
        return Entries([Entry(path, name) for name in encoded])

    def _mkdir(self, own: Any, path: Any, absolute: str, mode: int = 0o777, **kwargs: Any) -> None:
        self._files.make_folder(absolute, mode)

    def _remove(self, folder: bool, own: Any, path: Any, absolute: str, **kwargs: Any) -> None:
        self._files.remove(absolute, folder)

    def _move(self, own: Any, path: Any, absolute: str, target: Any, **kwargs: Any) -> None:
        with guard.left():
            there = self.absolute(target)
        if there is None:
            own(self._files.to_read(absolute), target)
        else:
            self._files.move(absolute, there)

    def _link(self, own: Any, path: Any, absolute: str, target: Any, *args: Any, **kwargs: Any) -> None:
        with guard.left():
            there = self.absolute(target)
        if own is self._system["symlink"] and there is not None:
            aimed = os.path.normpath(os.path.join(os.path.dirname(there), os.fsdecode(path)))
            aim = self._files.to_read(aimed)
            own(path if aim == aimed else aim, self._files.to_write(there, os.O_CREAT | os.O_EXCL), *args)
        else:
            place = target if there is None else self._files.to_write(there, os.O_CREAT | os.O_EXCL)
            own(self._files.to_read(absolute), place, *args)


def _name(error: OSError, path: Any) -> None:
    """Set the path of an error to the one that the script has given."""
    if error.filename is not None:
        setattr(error, "filename", path)  # noqa: B010


class Entry:
    """An entry of a folder, as `os.DirEntry`; the functions that it calls are the replaced ones."""

    def __init__(self, folder: Any, name: Any) -> None:
        """Build the entry of a name in a folder."""
        self.name, self.path = name, os.path.join(os.fspath(folder), name)

    def __fspath__(self) -> Any:
        """Return the path of the entry."""
        return self.path

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a folder."""
        return os.path.isdir(self.path) and (follow_symlinks or not self.is_symlink())

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Return whether it is a file."""
        return os.path.isfile(self.path) and (follow_symlinks or not self.is_symlink())

    def is_symlink(self) -> bool:
        """Return whether it is a symbolic link."""
        return os.path.islink(self.path)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the attributes of the entry, as `os.stat` does."""
        return os.stat(self.path, follow_symlinks=follow_symlinks)

    def inode(self) -> int:
        """Return the number of its inode."""
        return os.lstat(self.path).st_ino


class Entries:
    """The iterator that `os.scandir` returns."""

    def __init__(self, entries: list[Entry]) -> None:
        """Build an iterator over entries."""
        self._entries = iter(entries)

    def __iter__(self) -> Entries:
        """Return this iterator of entries."""
        return self

    def __next__(self) -> Entry:
        """Return the next entry of the folder."""
        return next(self._entries)

    def __enter__(self) -> Entries:
        """Return this iterator of entries."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Do nothing; no folder is open."""

    def close(self) -> None:
        """Do nothing; no folder is open."""
