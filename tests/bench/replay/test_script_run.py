"""Which runs of scripts can be replayed, and where the weights of a version are written; without processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.bench.replay.record import CannotReplay
from downpour.bench.replay.script_replay import ReplayLauncher, compare, run_again
from downpour.bench.replay.script_run import is_script_run, marked_calls, read_script_run
from downpour.deploy.launch.launcher import StopNow
from downpour.deploy.scripts.script_record import RECORD, ScriptRecord, sha256_of
from downpour.ps.config import ServerSettings
from downpour.ps.trace import call_log as calls
from downpour.ps.trace import format as trace
from downpour.ps.trace.call_log import NO_EPOCH, Call, lease_seq

Recorded = tuple[Call, int, int, int]  # call, worker, incarnation, seq


def fit(number: int, pushes: list[tuple[int, int]]) -> list[Recorded]:
    """Return the calls of one call of `fit` with pushes of (worker, seq)."""
    joins = [(Call.JOIN, worker, number, 0) for worker in range(3)]
    return [(Call.BEGIN, 0, 0, 0), *joins, *((Call.PUSH, worker, number, seq) for worker, seq in pushes)]


ORDER = [(0, 1), (1, 1), (0, 2), (2, 1), (1, 2)]  # of each call of `fit`


def write_run(folder: Path, recorded: list[Recorded], **changes: Any) -> Path:
    """Write the files of a run of a script with one shard, and return its directory."""
    path = folder / "run"
    path.mkdir()
    script = folder / "script.py"
    script.write_text("pass\n")
    summary = {"status": "ended", "generation": 2, **changes}
    settings = {**ServerSettings(script=True, workers=3).model_dump(), **changes}
    config = {"settings": settings, "workers": [{"facts": {}, "incarnations": []}]}
    (path / "config.json").write_text(json.dumps(config))
    (path / "summary.json").write_text(json.dumps(summary))
    record = ScriptRecord(script=["script.py"], folder=str(folder), hash_seed="0", sha256=sha256_of([str(script)]))
    (path / RECORD).write_text(record.model_dump_json())
    log = np.array([(seq, int(call), worker, life) for call, worker, life, seq in recorded], calls.DTYPE)
    np.save(path / "calls.npy", log)
    pushes = [(worker, life, seq) for call, worker, life, seq in recorded if call == Call.PUSH]
    records = np.zeros(len(pushes), trace.DTYPE)
    for at, (worker, life, seq) in enumerate(pushes):
        earlier = sum(other == life for _, other, _ in pushes[:at])
        records[at]["worker"], records[at]["incarnation"], records[at]["seq"] = worker, life, seq
        records[at]["version"] = earlier + 1
    np.save(path / "trace.npy", records)
    return path


TWO_FITS = [*fit(1, ORDER), *fit(2, ORDER)]


def test_a_mark_is_behind_the_last_push_that_a_version_contains(tmp_path: Path) -> None:
    path = write_run(tmp_path, TWO_FITS)
    assert is_script_run(path)
    recorded = read_script_run(path)
    assert recorded.fits == 2
    for number, until in ((1, 3), (2, 5), (2, 0)):
        marked = marked_calls(recorded, number, until)[0]
        at = int(np.flatnonzero(marked["call"] == Call.MARK)[0])
        before = marked[:at]
        begin = np.flatnonzero(before["call"] == Call.BEGIN)
        assert len(begin) == number and marked[at]["seq"] == until
        assert np.count_nonzero(before[begin[-1] :]["call"] == Call.PUSH) == until
        assert np.delete(marked, at).tobytes() == recorded.calls[0].tobytes()


@pytest.mark.parametrize(
    ("number", "until", "message"), [(3, 1, "--fit must be a call of fit of the run, 1 to 2"), (1, 6, "0 to 5")]
)
def test_a_version_that_the_run_never_had_is_refused(tmp_path: Path, number: int, until: int, message: str) -> None:
    recorded = read_script_run(write_run(tmp_path, TWO_FITS))
    with pytest.raises(CannotReplay, match=message):
        marked_calls(recorded, number, until)


@pytest.mark.parametrize(
    ("changes", "extra", "message"),
    [
        ({"status": "interrupted"}, [], "must have ended by itself"),
        ({"generation": 3}, [], "resumed, or one of its servers died"),
        ({"record": "off"}, [], "--record off"),
        ({}, [(Call.JOIN, 1, 3, 0)], "worker 1 was started again"),
        ({}, [(Call.LEASE, 1, 3, lease_seq(NO_EPOCH, 1))], "a loop of downpour.training"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], extra: list[Recorded], message: str
) -> None:
    path = write_run(tmp_path, [*TWO_FITS, *extra], **changes)
    with pytest.raises(CannotReplay, match=message):
        read_script_run(path)


def test_a_script_that_has_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, TWO_FITS)
    (tmp_path / "script.py").write_text("pass  # else\n")
    with pytest.raises(CannotReplay, match="has changed since"):
        read_script_run(path)
    (tmp_path / "script.py").unlink()
    with pytest.raises(CannotReplay, match="must be where it was"):
        read_script_run(path)
    (path / RECORD).unlink()
    with pytest.raises(CannotReplay, match=r"must have been started by `downpour run`"):
        read_script_run(path)


def test_every_bit_of_a_push_but_its_time_is_compared(tmp_path: Path) -> None:
    path = write_run(tmp_path, TWO_FITS)
    recorded, again = read_script_run(path), tmp_path / "again"
    again.mkdir()
    records = recorded.traces[0].copy()
    records["time_s"] += 1.0
    records["loss"] = np.nan
    recorded.traces[0]["loss"] = np.nan
    np.save(again / "trace.npy", records)
    assert compare(recorded, again).exact
    for name in trace.DTYPE.names or ():
        if not name.endswith("_s"):
            changed = records.copy()
            changed.view(np.uint8).reshape(len(records), -1)[3, trace.DTYPE.fields[name][1]] ^= 1  # type: ignore[index]
            np.save(again / "trace.npy", changed)
            verdict = compare(recorded, again)
            assert verdict.differing == 1 and not verdict.exact, name
    np.save(again / "trace.npy", records[:-1])
    assert "has received 9 pushes, 10 in the record" in compare(recorded, again).first


@pytest.mark.parametrize("name", ["summary.json", "script.json", "trace.npy", "calls.npy"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x02\x00", b"[]", b"{}", b"\xff" * 100])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    path = write_run(tmp_path, TWO_FITS)
    (path / name).write_bytes(content)
    with pytest.raises(CannotReplay, match=r"must .*"):
        read_script_run(path)


def test_a_replay_that_is_interrupted_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would report that all bits differ."""

    def interrupted(self: ReplayLauncher) -> int:
        self._stops.count = 1
        with pytest.raises(StopNow):  # at once: it has nothing to save
            self._handle_stop_requests()
        return 0

    monkeypatch.setattr(ReplayLauncher, "run", interrupted)
    recorded = read_script_run(write_run(tmp_path, [*fit(1, ORDER), *fit(2, ORDER)]))
    (tmp_path / "again").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_again(recorded, tmp_path / "again")
