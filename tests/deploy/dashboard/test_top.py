"""`downpour top`: the screen fits any terminal and shows what the job reports; keys stand for actions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from downpour.deploy.dashboard.config import TopSettings
from downpour.deploy.dashboard.top import request_for, top
from downpour.deploy.dashboard.top_view import BARS, TopState, frame, sparkline, whole
from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.trace.format import DTYPE
from tests.support.cluster import running, vector_layout
from tests.support.pure.recorded_trace import write_run


def state_of(workers: int, notes: int = 3, live: bool = True) -> TopState:
    state = TopState(live=live)
    progress = pb.Progress(
        run="20260101T000000Z-sigmoid100", phase="training", model="sigmoid100", dataset="mnist", mode="ssp:2",
        staleness_policy="inverse", optimizer="momentum", learning_rate=0.05, epoch=2, epochs=10, samples=10,
        total_samples=99,
        samples_per_s=123456.7, version=1234567, loss=0.1234, elapsed_s=3599, eta_s=7200,
        notes=[f"note {number}: something happened that needs a long line to be told" for number in range(notes)],
        workers=[
            pb.WorkerProgress(
                worker=number, state="training", updates=1000 + number, samples_per_s=100.0 if number == 1 else 1000.0,
                loss=0.5, staleness_mean=1.25, pid=4000 + number,
            ) for number in range(workers)
        ],
    )  # fmt: skip
    for _ in range(30):
        records = np.zeros(workers * 2, DTYPE)
        records["worker"] = np.repeat(np.arange(workers), 2)
        records["staleness"] = np.arange(2 * workers) % 5
        message = pb.Progress()
        message.CopyFrom(progress)
        state.take(message, records)
        progress.ClearField("notes")
    return state


def printed(state: TopState, width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(frame(state, width, height))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [12, 24, 50])
@pytest.mark.parametrize("workers", [1, 4, 64])
def test_the_screen_fits_the_terminal(width: int, height: int, workers: int) -> None:
    lines = printed(state_of(workers), width, height)
    assert len(lines) <= height and max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "1,234,567" in text and "q quit" in text and " 1,000 " in text
    assert width < 120 or ("ssp:2, inverse" in text and "η 0.05" in text)


def test_a_slow_worker_is_named_and_the_chosen_one_is_always_shown() -> None:
    state = state_of(64)
    assert any(line.startswith("1 ") and "slow" in line for line in printed(state, 80, 40))
    state.choose(-1)
    assert state.chosen == 63
    assert any(line.startswith("63 ") for line in printed(state, 80, 24))


def test_members_that_come_and_go_are_events() -> None:
    state = state_of(2)
    state.take(pb.Progress(workers=[pb.WorkerProgress(worker=1), pb.WorkerProgress(worker=2)]), np.zeros(0, DTYPE))
    assert list(state.notes)[-2:] == ["worker 0 has left", "worker 2 has joined"]
    assert state.chosen == 1


@given(st.lists(st.floats(0, 1e6) | st.just(float("nan")), max_size=200), st.integers(0, 150))
def test_a_sparkline_has_one_bar_for_each_value(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == width and set(line) <= {*BARS, " "}
    assert len(whole(values, max(1, width))) == max(1, min(max(1, width), len(values)))


def test_keys_stand_for_actions() -> None:
    state = state_of(3)
    state.choose(1)
    assert request_for("k", state) == {"action": "kill", "worker": 1}
    assert request_for("l", state) == {"action": "slow", "worker": 1, "seconds": 10.0, "factor": 3.0}
    assert request_for("p", state) == {"action": "pause"}
    assert state.progress is not None
    state.progress.paused = True
    assert request_for("p", state) == {"action": "resume"}
    assert request_for("x", state) is None


def test_a_recorded_run_is_shown_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", pushes=500, workers=3, shards=1)
    assert top(TopSettings(source=str(tmp_path / "run"))) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    trace = np.load(tmp_path / "run" / "trace.npy")
    for worker in range(3):
        applied = int(((trace["worker"] == worker) & (trace["outcome"] == 0)).sum())
        assert [str(worker), "left", f"{applied:,}"] in [row[:3] for row in rows]


def test_a_running_job_is_shown_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, workers=1) as cluster:
        (member,) = cluster.train(vector_layout(4), 1)
        for _ in range(7):
            member.pull()
            member.push_pull(np.ones(4, np.float32))
        assert top(TopSettings(source=cluster.address)) == 0
    assert "version   7" in capsys.readouterr().out


def test_what_is_neither_a_job_nor_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert top(TopSettings(source=str(tmp_path))) == 2
    assert "SOURCE must be HOST:PORT of a running job's coordinator, or the directory of" in capsys.readouterr().err
    assert top(TopSettings(source="127.0.0.1:1")) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
