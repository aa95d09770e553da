"""The trace files of all shards: records that wait for the disk, and what a cut leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from downpour.ps.trace.files import TraceFiles
from downpour.ps.trace.format import DTYPE


def records(count: int) -> bytes:
    return np.zeros(count, DTYPE).tobytes()


def test_records_are_written_when_there_is_room_again_although_their_shard_sends_no_more(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path)
    (tmp_path / "trace-shard1.npy").mkdir()  # in place of a full disk
    files.append(1, records(3))
    assert files.trouble
    (tmp_path / "trace-shard1.npy").rmdir()
    files.append(0, b"")
    assert not files.trouble and len(np.load(tmp_path / "trace-shard1.npy")) == 3


def test_a_cut_tells_which_records_are_missing(tmp_path: Path) -> None:
    files = TraceFiles(tmp_path)
    files.append(0, records(5))
    assert files.cut([4, 2]) == {1: 2}
    assert files.cut([4, 0]) == {}
    files.close()


def test_a_cut_after_lost_records_keeps_no_later_updates_in_their_place(tmp_path: Path) -> None:
    """The records after a gap moved to its place, and a second return to the same checkpoint kept those it undid."""
    files, made = TraceFiles(tmp_path), np.zeros(6, DTYPE)
    made["version"] = range(1, 7)
    files.append(0, made[:2].tobytes())
    assert files.cut([4], [4]) == {0: 2}
    files.append(0, made[4:].tobytes())
    assert files.cut([5], [5]) == {0: 2}
    assert files.cut([4], [4]) == {0: 2}
    files.close()
    assert np.load(tmp_path / "trace.npy")["version"].tolist() == [1, 2]


def test_a_cut_keeps_the_records_of_dropped_pushes(tmp_path: Path) -> None:
    files, made = TraceFiles(tmp_path), np.zeros(6, DTYPE)
    made["version"] = [1, 1, 2, 2, 2, 3]
    files.append(0, made.tobytes())
    assert files.cut([5], [2]) == {}
    files.close()
    assert len(np.load(tmp_path / "trace.npy")) == 5
