"""The trace file: plain NumPy reads it after every flush."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.trace.format import DTYPE, REASONS, TraceFile, applied, converted, pack

PUSH = Push(
    worker=3, incarnation=2, seq=9, base_version=40, samples=32, norm=0.5, loss=1.25,
    lease=7, epoch=1, start=64, stop=96, compute_s=0.5,
)  # fmt: skip


def test_a_record_keeps_every_field(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "trace.npy")
    trace.append(pack(PUSH, Result(Outcome.APPLIED, 42, 1, 0.1), 2.5, 0.25))
    (record,) = np.load(tmp_path / "trace.npy")
    values = {name: record[name] for name in DTYPE.names or ()}
    assert values == {
        "time_s": 2.5, "version": 42, "seq": 9, "base_version": 40, "staleness": 1, "lease": 7, "start": 64,
        "stop": 96, "learning_rate": 0.1, "norm": 0.5, "loss": 1.25, "worker": 3, "incarnation": 2, "epoch": 1,
        "samples": 32, "outcome": 0, "reason": 0, "compute_s": 0.5, "wait_s": 0.25,
    }  # fmt: skip
    trace.close()


def test_the_file_is_valid_after_every_flush_and_empty_at_first(tmp_path: Path) -> None:
    path = tmp_path / "trace.npy"
    trace = TraceFile(path)
    assert np.load(path, allow_pickle=False).dtype == DTYPE
    for count in range(1, 5):
        trace.append(pack(PUSH, Result(Outcome.APPLIED, count, 0, 0.1), float(count)) * count)
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        assert loaded["version"].tolist() == [each for each in range(1, count + 1) for _ in range(each)]
    trace.append(b"")
    trace.close()


def test_a_file_of_an_earlier_version_is_continued_with_unknown_durations(tmp_path: Path) -> None:
    earlier = np.dtype([(name, DTYPE[name]) for name in DTYPE.names or () if name not in ("compute_s", "wait_s")])
    old = np.zeros(3, earlier)
    old["version"], old["loss"] = [1, 2, 3], 0.5
    np.save(tmp_path / "trace.npy", old)
    trace = TraceFile(tmp_path / "trace.npy", keep=2)
    trace.append(pack(PUSH, Result(Outcome.APPLIED, 3, 0, 0.1), 1.0))
    trace.close()
    found = np.load(tmp_path / "trace.npy")
    assert found.dtype == DTYPE and found["version"].tolist() == [1, 2, 3]
    assert found["loss"].tolist() == [0.5, 0.5, 1.25] and found["compute_s"].tolist() == [0, 0, 0.5]
    with pytest.raises(ValueError, match="must have the fields"):
        converted(np.zeros(2, [("other", "<f8")]), DTYPE)


def test_a_partial_record_is_refused(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "trace.npy")
    with pytest.raises(ValueError, match=f"whole, {DTYPE.itemsize} bytes each; received 10"):
        trace.append(b"x" * 10)
    trace.close()
    assert len(np.load(tmp_path / "trace.npy")) == 0


def test_reasons_are_names_and_an_unforeseen_one_is_other() -> None:
    for reason, expected in [*((name, name) for name in REASONS), ("from the future", "other")]:
        packed = pack(PUSH, Result(Outcome.DROPPED, 1, 0, reason=reason), 0.0)
        assert REASONS[np.frombuffer(packed, DTYPE)[0]["reason"]] == expected


def test_applied_leaves_drops_out() -> None:
    packed = pack(PUSH, Result(Outcome.APPLIED, 1, 0, 0.1), 0.0) + pack(PUSH, Result(Outcome.DROPPED, 1, 0), 0.0)
    assert len(applied(np.frombuffer(packed, DTYPE))) == 1


U64, U32, ANY = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.floats()


@given(U32, U32, U64, U64, U32, ANY, ANY, U64, U64)
def test_every_value_of_a_frame_can_be_recorded(
    worker: int, incarnation: int, seq: int, base: int, samples: int, norm: float, loss: float, start: int, lease: int
) -> None:
    push = Push(worker, incarnation, seq, base, samples, norm, loss=loss, lease=lease, start=start)
    record = np.frombuffer(pack(push, Result(Outcome.DROPPED, 2**64 - 1, 0, reason="nonfinite"), 0.0), DTYPE)[0]
    assert (record["worker"], record["seq"], record["start"]) == (worker, seq, start)
    np.testing.assert_equal([record["norm"], record["loss"]], [norm, loss])
