"""The trace: one fixed-size record per push outcome, in a `.npy` file that grows.

    >>> import numpy as np; trace = np.load("runs/latest/trace.npy")
    >>> import pandas as pd; frame = pd.DataFrame(trace)

The file is a valid `.npy` after every flush: its header has room for any count and is rewritten in place.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downpour.ps.core.push import Outcome, Push, Result

REASONS = ("", "nonfinite", "late", "stale", "discarded", "other")
DTYPE = np.dtype(
    [
        ("time_s", "<f8"),  # since the shard started
        ("version", "<u8"),  # that the update made; of the shard when dropped
        ("seq", "<u8"),
        ("base_version", "<u8"),
        ("staleness", "<u8"),
        ("lease", "<u8"),
        ("start", "<u8"),  # with stop: positions in the permutation of (seed, epoch)
        ("stop", "<u8"),
        ("learning_rate", "<f8"),  # effective
        ("norm", "<f8"),  # of the whole gradient
        ("loss", "<f8"),
        ("worker", "<u4"),
        ("incarnation", "<u4"),
        ("epoch", "<u4"),
        ("samples", "<u4"),
        ("outcome", "<u4"),  # 0 applied, 2 dropped
        ("reason", "<u4"),  # index in REASONS
    ]
)
_RECORD = struct.Struct("<d7Q3d6I")
_HEADER_BYTES = 1024
_MAGIC = b"\x93NUMPY\x02\x00"


def pack(push: Push, result: Result, time_s: float) -> bytes:
    """One record."""
    reason = REASONS.index(result.reason) if result.reason in REASONS else len(REASONS) - 1
    return _RECORD.pack(
        time_s, result.version, push.seq, push.base_version, result.staleness, push.lease, push.start, push.stop,
        result.learning_rate, push.norm, push.loss,
        push.worker, push.incarnation, push.epoch, push.samples, int(result.outcome), reason,
    )  # fmt: skip


def applied(trace: NDArray[np.void]) -> NDArray[np.void]:
    """The records of pushes that were applied."""
    kept: NDArray[np.void] = trace[trace["outcome"] == int(Outcome.APPLIED)]
    return kept


class TraceFile:
    """Appends records to a `.npy` file.

    A job that goes on from a checkpoint cuts its traces off where the checkpoint was taken: what was applied after
    it is not in the weights any more. So records and weights agree, and no push occurs twice.
    """

    def __init__(self, path: Path, keep: int | None = None, dtype: np.dtype[np.void] = DTYPE) -> None:
        """Makes the file, or goes on with the one that is there.

        Args:
            path: Where it is.
            keep: How many of its first records to keep (default: all).
            dtype: Of a record.
        """
        self._dtype = dtype
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            whole = (os.fstat(self._file).st_size - _HEADER_BYTES) // self._dtype.itemsize
            self._count = max(0, whole if keep is None else min(keep, whole))
            os.ftruncate(self._file, self._end)
            self._write_header(self._count)
        except BaseException:
            os.close(self._file)
            raise

    @property
    def count(self) -> int:
        """Records in the file."""
        return self._count

    def sync(self) -> None:
        """Brings what was written to the disk; may be called from another thread."""
        os.fsync(self._file)

    def append(self, records: bytes) -> None:
        """Adds whole records and makes the file valid again.

        Raises:
            OSError: The disk is full or fails. The file is as it was, and the records can be appended again.
        """
        count, rest = divmod(len(records), self._dtype.itemsize)
        if rest:
            raise ValueError(f"records must be whole, {self._dtype.itemsize} bytes each; received {len(records)} bytes")
        if count:
            write_at(self._file, records, self._end)
            self._write_header(self._count + count)
            self._count += count

    def close(self) -> None:
        """Ends the file."""
        os.close(self._file)

    @property
    def _end(self) -> int:
        return _HEADER_BYTES + self._count * self._dtype.itemsize

    def _write_header(self, count: int) -> None:
        description = repr({"descr": self._dtype.descr, "fortran_order": False, "shape": (count,)})
        room = _HEADER_BYTES - len(_MAGIC) - 4
        write_at(self._file, _MAGIC + struct.pack("<I", room) + description.encode().ljust(room - 1) + b"\n", 0)


def write_at(file: int, data: bytes, place: int) -> None:
    """Writes all of it; a disk that fills up on the way takes a part without a word.

    Raises:
        OSError: The disk is full or fails.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, place)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left, place = left[written:], place + written
