"""The traces of all shards of a run, on a disk that may be full for a while: what cannot be written yet is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ps.trace import TraceFile

KEPT_BYTES = 64 << 20  # of records that cannot be written; more are lost


class Traces:
    """Appends records to one file for each shard.

    Attributes:
        trouble: Why the records that came last are not in their files; empty if they are.
    """

    def __init__(self, folder: Path) -> None:
        """Opens nothing yet.

        Args:
            folder: Where the files are.
        """
        self._folder = folder
        self._files: dict[int, TraceFile] = {}
        self._waiting: dict[int, bytearray] = {}
        self._lost: set[int] = set()
        self.trouble = ""

    def append(self, shard: int, records: bytes) -> None:
        """Adds records to the trace of a shard: `trace.npy` is shard 0's, and the job's."""
        waiting = self._waiting.setdefault(shard, bytearray())
        if shard not in self._lost:
            waiting += records
        if not waiting:
            return
        try:
            if shard not in self._files:
                self._files[shard] = TraceFile(self._path(shard))
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
        """Keeps so many records in the trace of each shard, and none of any other shard's.

        Raises:
            OSError: The disk cannot be written.
        """
        self.close()
        self._waiting.clear()
        self._lost.clear()
        self.trouble = ""
        names = {self._path(shard): count for shard, count in enumerate(records)}
        for path in {*self._folder.glob("trace*.npy"), *names}:
            if path.exists() or names.get(path):
                TraceFile(path, names.get(path, 0)).close()
        self._files = {shard: TraceFile(self._path(shard), count) for shard, count in enumerate(records)}

    def sync(self) -> None:
        """Brings all traces to the disk; may be called from another thread.

        Raises:
            OSError: Some records are not written, or the disk fails.
        """
        if any(list(self._waiting.values())):
            raise OSError(f"the trace cannot be written: {self.trouble}")
        for trace in list(self._files.values()):
            trace.sync()

    def close(self) -> None:
        """Ends the files."""
        for trace in self._files.values():
            trace.close()
        self._files.clear()

    def _path(self, shard: int) -> Path:
        return self._folder / ("trace.npy" if shard == 0 else f"trace-shard{shard}.npy")
