"""Moves the files that only one worker has written to their real paths, once the scripts of all workers have ended.

A script that writes the same files on every worker leaves those of worker 0. A file whose name contains the rank is
written by one worker alone, and would otherwise be lost with the private folder.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from downpour.worker.fit.process.file_journal import JournalReader

WORKER_FOLDER = "worker-"  # in the shared folder, followed by the rank


def deliver(shared: str, temporary: str = "") -> list[str]:
    """Move the files of workers other than 0 to their paths, except where worker 0 or a lower rank had a file.

    Args:
        shared: The folder that the workers of a job on this machine share.
        temporary: The folder of their temporary files, which are not moved.

    Returns:
        The paths of the files that were moved.
    """
    ranks = [name.removeprefix(WORKER_FOLDER) for name in os.listdir(shared) if name.startswith(WORKER_FOLDER)]
    journal = JournalReader(shared)
    delivered = []
    for rank in sorted(map(int, filter(str.isdigit, ranks))):
        root = os.path.join(shared, f"{WORKER_FOLDER}{rank}")
        for folder, folders, files in os.walk(root):
            real = folder[len(root) :] or os.sep
            if real == temporary:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not _was_removed(os.path.join(real, name), journal)]
            for name in files:
                path = os.path.join(real, name)
                if _move(os.path.join(folder, name), path, journal):
                    delivered.append(path)
    return delivered


def _was_removed(folder: str, journal: JournalReader) -> bool:
    return not os.path.isdir(folder) and journal.before(folder, 0) is not None


def _move(own: str, path: str, journal: JournalReader) -> bool:
    # A link leads to a file that this worker has only read.
    if (
        os.path.islink(own)
        or os.path.lexists(path)
        or journal.before(path, 0) is not None
        or path in journal.all_published
    ):
        return False
    with suppress(OSError):  # the script may have written into a folder for which the real one is read-only
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.move(own, path)
        return True
    return False
