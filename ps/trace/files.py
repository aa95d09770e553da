"""The trace files of all shards of a run. While the disk is full, records wait in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from downpour.ps.trace.feed import TraceFeed
from downpour.ps.trace.format import DTYPE, TraceFile

KEPT_BYTES = 64 << 20  # limit of the records that wait for the disk; more are lost


class TraceFiles:
    """Appends records to one file per shard.

    Attributes:
        feed: The feed that passes all records to the watchers of the job.
        trouble: The reason why the newest records are not in their files; empty if they are.
    """

    def __init__(self, folder: Path, stem: str = "trace", dtype: np.dtype[np.void] = DTYPE) -> None:
        """Define the files without opening them.

        Args:
            folder: The folder of the files.
            stem: The beginning of their names.
            dtype: The type of a record.
        """
        self._folder, self._stem, self._dtype = folder, stem, dtype
        self._files: dict[int, TraceFile] = {}
        self._waiting: dict[int, bytearray] = {}
        self._lost: set[int] = set()
        self.trouble = ""
        self.feed = TraceFeed()

    def append(self, shard: int, records: bytes) -> None:
        """Append records to the file of a shard, and pass them on to the watchers."""
        self.feed.publish(shard, records)
        waiting = self._waiting.setdefault(shard, bytearray())
        if shard not in self._lost:
            waiting += records
        if not waiting:
            return
        try:
            if shard not in self._files:
                self._files[shard] = TraceFile(self._path(shard), dtype=self._dtype)
            self._files[shard].append(bytes(waiting))
        except OSError as error:
            self.trouble = str(error)
            if len(waiting) > KEPT_BYTES:
                waiting.clear()
                self._lost.add(shard)
                self.trouble += f"; the newest records of shard {shard} are lost"
            return
        waiting.clear()
        if not any(self._waiting.values()) and not self._lost:
            self.trouble = ""

    def cut(self, records: Sequence[int]) -> None:
        """Truncate the file of each shard to the given number of records, and the files of other shards to none.

        Raises:
            OSError: The disk is not writable.
        """
        self.close()
        self._waiting.clear()
        self._lost.clear()
        self.trouble = ""
        names = {self._path(shard): count for shard, count in enumerate(records)}
        for path in {*self._folder.glob(f"{self._stem}*.npy"), *names}:
            if path.exists() or names.get(path):
                TraceFile(path, names.get(path, 0), self._dtype).close()
        self._files = {shard: TraceFile(self._path(shard), count, self._dtype) for shard, count in enumerate(records)}

    def drop(self) -> None:
        """Remove the files.

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

    def close(self) -> None:
        """Close the files of all shards; records that still wait to be written are lost."""
        for trace in self._files.values():
            trace.close()
        self._files.clear()

    def _path(self, shard: int) -> Path:
        return self._folder / per_shard(self._stem, shard)


def per_shard(stem: str, shard: int) -> str:
    """Return the name of a shard's file: `STEM.npy` for shard 0, else `STEM-shardK.npy`."""
    return f"{stem}.npy" if shard == 0 else f"{stem}-shard{shard}.npy"
