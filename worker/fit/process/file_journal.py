"""The journal of worker 0's changes to files, by which the other workers see the files as they were before.

Worker 0 works on the real files. Before it changes a path for the first time between two calls of `fit`, it records the
path in a journal and keeps the previous content. Within `fit`, worker 0's callbacks write files that the script reads
afterwards on all workers; the journal records the paths of these files as published.

A *stage* is the part of the script between two calls of `fit`; its number is that of the calls that have ended.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

JOURNAL = "journal.jsonl"
ABSENT = ""  # in place of the path of the previous content: there was no file


class JournalWriter:
    """The journal of worker 0, which calls `before_change` before it changes a path."""

    def __init__(self, folder: str) -> None:
        """Open the journal in the folder of the job.

        Args:
            folder: The folder that the workers of the job on this machine share.
        """
        self._folder = Path(folder)
        self._kept = self._folder / "kept"
        self._kept.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stage, self._in_fit, self._number = 0, False, len(os.listdir(self._kept))
        self._known: set[str] = set()
        self._lock = threading.RLock()

    def set_stage(self, stage: int, in_fit: bool) -> None:
        """Set the number of calls of `fit` that have ended, and whether the script is within one."""
        with self._lock:
            self._stage, self._in_fit = stage, in_fit
            self._known.clear()

    def before_change(self, path: str, rewritten: bool = False, kept_content: bool = False) -> None:
        """Record a path that is about to be created, changed or removed, and keep what is there.

        A file that is rewritten becomes a new one, so that workers that are reading it still read the old one.

        Args:
            path: The absolute path.
            rewritten: Whether a file is about to be opened for writing.
            kept_content: Whether the new file starts with the previous content, as for appending.
        """
        with self._lock:
            if path in self._known:
                return
            self._known.add(path)
            if self._in_fit:
                self._append({"path": path, "fit": self._stage + 1})
                return
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                self._append({"path": path, "stage": self._stage, "kept": ABSENT})
                return
            kept = self._keep(path, mode)
            if kept is None:
                return
            self._append({"path": path, "stage": self._stage, "kept": kept})
            if rewritten and stat.S_ISREG(mode):
                _replace_file(path, kept if kept_content else None, mode)

    def _keep(self, path: str, mode: int) -> str | None:
        """Keep a copy of a file, link or folder, and return its path; None for any other kind of file."""
        self._number += 1
        kept = str(self._kept / str(self._number))
        if stat.S_ISDIR(mode):
            os.mkdir(kept)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(path), kept)
        elif stat.S_ISREG(mode):
            try:
                os.link(path, kept)
            except OSError:  # another file system
                shutil.copy2(path, kept)
        else:
            return None
        return kept

    def _append(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


class JournalReader:
    """The journal of worker 0 as another worker reads it."""

    def __init__(self, folder: str) -> None:
        """Begin to read a journal, which may not exist yet."""
        self._path = os.path.join(folder, JOURNAL)
        self._read_bytes = 0
        self._entries: dict[str, dict[int, str]] = {}
        self._published: dict[int, list[str]] = {}
        self._lock = threading.Lock()

    def before(self, path: str, stage: int) -> str | None:
        """Return where to find the content that a path had at a stage.

        Returns:
            The path of the copy; `ABSENT` if there was no file; None if worker 0 has not changed the path since then.
        """
        self._update()
        later = [number for number in self._entries.get(path, ()) if number >= stage]
        return self._entries[path][min(later)] if later else None

    def removed_from(self, folder: str, stage: int) -> list[str]:
        """Return the names in a folder that existed at a stage and that worker 0 has changed since then."""
        self._update()
        paths = [path for path in self._entries if os.path.dirname(path) == folder]
        return [os.path.basename(path) for path in paths if self.before(path, stage)]

    def touches(self, folder: str, stage: int) -> bool:
        """Return whether worker 0 has changed an entry of a folder since a stage."""
        self._update()
        return any(os.path.dirname(path) == folder and max(stages) >= stage for path, stages in self._entries.items())

    def published(self, fit: int) -> list[str]:
        """Return the paths that worker 0 has written to within a call of `fit`."""
        self._update()
        return self._published.get(fit, [])

    @property
    def all_published(self) -> set[str]:
        """The paths that worker 0 has written to within any call of `fit`."""
        self._update()
        return {path for paths in self._published.values() for path in paths}

    def _update(self) -> None:
        with self._lock:
            try:
                if os.stat(self._path).st_size <= self._read_bytes:
                    return
                with open(self._path, "rb") as file:
                    file.seek(self._read_bytes)
                    whole = file.read().rpartition(b"\n")[0]
            except OSError:
                return
            self._read_bytes += len(whole) + 1 if whole else 0
            for line in whole.splitlines():
                entry = json.loads(line)
                if "fit" in entry:
                    self._published.setdefault(entry["fit"], []).append(entry["path"])
                else:
                    self._entries.setdefault(entry["path"], {}).setdefault(entry["stage"], entry["kept"])


def _replace_file(path: str, content: str | None, mode: int) -> None:
    """Replace a file by a new one with the content of the file `content`, or by an empty one if `content` is None."""
    if content is None:
        os.unlink(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, stat.S_IMODE(mode)))
        return
    copy = f"{path}.downpour-copy"
    shutil.copy2(content, copy)
    os.replace(copy, path)
