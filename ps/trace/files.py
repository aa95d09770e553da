"""The trace files of all shards of a run. While the disk is full, records wait in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from downpour.protos.logs import reason_of
from downpour.protos.system import disk
from downpour.ps.trace.feed import TraceFeed
from downpour.ps.trace.format import DTYPE, TraceFile

KEPT_BYTES = 64 << 20  # limit of the records that wait for the disk; more are lost


class TraceFiles:
    """Appends records to one file per shard.

    Attributes:
        feed: The feed that passes all records to the watchers of the job.
        trouble: The reason why the newest records could not be written; empty if all have been written.
    """

    def __init__(self, folder: Path, stem: str = "trace", dtype: np.dtype[np.void] = DTYPE) -> None:
        """Define the files; each is opened when its first records are appended.

        Args:
            folder: The folder of the files.
            stem: The beginning of the names of the files; see `per_shard`.
            dtype: The type of a record.
        """
        self._folder, self._stem, self._dtype = folder, stem, dtype
        self._files: dict[int, TraceFile] = {}
        self._waiting: dict[int, bytearray] = {}
        self._lost: set[int] = set()
        self._new_names = False  # whether a crash may still remove the name of a file
        self.trouble = ""
        self.feed = TraceFeed()

    def append(self, shard: int, records: bytes) -> None:
        """Append records to the file of a shard, and pass them on to the watchers."""
        self.feed.publish(shard, records)
        if shard not in self._lost:
            self._waiting.setdefault(shard, bytearray()).extend(records)
        for each, waiting in self._waiting.items():  # also those of shards that may never send records again
            if waiting:
                self._write(each, waiting)
        if self.trouble and not any(self._waiting.values()) and not self._lost:
            self.trouble = ""

    def _write(self, shard: int, waiting: bytearray) -> None:
        """Write the waiting records of a shard, or keep them, up to a limit, if that fails."""
        try:
            if shard not in self._files:
                self._files[shard] = TraceFile(self._path(shard), dtype=self._dtype)
                self._new_names = True
            self._files[shard].append(bytes(waiting))
        except OSError as error:
            self.trouble = reason_of(error)
            if len(waiting) > KEPT_BYTES:
                waiting.clear()
                self._lost.add(shard)
                self.trouble += f"; the newest records of shard {shard} are lost"
            return
        waiting.clear()

    def cut(self, records: Sequence[int], versions: Sequence[int] | None = None) -> dict[int, int]:
        """Truncate the file of each shard to the given number of records, and the files of other shards to none.

        Args:
            records: The number of records to keep, by shard.
            versions: The version of each shard, of which no later records are kept: if the disk has lost records
                before, those of undone updates are among the first ones. None if versions do not increase.

        Returns:
            The number of missing records, for each shard whose file has fewer records than given.

        Raises:
            OSError: The disk is not writable.
        """
        self.close()
        self._waiting.clear()
        self._lost.clear()
        self.trouble = ""
        kept = list(records)
        for shard, version in enumerate(versions or ()):
            kept[shard] = records_until(self._path(shard), records[shard], version)
        names = {self._path(shard): count for shard, count in enumerate(kept)}
        for path in {*self._folder.glob(f"{self._stem}*.npy"), *names}:
            if path.exists() or names.get(path):
                file = TraceFile(path, names.get(path, 0), self._dtype)
                if path not in names:  # it may receive no records, and would never be flushed
                    file.sync()
                file.close()
        self._files = {shard: TraceFile(self._path(shard), count, self._dtype) for shard, count in enumerate(kept)}
        self._new_names = True
        lacking = {shard: count - self._files[shard].count for shard, count in enumerate(records)}
        return {shard: count for shard, count in lacking.items() if count}

    def drop(self) -> None:
        """Remove the files of the trace from the run directory.

        Raises:
            OSError: The disk is not writable.
        """
        self.close()
        self._waiting.clear()
        for path in self._folder.glob(f"{self._stem}*.npy"):
            path.unlink()

    def sync(self) -> None:
        """Flush all files to the disk. Another thread may call this method.

        Raises:
            OSError: Some records are not written yet, or the disk fails.
        """
        if any(list(self._waiting.values())):
            raise OSError(f"the trace cannot be written: {self.trouble}")
        for trace in list(self._files.values()):
            trace.sync()
        if self._new_names and self._files:
            self._new_names = False
            disk.flush(self._folder)

    def close(self) -> None:
        """Close the files of all shards; records that still wait to be written are lost."""
        for trace in self._files.values():
            trace.close()
        self._files.clear()

    def _path(self, shard: int) -> Path:
        return self._folder / per_shard(self._stem, shard)


def records_until(path: Path, count: int, version: int) -> int:
    """Return how many of the first `count` records of a trace belong to updates up to a version."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)[:count]["version"]
    except (OSError, ValueError, IndexError, EOFError):
        return count  # there is no file, or it is not complete
    if not len(found) or found[-1] <= version:
        return count
    return int(np.argmax(found > version))


def per_shard(stem: str, shard: int) -> str:
    """Return the name of a shard's file: `STEM.npy` for shard 0, else `STEM-shardK.npy`."""
    return f"{stem}.npy" if shard == 0 else f"{stem}-shard{shard}.npy"
