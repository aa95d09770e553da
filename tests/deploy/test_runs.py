"""Runs are found by path or by name, and jobs by their address or by their run."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from downpour.deploy import cli
from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.resume import CannotResume, resumed
from downpour.deploy.runs import address_of, run_path, withdraw_latest
from downpour.deploy.scripts.script_resume import resumed_script
from downpour.deploy.scripts.script_settings import RunSettings
from tests.support.command_line import run
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that has ended, the newest that trained, and two jobs that run."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for name in ("1-ended", "2-runs", "3-waits"):
        (folder / name).mkdir(parents=True)
    (folder / "latest").symlink_to("1-ended")
    (folder / "1-ended" / "summary.json").write_text(json.dumps({"model": "sigmoid100", "updates": 7}))
    (folder / "2-runs" / "address").write_text("127.0.0.1:2\n")
    (folder / "3-waits" / "address").write_text("127.0.0.1:3\n")
    return folder


def test_a_run_has_a_path_and_a_name(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_path("latest") == "runs/latest" and run_path("2-runs") == "runs/2-runs"
    assert run_path("runs/latest") == "runs/latest" and run_path("nothing") == "nothing"
    runs.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("DOWNPOUR_RUNS_DIR", "elsewhere")
    assert run_path("latest") == "elsewhere/latest"
    (tmp_path / "latest").mkdir()
    assert run_path("latest") == "latest"  # what exists is meant
    monkeypatch.setenv("DOWNPOUR_RUNS_DIR", "nowhere")
    (tmp_path / "latest").rmdir()
    assert run_path("latest") == "nowhere/latest", "a message says where it was looked for"


def test_latest_is_withdrawn_from_a_run_that_has_trained_nothing(runs: Path) -> None:
    def newest(name: str, trace: bool) -> str:
        (runs / "latest").unlink(missing_ok=True)
        (runs / "latest").symlink_to(name)
        if trace:
            (runs / name / "trace.npy").write_text("")
        withdraw_latest(runs / "2-runs")
        return (runs / "latest").resolve().name

    assert newest("2-runs", trace=False) == "latest"
    assert newest("1-ended", trace=False) == "1-ended"  # that of another run remains
    assert newest("2-runs", trace=True) == "2-runs"


def test_a_job_has_an_address_and_a_run(runs: Path) -> None:
    assert address_of("127.0.0.1:5") == "127.0.0.1:5"
    assert address_of("2-runs") == address_of("runs/2-runs") == "127.0.0.1:2"
    assert address_of("latest") == "127.0.0.1:3"  # the newest that runs, before it has trained
    with pytest.raises(LookupError, match="1-ended has ended"):
        address_of("1-ended")
    with pytest.raises(LookupError, match="there is no run nothing"):
        address_of("nothing")


def test_the_status_of_a_run_that_has_ended_is_its_summary(runs: Path, tmp_path: Path) -> None:
    assert json.loads(run("status", "1-ended", "--json", cwd=tmp_path).stdout)["updates"] == 7
    shown = run("status", "1-ended", cwd=tmp_path)
    assert shown.returncode == 0 and "sigmoid100" in shown.stdout
    missing = run("status", "nothing", cwd=tmp_path)
    assert missing.returncode == 2
    assert "ADDRESS must be HOST:PORT of a coordinator, or a run; there is no run nothing" in missing.stderr


@pytest.mark.parametrize("command", [("evaluate", "latest"), ("report", "latest"), ("replay", "latest")])
def test_every_command_that_takes_a_run_takes_its_name(runs: Path, tmp_path: Path, command: tuple[str, str]) -> None:
    """The run of the fixture has neither a model nor a trace."""
    assert "1-ended" in run(*command, cwd=tmp_path).stderr or "runs/latest" in run(*command, cwd=tmp_path).stderr


def test_the_runs_are_listed_with_their_state(runs: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in run("runs", "--json", cwd=tmp_path).stdout.splitlines()]
    assert [row["run"] for row in rows] == ["1-ended", "2-runs", "3-waits"]  # without the link
    assert rows[0]["updates"] == 7 and rows[0]["model"] == "sigmoid100" and rows[1]["status"] == "running"
    assert "1-ended" in run("runs", cwd=tmp_path).stdout
    missing = run("runs", "--runs-dir=nowhere", cwd=tmp_path)
    assert missing.returncode == 2 and "--runs-dir must be a folder" in missing.stderr


def test_two_runs_are_compared_by_settings_and_results(runs: Path, tmp_path: Path) -> None:
    for name, workers, loss in (("1-ended", 1, 0.5), ("2-runs", 4, 0.25)):
        (runs / name / "config.json").write_text(json.dumps({"settings": {"workers": workers, "runs_dir": name}}))
        content = {"updates": 7, "train_loss": loss, "staleness": {"mean": 0.5}, "metrics": {"val_mae": 1.0}}
        (runs / name / "summary.json").write_text(json.dumps(content))
    found = json.loads(run("runs", "compare", "latest", "2-runs", "--json", cwd=tmp_path).stdout)
    assert found["runs"] == ["1-ended", "2-runs"] and found["settings"] == {"workers": [1, 4]}
    results = {"updates": [7, 7], "train_loss": [0.5, 0.25], "staleness_mean": [0.5, 0.5], "val_mae": [1.0, 1.0]}
    assert found["results"] == results
    assert "training loss" in run("runs", "compare", "1-ended", "2-runs", cwd=tmp_path).stdout
    missing = run("runs", "compare", "1-ended", "nothing", cwd=tmp_path)
    assert missing.returncode == 2 and "RUN must be a run; " in missing.stderr


WRONG = ["[]", "3", '"text"', "null", "{", "\xff", "[" * 100_000]  # what a damaged file of a run may contain
WITHIN = [
    '{"settings": 3}',
    '{"settings": {}, "workers": 3}',
    '{"settings": []}',
    '{"staleness": 3, "metrics": [1], "train_loss": "low", "updates": []}',
]


@pytest.mark.parametrize("content", [*WRONG, *WITHIN], ids=lambda content: content[:20])
def test_a_damaged_file_of_a_run_is_no_reason_to_fail(
    runs: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "summary.json"):
        (runs / "2-runs" / name).write_text(content, encoding="latin-1")
    (runs / "2-runs" / "address").unlink()
    for flags in ([], ["--json"]):
        assert cli.main(["runs", *flags]) == 0
        assert cli.main(["runs", "compare", *flags, "2-runs", "1-ended"]) == 0
    assert capsys.readouterr().err == ""
    code = cli.main(["status", "2-runs"])
    errors = capsys.readouterr().err
    assert (code, errors) == (0, "") or (
        code == 2 and "runs/2-runs/summary.json must be the summary of a run" in errors and errors.count("\n") == 1
    )
    with pytest.raises(CannotResume, match="--resume must name a run directory with"):
        resumed(TrainSettings(resume="runs/2-runs"))
    with pytest.raises(CannotResume, match="--resume must name"):
        resumed_script(RunSettings(resume="runs/2-runs"))


def test_a_run_is_removed_unless_it_runs_or_is_none(runs: Path, tmp_path: Path) -> None:
    (runs / "0-before").mkdir()
    (runs / "0-before" / "summary.json").write_text(json.dumps({"updates": 1}))
    (runs / "2-runs" / "logs").mkdir()  # with an address, and no lock that would say that it has ended
    (tmp_path / "photos").mkdir()
    for name, reason in (("2-runs", "must have ended"), ("photos", "must be a run"), ("nothing", "must be a run")):
        refused = run("runs", "remove", "1-ended", name, cwd=tmp_path)
        assert refused.returncode == 2 and reason in refused.stderr
    assert (runs / "1-ended").exists() and (tmp_path / "photos").exists()
    assert run("runs", "remove", "latest", cwd=tmp_path).returncode == 0
    assert not (runs / "1-ended").exists() and (runs / "latest").resolve().name == "0-before"
    assert run("runs", "remove", "0-before", cwd=tmp_path).returncode == 0 and not (runs / "latest").is_symlink()
    assert "RUN must be given" in run("runs", "remove", cwd=tmp_path).stderr


def test_the_logs_of_a_run_are_shown_until_its_coordinator_has_ended(runs: Path, tmp_path: Path) -> None:
    folder = runs / "1-ended"
    (folder / "logs").mkdir()
    (folder / ".lock").write_text("")  # held by nobody
    (folder / "logs" / "ps-0.log").write_text("one\ntwo\n")
    (folder / "logs" / "worker-1.log").write_text("three\n")
    lines = ["ps-0      one", "ps-0      two", "worker-1  three"]
    for flags in ((), ("-f",), ("--follow",)):
        assert run("logs", *flags, "latest", cwd=tmp_path).stdout.splitlines() == lines
    assert run("logs", "latest", "--process=worker-1", cwd=tmp_path).stdout.splitlines() == lines[-1:]
    unknown = run("logs", "latest", "--process=ps-9", cwd=tmp_path)
    assert unknown.returncode == 2 and "these have one: ps-0, worker-1" in unknown.stderr
    none = run("logs", "2-runs", cwd=tmp_path)
    assert none.returncode == 2 and "RUN must be a run with logs" in none.stderr


def test_an_interrupt_leaves_the_logs_that_are_followed(runs: Path) -> None:
    folder = runs / "1-ended"
    (folder / "logs").mkdir()
    (folder / "logs" / "ps-0.log").write_text("one\n")
    with (folder / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a coordinator that runs
        line = [sys.executable, "-m", "downpour.deploy.cli", "logs", "-f", str(folder)]
        with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None and following.stdout.readline() == "ps-0      one\n"
            following.send_signal(signal.SIGINT)
            _, errors = following.communicate(timeout=60)
    assert (following.returncode, errors) == (0, "")


@pytest.mark.parametrize("columns", [30, 50, 60, 80])
def test_the_list_of_runs_has_fewer_columns_rather_than_cut_values(
    columns: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (runs / f"20260101T00000{number}Z-sigmoid100").mkdir()
        summary = {"updates": 12_345_678, "status": "interrupted", "train_loss": 0.125, "val_accuracy": 0.875}
        (runs / f"20260101T00000{number}Z-sigmoid100" / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setenv("COLUMNS", str(columns))
    head, *rows = run("runs", cwd=tmp_path).stdout.splitlines()
    names = head.split()
    assert names == ["run", "status", "updates", "loss", "accuracy"][: {30: 1, 50: 3, 60: 4, 80: 5}[columns]]
    expected = ["20260101T000002Z-sigmoid100", "interrupted", "12,345,678", "0.1250", "0.8750"]
    assert next(row for row in rows if row.startswith(expected[0])).split() == expected[: len(names)]
    assert all(len(row.rstrip()) <= columns and "…" not in row for row in rows)
