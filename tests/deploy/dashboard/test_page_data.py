"""What the page gets of a run equals the trace, is bounded, and can always be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.deploy.dashboard.columns import differences, pack, smallest_unsigned
from downpour.deploy.dashboard.page_data import mode_facts, page_data
from downpour.deploy.dashboard.page_files import files, one_document
from downpour.deploy.dashboard.recorded_run import NoRun, load_run
from downpour.protos.sentences.sentence import sentence, to_json
from downpour.ps.core.consistency import MODES
from tests.support.page_block import unpack
from tests.support.pure.recorded_trace import CLOCKS_S, write_run
from tests.support.toys.toy_algorithms import register

LARGEST_REPORT_BYTES = 2_000_000


def test_every_column_equals_the_trace(tmp_path: Path) -> None:
    trace = write_run(tmp_path)
    header, tables = unpack(page_data(load_run(tmp_path)))
    columns = tables["shard0"]
    exact = (
        "version worker incarnation seq staleness outcome base_version lease start stop epoch samples reason".split()
    )
    for name in exact:
        np.testing.assert_array_equal(columns[name], trace[name], err_msg=name)
    np.testing.assert_array_equal(columns["learning_rate"], trace["learning_rate"])
    for name in ("loss", "norm"):
        np.testing.assert_array_equal(columns[name], trace[name].astype(np.float32))
    np.testing.assert_allclose(columns["time_us"] / 1e6, trace["time_s"] - CLOCKS_S[0], atol=1e-6)
    assert header["window"] == {"first": 0, "records": len(trace), "of": len(trace)}


def test_the_page_receives_the_facts_about_a_mode_from_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch.setitem)
    write_run(tmp_path, pushes=50, workers=2, shards=1, mode="toy:3")
    change = {"number": 1, "before": {"mode": "toy:3"}, "after": {"mode": "kasync:2"}, "version": 20}
    (tmp_path / "changes.json").write_text(json.dumps({"changes": [change]}))
    header, _ = unpack(page_data(load_run(tmp_path)))
    assert header["modes"] == {
        "toy:3": {"buffers": True, "slack": None, "law": "", "group": 1},
        "kasync:2": {"buffers": True, "slack": None, "law": "group", "group": 2},
    }
    assert mode_facts("of another version") == {}


def test_the_page_names_no_mode() -> None:
    scripts = "\n".join(content.decode() for name, content in files().items() if name.endswith(".js"))
    assert [name for name in MODES if re.search(rf"[\"\'`]{name}\b", scripts)] == []


def test_the_clocks_of_other_shards_are_aligned(tmp_path: Path) -> None:
    write_run(tmp_path, shards=3)
    _, tables = unpack(page_data(load_run(tmp_path)))
    for shard in ("shard1", "shard2"):
        np.testing.assert_allclose(tables[shard]["time_us"], tables["shard0"]["time_us"], atol=1)


def test_times_never_decrease(tmp_path: Path) -> None:
    trace = write_run(tmp_path, shards=1)
    trace["time_s"][100] -= 0.5  # as after a server that went on from a checkpoint with another clock
    np.save(tmp_path / "trace.npy", trace)
    _, tables = unpack(page_data(load_run(tmp_path)))
    assert (np.diff(tables["shard0"]["time_us"]) >= 0).all()


def test_events_are_in_order_and_name_the_record_before_which_they_happened(tmp_path: Path) -> None:
    trace = write_run(tmp_path, pushes=400, workers=3)
    header, _ = unpack(page_data(load_run(tmp_path)))
    events = header["events"]
    assert [event["before"] for event in events] == sorted(event["before"] for event in events)
    joined = {event["worker"]: event["before"] for event in events if event["kind"] == "join"}
    assert joined == {0: 0, 1: 0, 2: 100}
    assert (trace["worker"][:100] != 2).all()
    left = [event["before"] for event in events if event["kind"] == "leave"]
    assert left == [len(trace)] * 3
    epochs = [event for event in events if event["kind"] == "epoch"]
    assert [event["before"] for event in epochs] == [int(np.flatnonzero(trace["epoch"] == e)[-1]) + 1 for e in (0, 1)]


def test_pauses_and_notes_of_a_run_are_events_with_their_codes(tmp_path: Path) -> None:
    trace = write_run(tmp_path, pushes=200)
    wall_s = json.loads((tmp_path / "summary.json").read_text())["wall_s"]
    middle_s = wall_s + float(trace["time_s"][99] - trace["time_s"][-1])
    notes = [sentence("paused"), sentence("gave_up", worker="1", reason="ValueError: x"), "free text"]
    events = [
        {"kind": "paused", "elapsed_s": middle_s + 1e-9, "number": 0, "version": 0},
        {"kind": "continued", "elapsed_s": middle_s + 1e-9, "number": 0, "version": 0},
        {"kind": "checkpoint", "elapsed_s": 0.0, "number": 1, "version": 1},
    ]
    more = {"notes": notes, "sentences": [to_json(note) for note in notes], "events": events}
    change = {"number": 1, "before": {"mode": "async"}, "after": {"mode": "bsp"}, "version": 50, "elapsed_s": 1.0}
    (tmp_path / "changes.json").write_text(json.dumps({"changes": [change]}))

    def shown(more: dict[str, Any]) -> list[dict[str, Any]]:
        summary = json.loads((tmp_path / "summary.json").read_text())
        (tmp_path / "summary.json").write_text(json.dumps(summary | more))
        header, _ = unpack(page_data(load_run(tmp_path)))
        return [each for each in header["events"] if each["kind"] in ("paused", "continued", "note", "change")]

    change_, *pauses, worker, free = shown(more)
    assert change_["text"]["code"] == "setting" and change_["text"]["values"]["name"]["code"] == "name_mode"
    assert [(event["kind"], event["before"]) for event in pauses] == [("paused", 100), ("continued", 100)]
    assert worker["text"] == to_json(notes[1]) and free["text"] == "free text"
    of_earlier = shown({"notes": [str(note) for note in notes], "sentences": [], "events": []})
    assert [event["text"] for event in of_earlier[1:]] == notes


def test_leases_cover_what_their_pushes_used(tmp_path: Path) -> None:
    trace = write_run(tmp_path)
    leases = unpack(page_data(load_run(tmp_path)))[1]["leases"]
    for number, start, stop in zip(leases["number"], leases["start"], leases["stop"], strict=True):
        own = trace[trace["lease"] == number]
        assert (start, stop) == (own["start"].min(), own["stop"].max())


def test_a_report_of_20000_pushes_is_at_most_2_mb(tmp_path: Path) -> None:
    write_run(tmp_path, pushes=20_000, workers=8, shards=4)
    document = one_document("run", page_data(load_run(tmp_path)))
    assert len(document.encode()) <= LARGEST_REPORT_BYTES


def test_a_window_bounds_what_the_page_gets(tmp_path: Path) -> None:
    trace = write_run(tmp_path)
    header, tables = unpack(page_data(load_run(tmp_path), first=150, most=100))
    assert header["window"] == {"first": 150, "records": 100, "of": 400}
    np.testing.assert_array_equal(tables["shard0"]["version"], trace["version"][150:250])
    assert all(event["before"] <= 100 for event in header["events"])


def test_numbers_that_are_not_finite_arrive(tmp_path: Path) -> None:
    trace = write_run(tmp_path, shards=1)
    trace["loss"][5], trace["norm"][6] = np.nan, np.inf
    np.save(tmp_path / "trace.npy", trace)
    summary = json.loads((tmp_path / "summary.json").read_text()) | {"train_loss": float("nan")}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    header, tables = unpack(page_data(load_run(tmp_path)))
    assert np.isnan(tables["shard0"]["loss"][5]) and np.isinf(tables["shard0"]["norm"][6])
    assert header["summary"]["train_loss"] == "nan"


def test_an_unfinished_run_has_no_summary(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    header, tables = unpack(page_data(load_run(tmp_path)))
    assert header["summary"] == {}
    assert tables["shard0"]["time_us"][0] == 0


@pytest.mark.parametrize("pushes", [0, 1])
def test_the_shortest_runs_can_be_shown(tmp_path: Path, pushes: int) -> None:
    write_run(tmp_path)
    for shard in ("trace", "trace-shard1"):
        np.save(tmp_path / f"{shard}.npy", np.load(tmp_path / f"{shard}.npy")[:pushes])
    header, tables = unpack(page_data(load_run(tmp_path)))
    assert header["window"]["records"] == len(tables["shard0"]["version"]) == pushes


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match=r"must be the directory of a run.*received"):
        load_run(tmp_path)
    np.save(tmp_path / "trace.npy", np.zeros(3))
    with pytest.raises(NoRun, match="must hold records of"):
        load_run(tmp_path)
    (tmp_path / "trace.npy").write_bytes(b"\x93NUMPY but cut off")
    with pytest.raises(NoRun, match="must be a trace that can be read"):
        load_run(tmp_path)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_columns_survive_packing(values: list[int]) -> None:
    numbers = np.array(values, np.uint64)
    ascending = np.array([value << 16 for value in sorted(values)], np.uint64)
    header, tables = unpack(
        pack({"a": 1}, {"t": {"plain": smallest_unsigned(numbers), "up_d": differences(ascending)}})
    )
    assert header["a"] == 1
    np.testing.assert_array_equal(tables["t"]["plain"], numbers)
    np.testing.assert_array_equal(tables["t"]["up"], ascending)


def test_a_number_that_no_column_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="must hold numbers from 0"):
        smallest_unsigned(np.array([2**32], np.uint64))
