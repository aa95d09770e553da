"""The files of a script in one worker: worker 0's are the real ones, the others have a private view of them."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from downpour.worker.fit.process.file_journal import JournalReader, JournalWriter
from downpour.worker.fit.process.file_patches import FilePatches, guard
from downpour.worker.fit.process.file_view import FileView

READ, PATTERN, WRITE, UPDATE, FOLDER = "read", "pattern", "write", "update", "folder"


class LeaderFiles:
    """The real files, whose changes are recorded in a journal."""

    def __init__(self, journal: JournalWriter) -> None:
        """Build the files of worker 0.

        Args:
            journal: The journal that receives every change before it is made.
        """
        self._journal = journal

    def begin_stage(self, stage: int, in_fit: bool) -> None:
        """Record the number of calls of `fit` that have ended, and whether the script is within one."""
        self._journal.set_stage(stage, in_fit)

    def to_read(self, path: str) -> str:
        """Return the path unchanged: worker 0 uses the real files."""
        return path

    def to_write(self, path: str, flags: int = os.O_CREAT | os.O_TRUNC) -> str:
        """Return the path itself, after the journal has kept its content."""
        place = os.path.realpath(path) if os.path.islink(path) else path
        if not os.path.isdir(place):
            kept_content = not flags & os.O_TRUNC and not flags & os.O_EXCL
            self._journal.before_change(place, rewritten=not flags & os.O_EXCL, kept_content=kept_content)
        return path

    def to_fill(self, path: str) -> str:
        """Return the path itself, after the journal has recorded that it is new."""
        if not os.path.lexists(path):
            self._journal.before_change(path)
        return path

    def to_change(self, path: str) -> str:
        """Return the path itself; the journal does not keep attributes."""
        return path

    def listed(self, folder: str) -> list[str] | None:
        """Return None: worker 0 lists the real folders."""
        return None

    def make_folder(self, path: str, mode: int) -> None:
        """Create a folder, and record that it is new."""
        if not os.path.lexists(path):
            self._journal.before_change(path)
        os.mkdir(path, mode)

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file or an empty folder."""
        if os.path.lexists(path):
            self._journal.before_change(path)
        os.rmdir(path) if folder else os.unlink(path)

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder."""
        for path in (*_tree(source), *_tree(target)):
            self._journal.before_change(path)
        for path in _tree(source):
            self._journal.before_change(target + path[len(source) :])
        os.replace(source, target)


class FollowerFiles:
    """The view of a worker other than 0."""

    def __init__(self, view: FileView) -> None:
        """Build the files of a worker other than 0, which are those of its view."""
        self._view = view

    def begin_stage(self, stage: int, in_fit: bool) -> None:
        """Show the files that worker 0 wrote within the call of `fit` that has ended."""
        if not in_fit and stage:
            self._view.begin_stage(stage)

    def to_read(self, path: str) -> str:
        """Return where this worker finds a path."""
        return self._view.locate(path) or self._view.own(path)

    def to_write(self, path: str, flags: int = os.O_CREAT | os.O_TRUNC) -> str:
        """Return where this worker writes a path."""
        now = self._view.locate(path)
        if now is None and not flags & os.O_CREAT:
            return self._view.own(path)  # opening it there raises FileNotFoundError
        if now is not None and (flags & os.O_EXCL or not stat.S_ISREG(os.stat(now).st_mode)):
            return now  # opening it raises FileExistsError, or it is a device, a pipe or a folder
        return self._view.to_write(path, keep=not flags & os.O_TRUNC)

    def to_fill(self, path: str) -> str:
        """Return where this worker has a folder, or files whose names begin with the path."""
        return self._view.to_fill(path)

    def to_change(self, path: str) -> str:
        """Return where this worker changes the attributes of a path."""
        return self._view.to_write(path, keep=True) if self._view.locate(path) else self._view.own(path)

    def listed(self, folder: str) -> list[str] | None:
        """Return the names that this worker finds in a folder."""
        return None if self._view.is_plain(folder) else self._view.names(folder)

    def make_folder(self, path: str, mode: int) -> None:
        """Create a folder, and record that it is new."""
        self._view.make_folder(path, mode)

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file or an empty folder."""
        self._view.remove(path, folder)

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder."""
        self._view.move(source, target)


class PrivateLeaderFiles(FollowerFiles):
    """The view of worker 0 in a replay, which leaves the real files as they are.

    The journal names what it writes within `fit`, so that the other workers find it in its private folder afterwards.
    """

    def __init__(self, view: FileView, journal: JournalWriter) -> None:
        """Build the files of worker 0 in a replay.

        Args:
            view: The view of this worker.
            journal: The journal of what it writes within `fit`.
        """
        super().__init__(view)
        self._journal, self._in_fit = journal, False

    def begin_stage(self, stage: int, in_fit: bool) -> None:
        """Record the number of calls of `fit` that have ended, and whether the script is within one."""
        self._in_fit = in_fit
        self._journal.set_stage(stage, in_fit)

    def _note(self, path: str) -> None:
        if self._in_fit:
            self._journal.before_change(path)

    def to_write(self, path: str, flags: int = os.O_CREAT | os.O_TRUNC) -> str:
        """Return where this worker writes a path."""
        self._note(path)
        return super().to_write(path, flags)

    def to_fill(self, path: str) -> str:
        """Return where this worker has a folder, or files whose names begin with the path."""
        self._note(path)
        return super().to_fill(path)

    def make_folder(self, path: str, mode: int) -> None:
        """Create a folder, and record that it is new."""
        self._note(path)
        super().make_folder(path, mode)

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file or an empty folder."""
        self._note(path)
        super().remove(path, folder)

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder."""
        self._note(target)
        super().move(source, target)


class ScriptFiles:
    """The files of a script in one worker's process, and the replacement of the functions that open them.

    Attributes:
        files: The files of this worker; None if they are the real ones, because the job has one worker.
    """

    def __init__(self, rank: int, size: int, shared: str, private: bool = False) -> None:
        """Choose the files of this worker; no function is replaced before `install`.

        Args:
            rank: The rank of the worker.
            size: The number of workers.
            shared: The folder that the workers of the job on this machine share; empty if there is none.
            private: Whether worker 0 leaves the real files as they are, too.
        """
        self._rank, self._shared = rank, os.path.abspath(shared) if shared else ""
        self.files: LeaderFiles | FollowerFiles | None = None
        private = private and bool(shared)
        self._patches: FilePatches | None = None
        self._given: dict[str, str] = {}  # paths that the script gave, by the place of the file
        if not private and (size == 1 or not (rank or shared)):
            return
        root = os.path.join(self._shared, f"worker-{rank}") if shared else tempfile.mkdtemp(prefix="downpour-files-")
        if rank or private:
            shutil.rmtree(root, ignore_errors=True)  # a process that this one replaces may have left it
            os.makedirs(root)
        if rank:
            if not shared:  # no launcher on this machine reads and removes the folder afterwards
                atexit.register(shutil.rmtree, root, ignore_errors=True)
            leader = os.path.join(self._shared, "worker-0") if private else ""
            self.files = FollowerFiles(FileView(root, JournalReader(self._shared) if shared else None, leader))
        elif private:
            self.files = PrivateLeaderFiles(FileView(root), JournalWriter(self._shared))
        else:
            self.files = LeaderFiles(JournalWriter(self._shared))
        run = os.path.dirname(self._shared) if private else ""  # the run directory, in which the model is saved
        self._patches = FilePatches(self.files, tuple(filter(None, (root if rank else "", self._shared, run))))

    def install(self) -> None:
        """Replace the functions that open files."""
        if self._patches is not None:
            self._patches.install()

    def folder_of(self, name: str) -> str:
        """Return the path of a folder that the workers share for another purpose; empty if there is none."""
        return os.path.join(self._shared, name) if self._shared and self.files is not None else ""

    def place(self, path: Any, use: str) -> Any:
        """Return the place of a path, for a library that opens files by itself.

        Args:
            path: The path, as the script gives it.
            use: `READ`, or `PATTERN` of names that are read; `WRITE`; `UPDATE` for a file that is read and written; or
                `FOLDER` for a folder or a prefix of the names of files.
        """
        absolute = self._patches.absolute(path) if self._patches is not None and _is_path(path) else None
        if absolute is None or self.files is None:
            return path
        with guard.entered():
            if use in (READ, PATTERN):
                place = self.files.to_read(absolute)
            elif use == FOLDER:
                place = self.files.to_fill(absolute)
            else:
                place = self.files.to_write(absolute, os.O_CREAT | (os.O_TRUNC if use == WRITE else os.O_RDWR))
        if place == absolute:
            return path
        self._given[place] = os.fsdecode(path)
        return place

    def translates(self, use: str) -> bool:
        """Return whether `place` must be called before a file is used; worker 0 reads the real files."""
        reads_real_files = isinstance(self.files, LeaderFiles) and use in (READ, PATTERN)
        return self.files is not None and not reads_real_files

    def given_path(self, path: str) -> str:
        """Return the path that the script gave, if `place` has returned another one, or else the same path."""
        return self._given.get(path, path)

    @contextmanager
    def of_fit(self, call: int) -> Iterator[None]:
        """Return a context in which worker 0 writes files that all workers find afterwards.

        Args:
            call: The number of the call of `fit`, from 1.
        """
        if self.files is None:
            yield
            return
        self.files.begin_stage(call - 1, in_fit=True)
        try:
            yield
        finally:
            with guard.entered():
                self.files.begin_stage(call, in_fit=False)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Return a context in which one worker at a time works on the real files, such as a cache of downloads."""
        if self._patches is None or not self._shared or guard.busy:
            yield
            return
        with guard.entered(), open(os.path.join(self._shared, "lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_path(path: Any) -> bool:
    return isinstance(path, str | bytes | os.PathLike)


def _tree(path: str) -> list[str]:
    """Return a path and all paths below it."""
    if not os.path.isdir(path) or os.path.islink(path):
        return [path]
    below = [os.path.join(folder, name) for folder, folders, files in os.walk(path) for name in (*folders, *files)]
    return [path, *below]
