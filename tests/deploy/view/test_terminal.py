"""What a person sees, from a `Progress` message or a summary to text."""

from __future__ import annotations

import io
import math
import os
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from downpour.deploy.view.rendering import (
    duration,
    epoch_line,
    number,
    plain,
    render,
    share,
    summary_rows,
    summary_table,
    with_results,
)
from downpour.deploy.view.terminal import LiveScreen, PlainScreen, silence
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.sentences.sentence import counted

SUMMARY = {
    "model": "sigmoid100", "dataset": "mnist", "optimizer": "sgd", "mode": "async", "test_accuracy": 0.96128,
    "val_accuracy": 0.9634, "train_loss": 0.1234, "updates": 17820, "samples_per_s": 12345.6, "dropped": 3,
    "duplicates": 0, "wall_s": 75.2, "staleness": {"mean": 0.981, "p50": 1, "p99": 2, "max": 5, "per_worker": {}},
}  # fmt: skip


def progress(workers: int = 0, **fields: object) -> pb.Progress:
    """A job in the middle."""
    message = pb.Progress(
        phase="training", epoch=2, epochs=10, samples=155_000, total_samples=570_000, samples_per_s=12345.6,
        loss=0.3123, val_accuracy=0.9412, staleness_mean=0.98, elapsed_s=12.5, eta_s=33.6,
        workers=[
            pb.WorkerProgress(
                worker=number, incarnation=1 + number % 2, state="initialising", updates=1_234_567, pid=4_194_304,
                samples_per_s=123_456, loss=0.3, staleness_mean=12.97, dropped=10_000, host="h" * 60,
            )
            for number in range(workers)
        ],
    )  # fmt: skip
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def text(renderable: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_bar_shows_what_matters_in_two_lines(width: int) -> None:
    bar, line = text(render(progress()), width)
    assert bar.startswith("epoch 3/10 ━") and bar.endswith("27% 0:12 ETA 0:34")
    assert len(bar) <= width
    assert line == "samples/s 12,346   loss 0.3123   val accuracy 0.9412   staleness 0.98"


@pytest.mark.parametrize("width", [80, 120])
def test_each_worker_has_an_uncut_line_when_asked(width: int) -> None:
    lines = text(render(progress(workers=3), verbose=True), width)
    assert len(lines) == 2 + 1 + 3
    assert lines[2].split() == [
        "worker",
        "state",
        "updates",
        "samples/s",
        "loss",
        "staleness",
        "dropped",
        "pid",
    ]
    row = ["0", "initialising", "1,234,567", "123,456", "0.3000", "12.97", "10,000", "4194304"]
    assert lines[3].split() == row
    assert lines[4].split()[0] == "1.2"  # worker 1, incarnation 2
    assert all("…" not in line for line in lines)


@pytest.mark.parametrize("width", [30, 40, 50, 60, 70, 80])
def test_no_name_is_parted_from_its_value(width: int) -> None:
    _, *lines = text(render(progress()), width)
    shown = [part for line in lines for part in line.split("   ")]
    assert shown == ["samples/s 12,346", "loss 0.3123", "val accuracy 0.9412", "staleness 0.98"]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [50, 60, 80])
def test_what_a_job_waits_for_is_not_cut(width: int) -> None:
    early = pb.Progress(phase="waiting", workers_wanted=1024, workers=[pb.WorkerProgress()] * 1023, elapsed_s=12.0)
    bar, *_ = text(render(early), width)
    assert bar.startswith("waiting for workers: 1023 of 1024 joined") and bar.endswith("0:12") and "…" not in bar


def test_workers_are_not_shown_unasked() -> None:
    assert len(text(render(progress(workers=3)), 80)) == 2


def test_an_unknown_value_is_shown_as_a_dash() -> None:
    early = pb.Progress(phase="training", epochs=3, workers=[pb.WorkerProgress()])
    assert plain(early) == "epoch 1/3    0%  samples/s –  loss –  val accuracy –  staleness –  ETA –"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"shards": 3, "shards_joined": 1, "workers_wanted": 2}, "waiting for shards: 1 of 3 joined"),
        ({"workers_wanted": 2}, "waiting for workers: 1 of 2 joined"),
        ({"workers_wanted": 1}, "waiting, 1 worker joined"),
    ],
)
def test_a_wait_states_what_is_waited_for_and_since_when(fields: dict[str, Any], expected: str) -> None:
    early = pb.Progress(phase="waiting", workers=[pb.WorkerProgress()], elapsed_s=12.0, **fields)
    assert plain(early) == f"{expected}  0:12"


@pytest.mark.parametrize("width", [40, 50, 60, 70])
def test_a_narrow_terminal_has_fewer_columns_and_no_cut_number(width: int) -> None:
    lines = text(render(progress(workers=3), verbose=True), width)
    table = lines[-4:]
    assert max(map(len, table)) <= width and not [line for line in lines if "…" in line]
    assert table[0].split()[:3] == ["worker", "state", "updates"]
    assert table[1].split()[:3] == ["0", "initialising", "1,234,567"]


def test_a_live_screen_keeps_one_line_for_every_epoch() -> None:
    output = io.StringIO()
    console = Console(width=80, file=output, force_terminal=True, color_system=None, legacy_windows=False)
    screen = LiveScreen(console, verbose=False)
    values = {0: None, 1: 0.25, 2: 0.5, 3: 0.75}  # of the validation after this number of epochs
    for epoch, validated in ((0, 0), (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)):
        message = pb.Progress(phase="training", epoch=epoch, epochs=3, samples=10, total_samples=30, loss=0.5)
        if (value := values[validated]) is not None:
            message.val_loss, message.val_accuracy = 1 - value, value
        message.phase = "finishing" if epoch == 3 else "training"
        screen.show(message)
    screen.close()
    assert lines_of_epochs(output) == ["1/3 0.2500", "2/3 0.5000", "3/3 0.7500"]


def test_the_last_epoch_has_its_results_where_one_message_reports_its_end_and_them() -> None:
    output = io.StringIO()
    console = Console(width=80, file=output, force_terminal=True, color_system=None, legacy_windows=False)
    screen = LiveScreen(console, verbose=False)
    for phase, epoch, value in (("training", 0, None), ("training", 1, 0.25), ("ended", 2, 0.5)):
        message = pb.Progress(phase=phase, epoch=epoch, epochs=2, samples=10, total_samples=20, loss=0.5)
        if value is not None:
            message.val_loss, message.val_accuracy = 1 - value, value
        screen.show(message)
    screen.close()
    assert lines_of_epochs(output)[-1] == "2/2 0.5000"


def lines_of_epochs(output: io.StringIO) -> list[str]:
    """Return the number and the validation accuracy of each epoch that has a line of its own."""
    found = re.findall(r"epoch (\d/\d)  \d:\d\d  .*val accuracy (\S+)", output.getvalue())
    return [f"{number} {accuracy}" for number, accuracy in found]


@pytest.mark.parametrize("late", [False, True])
def test_an_epoch_without_results_has_a_line_without_those_of_the_epoch_before(late: bool) -> None:
    output = io.StringIO()
    console = Console(width=80, file=output, force_terminal=True, color_system=None, legacy_windows=False)
    screen = LiveScreen(console, verbose=False)
    for elapsed_s, epoch in ((1, 0), (2, 1), (30 if late else 3, 1)):
        fields: dict[str, Any] = {"samples": 10, "total_samples": 30, "loss": 0.5, "val_loss": 0.7, "val_accuracy": 0.3}
        screen.show(pb.Progress(phase="training", epoch=epoch, epochs=3, elapsed_s=elapsed_s, **fields))
        if late and elapsed_s == 30:
            assert lines_of_epochs(output) == ["1/3 –"]
    screen.close()
    assert lines_of_epochs(output) == ["1/3 –"]


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_the_line_of_an_epoch_fits_the_terminal(width: int) -> None:
    line = epoch_line(progress(samples_per_s=123_456.0, dropped=7), width)
    assert len(line) <= width and line.startswith("epoch 3/10  0:12  ")
    assert "loss 0.3123  val accuracy 0.9412" in line
    assert ("staleness" in line) is (width >= 80)


def test_the_line_of_an_epoch_of_a_script_has_its_own_logs() -> None:
    ended, now = progress(dataset="script"), progress(dataset="script")
    ended.metrics["val_mae"], now.metrics["val_mae"] = 1.0, 0.5
    assert with_results(ended, ended) is None
    found = with_results(ended, now)
    assert found is not None and "val mae 0.5000" in epoch_line(found)


def test_counts_have_a_singular() -> None:
    assert (counted(1, "worker"), counted(2, "worker"), counted(1200, "update")) == (
        "1 worker", "2 workers", "1,200 updates",
    )  # fmt: skip


def test_a_loss_that_is_not_finite_is_shown_as_such() -> None:
    assert "loss nan" in plain(progress(loss=math.nan))


def test_drops_and_the_test_accuracy_appear_once_there_are_any() -> None:
    assert "dropped" not in plain(progress())
    assert "test accuracy 0.9612  dropped 1,200" in plain(progress(test_accuracy=0.9612, dropped=1200))


@settings(max_examples=30)
@given(
    samples=st.integers(0, 2**63), total=st.integers(0, 2**63), epoch=st.integers(0, 2**32 - 1),
    rate=st.floats(), eta=st.floats(),
    phase=st.sampled_from(["waiting", "training", "draining", "finishing", "ended", "failed", "[bold]", ""]),
)  # fmt: skip
def test_any_progress_can_be_shown(samples: int, total: int, rate: float, eta: float, epoch: int, phase: str) -> None:
    message = pb.Progress(
        samples=samples,
        total_samples=total,
        samples_per_s=rate,
        eta_s=eta,
        epoch=epoch,
        phase=phase,
        loss=rate,
    )
    assert 0 <= share(message) <= 1
    assert plain(message).startswith("epoch " if phase == "training" else phase)
    assert ("epoch " if phase == "training" else phase) in text(render(message, verbose=True), 80)[0]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (725, "12:05"),
        (3723, "1:02:03"),
        (math.inf, "–"),
        (math.nan, "–"),
        (-1, "–"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_table_at_the_end_has_the_figures() -> None:
    rows = dict(summary_rows(SUMMARY, "runs/one"))
    assert rows["test accuracy"] == "0.9613"
    assert rows["updates"] == "17,820 (3 dropped)"
    assert rows["staleness"] == "mean 0.98, p99 2, max 5"
    assert (rows["samples/s"], rows["time"], rows["run"]) == ("12,346", "1:15", "runs/one")
    assert "status" not in rows and dict(summary_rows({**SUMMARY, "status": "failed"}, ""))["status"] == "failed"


def test_the_table_at_the_end_fits_and_does_without_what_is_missing() -> None:
    long_run = "runs/" + "x" * 200
    for summary in (SUMMARY, {}, {"staleness": None, "test_accuracy": None}):
        lines = text(summary_table(summary, long_run), 80)
        assert max(map(len, lines)) <= 80
        assert "".join(line.strip("│ ").split()[-1] for line in lines if "x" * 9 in line) == long_run


def test_plain_lines_come_when_something_changes_or_time_has_passed() -> None:
    lines: list[str] = []
    screen = PlainScreen(lines.append, every_s=5.0)
    for tenth in range(100):
        screen.show(progress(elapsed_s=tenth / 10))
    assert len(lines) == 2  # at 0 and at 5 s
    screen.show(progress(elapsed_s=10.0, epoch=3))
    screen.show(progress(elapsed_s=10.1, epoch=3, val_accuracy=0.95))
    screen.show(progress(elapsed_s=10.2, epoch=3, val_accuracy=0.95))
    screen.show(progress(elapsed_s=10.3, epoch=3, val_accuracy=0.95, phase="finishing"))
    assert [line.split("  ")[0] for line in lines[2:]] == ["epoch 4/10", "epoch 4/10", "finishing"]


def test_plain_lines_name_every_worker_when_asked() -> None:
    lines: list[str] = []
    shown = progress(workers=3)
    PlainScreen(lines.append, verbose=True).show(shown)
    for line, worker in zip(lines[1:], shown.workers, strict=True):
        assert line.startswith(f"  worker {worker.worker}") and f"pid {worker.pid}" in line
        assert f"updates {worker.updates:,}" in line and worker.state in line


def test_a_live_screen_leaves_notes_and_table_and_takes_the_bar_away() -> None:
    output = io.StringIO()
    console = Console(width=80, file=output, force_terminal=True, color_system=None, legacy_windows=False)
    screen = LiveScreen(console, verbose=False)
    screen.close()  # before anything was shown
    screen.show(progress())
    screen.note("worker-1 [died]")
    screen.show(progress())
    screen.close()
    screen.table(SUMMARY, "runs/one")
    shown = output.getvalue()
    assert "worker-1 [died]" in shown
    last_bar, table = shown.rfind("epoch 3/10"), shown.rfind("test accuracy")
    assert "\x1b[2K" in shown[last_bar:table]  # the bar's lines were erased before the table


def test_a_silenced_process_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        silence()
        os.write(1, b"unheard")
        os.write(2, b"unheard")
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
    assert "unheard" not in "".join(capfd.readouterr())


def test_a_model_without_accuracy_reports_its_loss() -> None:
    progress = pb.Progress(phase="training", samples=1, epochs=3, total_samples=9, dataset="flow", val_loss=0.25)
    assert "val loss 0.2500" in plain(progress) and "accuracy" not in plain(progress)
    rows = dict(summary_rows({"test_loss": 0.5, "test_accuracy": None, "val_loss": 0.25}, "runs/x"))
    assert rows["test loss"] == "0.5000" and rows["validation loss"] == "0.2500"
    assert not [name for name in rows if "accuracy" in name]


def test_a_script_is_shown_with_the_metrics_of_its_model() -> None:
    progress = pb.Progress(phase="training", samples=1, epochs=3, total_samples=9, dataset="script", loss=0.5)
    assert "accuracy" not in plain(progress)
    progress.metrics.update({"loss": 0.4, "mae": 0.25, "val_loss": 0.75})
    assert "loss 0.5000  mae 0.2500  val loss 0.7500" in plain(progress)


def test_a_share_of_communication_that_is_not_known_has_no_row() -> None:
    assert dict(summary_rows({"communication_share": 0.45}, "run"))["communication"] == "45% of a step"
    unknown: list[dict[str, Any]] = [{}, {"communication_share": None}]
    assert all("communication" not in dict(summary_rows(summary, "run")) for summary in unknown)


def test_a_loss_has_at_most_as_many_digits_as_can_be_read() -> None:
    assert [number(value) for value in (0.25, 999999.5, 1.5e6, -2e30, math.inf, None)] == [
        "0.2500", "999999.5000", "1.5e+06", "-2e+30", "inf", "–",
    ]  # fmt: skip
    assert number(1.5e6, ",.0f") == "1,500,000"
