"""The format of the trace: one fixed-size record per push outcome, in a growing `.npy` file.

    >>> import numpy as np; trace = np.load("runs/latest/trace.npy")
    >>> import pandas as pd; frame = pd.DataFrame(trace)

The file is a valid `.npy` file after every append: its header has a fixed size and is rewritten in place.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downpour.protos.system import disk
from downpour.ps.core.push import Outcome, Push, Result

REASONS = ("", "nonfinite", "late", "stale", "discarded", "other", "failed")
DTYPE = np.dtype(
    [
        ("time_s", "<f8"),  # since the shard started
        ("version", "<u8"),  # that the update made; if dropped, that of the shard
        ("seq", "<u8"),
        ("base_version", "<u8"),
        ("staleness", "<u8"),
        ("lease", "<u8"),
        ("start", "<u8"),  # with stop: positions of the permutation of (seed, epoch)
        ("stop", "<u8"),
        ("learning_rate", "<f8"),  # effective
        ("norm", "<f8"),  # of the gradient over all shards
        ("loss", "<f8"),
        ("worker", "<u4"),
        ("incarnation", "<u4"),
        ("epoch", "<u4"),
        ("samples", "<u4"),
        ("outcome", "<u4"),  # 0 applied, 2 dropped
        ("reason", "<u4"),  # index in REASONS
        ("compute_s", "<f4"),  # that the worker computed what it pushed; 0 if it is not known
        ("wait_s", "<f4"),  # from the arrival of the push to its outcome, in a mode that waits for other pushes
    ]
)
_RECORD = struct.Struct("<d7Q3d6I2f")
_HEADER_BYTES = 1024
_MAGIC = b"\x93NUMPY\x02\x00"


def pack(push: Push, result: Result, time_s: float, wait_s: float = 0.0) -> bytes:
    """Return the trace record of a push and its outcome, which it waited for during `wait_s`."""
    reason = REASONS.index(result.reason) if result.reason in REASONS else REASONS.index("other")
    return _RECORD.pack(
        time_s, result.version, push.seq, push.base_version, result.staleness, push.lease, push.start, push.stop,
        result.learning_rate, push.norm, push.loss,
        push.worker, push.incarnation, push.epoch, push.samples, int(result.outcome), reason,
        push.compute_s, wait_s,
    )  # fmt: skip


def applied(trace: NDArray[np.void]) -> NDArray[np.void]:
    """Return the records of the pushes that were applied."""
    kept: NDArray[np.void] = trace[trace["outcome"] == int(Outcome.APPLIED)]
    return kept


def converted(records: NDArray[np.void], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Return records of an earlier version as records of `dtype`; fields that they lack are 0.

    Raises:
        ValueError: The records have a field that `dtype` lacks, or are not records.
    """
    if records.dtype == dtype:
        return records
    names, known = records.dtype.names or (), dtype.names or ()
    if not names or records.ndim != 1 or any(name not in known or records.dtype[name] != dtype[name] for name in names):
        raise ValueError(f"records must have the fields {dtype.names}; received {records.dtype.names}")
    found = np.zeros(len(records), dtype)
    for name in names:
        found[name] = records[name]
    return found


class TraceFile:
    """A `.npy` file to which records are appended.

    A job that resumes from a checkpoint truncates its traces at the checkpoint, since later updates are no longer in
    the weights. Records and weights therefore agree, and no push occurs twice.
    """

    def __init__(self, path: Path, keep: int | None = None, dtype: np.dtype[np.void] = DTYPE) -> None:
        """Open an existing file, or create it.

        Args:
            path: The path of the file.
            keep: The number of the file's first records to keep (default: all).
            dtype: The type of a record.
        """
        self._dtype = dtype
        _convert_file(path, dtype)
        self._file = disk.open_file(path)
        try:
            complete = (self._file.size() - _HEADER_BYTES) // self._dtype.itemsize
            self._count = max(0, complete if keep is None else min(keep, complete))
            self._file.truncate(self._end)
            self._write_header(self._count)
        except BaseException:
            self._file.close()
            raise

    @property
    def count(self) -> int:
        """The number of records in the file."""
        return self._count

    def sync(self) -> None:
        """Flush the file to the disk. Another thread may call this method."""
        self._file.sync()

    def append(self, records: bytes) -> None:
        """Append complete records and update the header.

        Raises:
            OSError: The disk is full or fails. The file is unchanged, and the records can be appended again.
        """
        count, rest = divmod(len(records), self._dtype.itemsize)
        if rest:
            raise ValueError(f"records must be whole, {self._dtype.itemsize} bytes each; received {len(records)} bytes")
        if count:
            self._file.write_at(records, self._end)
            self._write_header(self._count + count)
            self._count += count

    def close(self) -> None:
        """Close the file, to which no records may be appended afterwards."""
        self._file.close()

    @property
    def _end(self) -> int:
        return _HEADER_BYTES + self._count * self._dtype.itemsize

    def _write_header(self, count: int) -> None:
        description = repr({"descr": self._dtype.descr, "fortran_order": False, "shape": (count,)})
        room = _HEADER_BYTES - len(_MAGIC) - 4
        self._file.write_at(_MAGIC + struct.pack("<I", room) + description.encode().ljust(room - 1) + b"\n", 0)


def _convert_file(path: Path, dtype: np.dtype[np.void]) -> None:
    """Rewrite a file that an earlier version of this program has begun, so that records can be appended to it."""
    try:
        records: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        newer = converted(records, dtype)
    except (OSError, ValueError, EOFError):
        return  # there is no file yet, or it is not one of records, which `TraceFile` then replaces
    if newer is not records:
        temporary = path.with_name(path.name + ".converted")
        file = TraceFile(temporary, 0, dtype)
        file.append(newer.tobytes())
        file.sync()
        file.close()
        os.replace(temporary, path)
