"""The file system as a worker other than 0 sees it: its own changes over the files as they were before worker 0's.

Every worker runs the whole script. What this worker writes goes into a private folder, under the same path, and is read
back from there; what it removes is hidden from it. All other paths are those of worker 0, as they were when the script
began or, after a call of `fit`, when that call ended: files that callbacks have written on worker 0 are then found.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading

from downpour.worker.fit.process.file_journal import ABSENT, JournalReader


class FileView:
    """The files of one worker.

    All paths are absolute and normalised. A located path is where the operating system finds the file.
    """

    def __init__(self, root: str, journal: JournalReader | None = None) -> None:
        """Build a view without changes.

        Args:
            root: The private folder, which must exist and be empty.
            journal: The journal of worker 0; None if this worker shares no files with it.
        """
        self._root, self._journal, self._stage = root, journal, 0
        self._removed: set[str] = set()
        self._published: set[str] = set()
        self._changed = False
        self._lock = threading.RLock()

    def own(self, path: str) -> str:
        """Return the place of a path in the private folder."""
        return self._root + path

    def begin_stage(self, stage: int) -> None:
        """Take over what worker 0 has written within `fit`, after `stage` calls of it."""
        with self._lock:
            published = self._journal.published(stage) if self._journal else []
            for path in published:
                _remove(self.own(path))
                self._removed.discard(path)
                self._published.add(path)
            self._stage = stage

    def locate(self, path: str) -> str | None:
        """Return where a path is found; None if there is nothing for this worker."""
        with self._lock:
            if self._changed and os.path.lexists(self.own(path)):
                return self.own(path)
            return self._below(path)

    def _below(self, path: str) -> str | None:
        """Return where a path is found apart from this worker's own files."""
        if path not in self._published and self._is_removed(path):
            return None
        exists = os.path.lexists(path)
        # The journal is read after the file was looked for: worker 0 writes them in the other order.
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
        """Return the names in a folder, in the order of worker 0's, then this worker's own."""
        with self._lock:
            found: dict[str, None] = {}
            if os.path.isdir(folder):
                found = dict.fromkeys(os.listdir(folder))
            if self._journal:
                found |= dict.fromkeys(self._journal.removed_from(folder, self._stage))
            if os.path.isdir(self.own(folder)):
                found |= dict.fromkeys(os.listdir(self.own(folder)))
            return [name for name in found if self.locate(os.path.join(folder, name)) is not None]

    def is_plain(self, folder: str) -> bool:
        """Return whether this worker has changed nothing so far, nor worker 0 anything in a folder."""
        return not self._changed and not (self._journal and self._journal.touches(folder, self._stage))

    # ------------------------------------------------------------------ changes

    def to_write(self, path: str, keep: bool = False) -> str:
        """Return where to write a file or to make a folder.

        Args:
            path: The path.
            keep: Whether the file keeps its content.
        """
        with self._lock:
            own, now = self.own(path), self.locate(path)
            if now == own:
                return own
            if now is not None and os.path.isdir(now):
                if not keep:
                    return now  # of which the operating system says that it is a folder
                self._make(own)
                return own
            parent = self.locate(os.path.dirname(path))
            if parent is not None and os.path.isdir(parent):
                self._make(self.own(os.path.dirname(path)))
                if keep and now is not None:
                    shutil.copy2(now, own)
            return own

    def to_fill(self, path: str) -> str:
        """Return where a library makes files in a folder, or with names that begin with the path.

        A library that lists the folder by itself finds the files that are there already, by symbolic links.
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
            FileExistsError: There is something at the path.
            FileNotFoundError: Its parent does not exist.
        """
        with self._lock:
            now = self.locate(path)
            os.mkdir(now if now is not None else self.to_write(path), mode)

    def remove(self, path: str, folder: bool) -> None:
        """Remove a file, or a folder, which must be empty.

        Raises:
            OSError: There is no file or no folder, or it is not empty.
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
            OSError: There is nothing at the source, or something else at the target.
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
