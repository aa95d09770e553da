"""The file system as a worker other than 0 sees it: its own changes, above the files without worker 0's changes.

Every worker runs the whole script. A file that this worker writes is stored in a private folder, under the same path,
and is read from there; a file that it removes is hidden from it. All other paths have the content that they had when
the script began or, after a call of `fit`, when that call ended, so that the files which callbacks wrote on worker 0
are found. This is the principle of a union mount, such as Linux's overlayfs.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading

from downpour.worker.fit.process.file_journal import ABSENT, JournalReader


class FileView:
    """The view of one worker on the file system.

    The arguments are absolute and normalised paths, as the script gives them. A returned path is the place of the file
    in the real file system.
    """

    def __init__(self, root: str, journal: JournalReader | None = None, leader: str = "") -> None:
        """Build a view without changes.

        Args:
            root: The private folder, which must exist and be empty.
            journal: The journal of worker 0; None if this worker shares no files with it.
            leader: The private folder of worker 0, in which it has published files; empty if it writes the real ones.
        """
        self._root, self._journal, self._stage, self._leader = root, journal, 0, leader
        self._removed: set[str] = set()
        self._published: set[str] = set()
        self._changed = False
        self._lock = threading.RLock()

    def own(self, path: str) -> str:
        """Return the place of a path in the private folder."""
        return self._root + path

    def begin_stage(self, stage: int) -> None:
        """Show the files that worker 0 wrote within the call of `fit` that has just ended, the `stage`-th one."""
        with self._lock:
            published = self._journal.published(stage) if self._journal else []
            for path in published:
                _remove(self.own(path))
                self._removed.discard(path)
                self._published.add(path)
            self._stage = stage

    def locate(self, path: str) -> str | None:
        """Return the place of a path; None if it does not exist for this worker."""
        with self._lock:
            if self._changed and os.path.lexists(self.own(path)):
                return self.own(path)
            return self._below(path)

    def _below(self, path: str) -> str | None:
        """Return the place of a path outside of this worker's private folder; None if it does not exist."""
        if path not in self._published and self._is_removed(path):
            return None
        if self._leader and path in self._published and os.path.lexists(self._leader + path):
            return self._leader + path
        exists = os.path.lexists(path)
        # The journal is read after the file system, because worker 0 writes the journal before it changes a file.
        before = self._journal.before(path, self._stage) if self._journal else None
        if before is None:
            return path if exists else None
        return None if before == ABSENT else before

    def _is_removed(self, path: str) -> bool:
        if not self._removed:
            return False
        while path not in self._removed:
            parent = os.path.dirname(path)
            if parent == path:
                return False
            path = parent
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder: those of the real folder in its order, then this worker's own."""
        with self._lock:
            found: dict[str, None] = {}
            if os.path.isdir(folder):
                found = dict.fromkeys(os.listdir(folder))
            if self._journal:
                found |= dict.fromkeys(self._journal.removed_from(folder, self._stage))
            if self._leader:
                found |= dict.fromkeys(os.path.basename(p) for p in self._published if os.path.dirname(p) == folder)
            if os.path.isdir(self.own(folder)):
                found |= dict.fromkeys(os.listdir(self.own(folder)))
            return [name for name in found if self.locate(os.path.join(folder, name)) is not None]

    def is_plain(self, folder: str) -> bool:
        """Return whether a folder can be listed as it is: this worker has changed nothing, worker 0 nothing in it."""
        if self._leader and self._published:
            return False
        return not self._changed and not (self._journal and self._journal.touches(folder, self._stage))

    # ------------------------------------------------------------------ changes

    def to_write(self, path: str, keep: bool = False) -> str:
        """Return where to write a file or to make a folder.

        Args:
            path: The path.
            keep: Whether the file starts with its current content, as for appending.
        """
        with self._lock:
            own, now = self.own(path), self.locate(path)
            if now == own:
                return own
            if now is not None and os.path.isdir(now):
                if not keep:
                    return now  # the operating system then raises IsADirectoryError
                self._make(own)
                return own
            parent = self.locate(os.path.dirname(path))
            if parent is not None and os.path.isdir(parent):
                self._make(self.own(os.path.dirname(path)))
                if keep and now is not None:
                    shutil.copy2(now, own)
            return own

    def to_fill(self, path: str) -> str:
        """Return where a library creates files: in a folder, or with names that begin with the path.

        Existing files of the folder appear there as symbolic links, for libraries that list the folder by themselves.
        """
        with self._lock:
            now, own = self.locate(path), self.own(path)
            if now is None or now == own or not os.path.isdir(now):
                return self.to_write(path, keep=True)
            self._make(own)
            for name in os.listdir(now):
                place = self.locate(os.path.join(path, name))
                if place is not None and not os.path.isdir(place):
                    os.symlink(place, os.path.join(own, name))
            return own

    def _make(self, own: str) -> None:
        self._changed = True
        os.makedirs(own, exist_ok=True)

    def make_folder(self, path: str, mode: int) -> None:
        """Create a folder in this worker's view.

        Raises:
            FileExistsError: The path exists.
            FileNotFoundError: The parent of the path does not exist.
        """
        with self._lock:
            now = self.locate(path)
            os.mkdir(now if now is not None else self.to_write(path), mode)

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file or, with `folder`, an empty folder.

        Raises:
            OSError: The path does not exist, is of the other kind, or is a folder that is not empty.
        """
        with self._lock:
            now = self.locate(path)
            if now is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            is_folder = os.path.isdir(now) and not os.path.islink(now)
            if is_folder != folder:
                number = errno.ENOTDIR if folder else errno.EISDIR
                raise OSError(number, os.strerror(number), path)
            if folder and self.names(path):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            self._changed = True
            _remove(self.own(path))
            self._removed.add(path)
            self._published.discard(path)

    def move(self, source: str, target: str) -> None:
        """Move a file or a folder to another path, in place of a file or an empty folder there.

        Raises:
            OSError: The source does not exist, or the target is of the other kind or a folder that is not empty.
        """
        with self._lock:
            now, there = self.locate(source), self.locate(target)
            if now is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            is_folder = os.path.isdir(now) and not os.path.islink(now)
            if there is not None:
                self.remove(target, folder=is_folder)
            if not is_folder:
                own = self.to_write(target)
                os.replace(now, own) if now == self.own(source) else shutil.copy2(now, own, follow_symlinks=False)
                self.remove(source, folder=False) if self.locate(source) else self._removed.add(source)
                return
            self.make_folder(target, 0o777)
            for name in self.names(source):
                self.move(os.path.join(source, name), os.path.join(target, name))
            self.remove(source, folder=True)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
