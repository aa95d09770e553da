"""The command line and the local launcher, over processes that only pretend to train (fake_cluster.py)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import Field

from downpour.deploy import cli
from downpour.deploy.launch.run_dir import make_run_dir
from downpour.deploy.view.watcher import Watcher
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.parameter_server_pb2_grpc import add_CoordinatorServicer_to_server
from downpour.protos.settings import Settings, parse, to_flags
from downpour.ps.config import ServerSettings
from tests.support.fake_cluster import FakeCoordinator
from tests.support.paths import ROOT

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


def run(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "downpour.deploy.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, env=environment)


def refused(kind: type[Settings], *argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command line that must be refused."""
    with pytest.raises(SystemExit) as stopped:
        parse(kind, argv, "prog")
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


# ------------------------------------------------------------------------------------------- commands


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, command in cli.commands().items():
        assert re.search(rf"^  {name} +{command.description}$", said, re.MULTILINE)


def test_without_a_command_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: downpour COMMAND" in capsys.readouterr().err


def test_an_unknown_command_is_told_the_nearest_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    said = capsys.readouterr().err
    assert "did you mean train?" in said
    assert all(name in said for name in cli.commands())


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"downpour \S.*\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["train", "status", "ps", "worker"])
def test_the_help_of_a_command_fits_80_columns_and_names_its_flags(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: downpour {command}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_command_line_is_imported_without_its_commands() -> None:
    code = (
        "import sys, downpour.deploy.cli\n"
        "print(json := [m for m in ('tensorflow', 'grpc', 'numpy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S)
    assert said.stdout.strip() == "[]", said.stderr


def test_train_and_status_import_neither_tensorflow_nor_what_they_start() -> None:
    code = (
        "import downpour.deploy.launch.launcher, downpour.deploy.view.status, sys\n"
        "names = ('tensorflow', 'keras', 'downpour.ps.server', 'downpour.worker.train.loop')\n"
        "print([m for m in names if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S)
    assert said.stdout.strip() == "[]", said.stderr


# ------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "ten"], "prog: --epochs must be a whole number, at least 1; received 'ten'"),
        (["--epochs", "1.5"], "prog: --epochs must be a whole number, at least 1; received '1.5'"),
        (["--epochs", "0"], "prog: --epochs must be a whole number, at least 1; received '0'"),
        (
            ["--learning-rate", "nan"],
            "prog: --learning-rate must be a finite number, above 0; received 'nan'",
        ),
        (["--momentum=1"], "prog: --momentum must be a finite number, at least 0, below 1; received '1'"),
        (["--transport", "grcp"], "--transport must be one of auto,"),
        (["--transport", "grcp"], "(did you mean grpc?); received 'grcp'"),
        (["--optimizer", "adm"], "(did you mean adam?); received 'adm'"),
        (["--bind", "4000"], "--bind must be HOST:PORT with a port from 0 to 65535; received '4000'"),
        (["--coordinator", "grpc://a:1", "--shard", "1"], "--coordinator must be HOST:PORT without a scheme"),
        (["--bind", "::1:4000"], "an IPv6 address in brackets; received '::1:4000'"),
        (["--bind", "h:65536"], "received 'h:65536'"),
        (["--shard", "1"], "--shard must lie below --shards"),
        (["--opitmizer", "sgd"], "prog: unknown flag --opitmizer (did you mean --optimizer?)"),
        (["stray"], "prog: unexpected argument 'stray'"),
        (["--epochs"], "prog: --epochs needs a value"),
        (["--epochs", "0"], "prog: `prog --help` lists the flags"),
    ],
)
def test_a_bad_flag_is_named_with_what_must_hold_and_what_came(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(ServerSettings, *argv, capsys=capsys)


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(ServerSettings, "--epochs=0", "--seed=-1", "--mode=x", capsys=capsys)
    assert [line.split()[1] for line in said.splitlines()[:-1]] == ["--epochs", "--seed", "--mode"]


def test_a_bad_variable_is_named_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOWNPOUR_EPOCHS", "many")
    said = refused(ServerSettings, capsys=capsys)
    assert "prog: DOWNPOUR_EPOCHS must be a whole number, at least 1; received 'many'" in said


def test_where_values_contradict_each_other_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOWNPOUR_SHARD", "2")
    assert "(set by DOWNPOUR_SHARD)" in refused(ServerSettings, capsys=capsys)


def test_flags_win_over_variables_and_these_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWNPOUR_EPOCHS", "4")
    monkeypatch.setenv("DOWNPOUR_SEED", "5")
    settings = parse(ServerSettings, ["--epochs=3"], "prog")
    assert (settings.epochs, settings.seed, settings.batch_size) == (3, 5, 32)


class _Everything(Settings):
    count: int = Field(3, description="a number")
    rate: float | None = Field(None, description="a number or nothing")
    json_: bool = Field(False, description="yes or no")
    loud: bool = Field(True, description="yes or no")
    name: str = Field("x", description="a text of 100 %")


def test_flags_carry_settings_to_another_process() -> None:
    for argv in ([], ["--count=-4", "--rate=1e-05", "--json", "--no-loud", "--name=--a b=c"]):
        settings = parse(_Everything, argv, "prog")
        assert to_flags(settings, _Everything) == argv
        assert parse(_Everything, to_flags(settings, _Everything), "prog") == settings


def test_models_and_datasets_are_checked_before_anything_starts(tmp_path: Path) -> None:
    said = run("train", "--model=sigmoid10", "--dataset=mnits", cwd=tmp_path).stderr
    assert "--model must be one of" in said
    assert "(did you mean sigmoid100?), or module:function; received 'sigmoid10'" in said
    assert "(did you mean mnist?), or the path of an .npz file; received 'mnits'" in said
    said = run("train", "--model=nowhere_to_be_found:f", "--dataset=none.npz", cwd=tmp_path).stderr
    assert f"--model must name a module that can be found in {tmp_path}" in said
    assert f"{tmp_path / 'none.npz'} does not exist" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_runs_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("train", "--runs-dir=file", cwd=tmp_path)
    assert done.returncode == 1
    assert "--runs-dir must be a writable folder" in done.stderr


def test_run_directories_of_one_second_differ(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC)
    made = [make_run_dir(tmp_path / "runs", "pkg.mod:build", now) for _ in range(3)]
    assert [path.name for path in made] == [f"20261121T010203Z-pkg.mod-build{end}" for end in ("", "-2", "-3")]
    assert all((path / "logs").is_dir() for path in made)


# --------------------------------------------------------------------------------------------- status


@pytest.fixture
def coordinator() -> Iterator[tuple[FakeCoordinator, str]]:
    """A coordinator in this process, and its address."""
    fake, server = FakeCoordinator(leases=0), grpc.server(ThreadPoolExecutor(8))
    add_CoordinatorServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    fake.members, fake.phase, fake.used = {0: 1, 1: 2}, "training", 500
    yield fake, f"127.0.0.1:{port}"
    server.stop(None).wait(TIMEOUT_S)


def test_status_shows_job_and_workers(coordinator: tuple[FakeCoordinator, str]) -> None:
    done = run("status", coordinator[1])
    assert done.returncode == 0, done.stderr
    assert "epoch 6/10" in done.stdout
    assert "sigmoid100 · mnist · async" in done.stdout
    assert re.search(r"^ +0  training +250 ", done.stdout, re.MULTILINE)


def test_status_as_json_has_numbers_and_null_for_what_is_not_known(
    coordinator: tuple[FakeCoordinator, str],
) -> None:
    said = json.loads(run("status", coordinator[1], "--json").stdout)
    assert said["samples"] == 500 * 32
    assert said["test_accuracy"] is None
    assert [worker["incarnation"] for worker in said["workers"]] == [1, 2]


def test_status_watch_ends_with_the_job(coordinator: tuple[FakeCoordinator, str]) -> None:
    fake, address = coordinator
    command = [sys.executable, "-m", "downpour.deploy.cli", "status", address, "--watch", "--every-s=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("epoch 6/10")
        with fake.changed:
            fake.phase = "ended"
            fake.changed.notify_all()
        lines = watching.stdout.read().splitlines()
        assert watching.wait(TIMEOUT_S) == 0
    assert [line for line in lines if not line.startswith("  worker ")][-1].startswith("ended")


def test_status_of_nobody_names_the_address() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and never listening: nobody else gets the port meanwhile
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = run("status", address)
    assert done.returncode == 1
    assert f"no parameter server answers at {address}" in done.stderr


def test_status_of_one_who_never_answers_ends_at_the_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("status", address, "--timeout-s=0.5")
    assert done.returncode == 1
    assert address in done.stderr


class Repeating(FakeCoordinator):
    """Breaks every stream off, and begins the next with the first note again."""

    def __init__(self) -> None:
        super().__init__(leases=0)
        self.notes, self.streams = ["first", "first", "second"], 0

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator[pb.Progress]:
        self.streams += 1
        if self.streams == 3:
            self.notes.append("third")
            self.phase = "failed"
        yield self.progress()


def test_a_watcher_tells_each_note_once_and_ends_with_the_job() -> None:
    fake = Repeating()
    server = grpc.server(ThreadPoolExecutor(4))
    add_CoordinatorServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    watcher = Watcher(f"127.0.0.1:{port}")
    try:
        until(lambda: not watcher._thread.is_alive())
        assert watcher.take()[1] == ["first", "first", "second", "third"]
        assert fake.streams == 3
    finally:
        watcher.close()
        server.stop(0).wait()


# ------------------------------------------------------------------------------------------- launcher


class Launched:
    """A launcher over a fake cluster, its lines of output as they come, and its processes."""

    def __init__(self, run_dir: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "tests.support.fake_cluster", "launch", str(run_dir), *flags]
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def until(self, text: str) -> None:
        with self._news:
            self._news.wait_for(lambda: self._ended or self._has(text), TIMEOUT_S)
            assert self._has(text), self.output

    def _has(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def code(self) -> int:
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def processes(self) -> dict[int, str]:
        """Those of the cluster, launcher aside, that exist: number -> command line."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.run_dir) in command and " launch " not in command:
                found[int(folder.name)] = command
        return found

    def number_of(self, name: str) -> int:
        role, number = name.split("-")
        wanted = " worker " if role == "worker" else " server "
        flag = f"--worker={number} " if role == "worker" else ""
        return next(pid for pid, command in self.processes().items() if wanted in command and flag in command)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    launched: list[Launched] = []

    def start(*flags: str) -> Launched:
        launched.append(Launched(tmp_path / f"run-{len(launched)}", *flags))
        return launched[-1]

    yield start
    for one in launched:
        if one.process.poll() is None:
            one.process.kill()
        one.code()
        assert one.process.stdout is not None
        one.process.stdout.close()
        until(lambda one=one: not one.processes())  # type: ignore[misc]


def until(holds: Callable[[], Any]) -> None:
    """Waits for a condition, with a deadline."""
    deadline, pause = time.monotonic() + TIMEOUT_S, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def test_a_job_ends_with_all_its_processes_and_a_table(launch: Callable[..., Launched]) -> None:
    job = launch("--leases=50")
    assert job.code() == 0, job.output
    assert job.processes() == {}
    assert "test accuracy        0.9612" in job.output
    assert f"run                  {job.run_dir}" in job.output
    assert {path.name for path in (job.run_dir / "logs").iterdir()} == {
        "ps-0.log",
        "worker-0.log",
        "worker-1.log",
    }


def test_a_worker_that_dies_is_started_again(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    until(lambda: len(job.processes()) == 3)
    os.kill(job.number_of("worker-1"), signal.SIGKILL)
    job.until("worker-1 was killed by SIGKILL; restarted (1 of 2)")
    until(lambda: len(job.processes()) == 3)
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 0, job.output


def test_a_worker_is_given_up_after_its_restarts_and_the_others_go_on(
    launch: Callable[..., Launched],
) -> None:
    job = launch("--worker-dies=9")
    job.until("worker-1 was killed by SIGKILL; restarted (2 of 2)")
    job.until("worker-1 was killed by SIGKILL, after 2 restarts")
    job.process.send_signal(signal.SIGINT)
    assert job.code() == 0, job.output


def test_workers_that_stop_on_purpose_are_not_restarted_and_say_why(launch: Callable[..., Launched]) -> None:
    job = launch("--worker-exit=3")
    assert job.code() == 1
    assert "restarted" not in job.output
    assert "worker-0 stopped: gradients are not finite: lower --learning-rate" in job.output
    assert "the job failed: no worker is left" in job.output
    assert "  something else was printed after it" in job.lines and "cuda_platform" not in job.output
    assert "test accuracy" not in job.output


def test_a_server_that_dies_fails_the_job(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    os.kill(job.number_of("ps-0"), signal.SIGKILL)
    assert job.code() == 1
    assert "the job failed: ps-0 was killed by SIGKILL" in job.output
    assert job.processes() == {}


def test_a_server_that_does_not_start_is_quoted(launch: Callable[..., Launched]) -> None:
    job = launch("--server-exit=4")
    assert job.code() == 1
    assert "ps-0 exited with status 4 before it announced its address" in job.output
    assert "  the server has a defect" in job.lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_drains(launch: Callable[..., Launched], number: signal.Signals) -> None:
    job = launch()
    job.until("epoch 1/10")
    job.process.send_signal(number)
    assert job.code() == 0, job.output
    assert job.processes() == {}
    assert (job.run_dir / "summary.json").is_file()
    if number != signal.SIGHUP:  # whose terminal is gone
        assert f"drained: the trained model is in {job.run_dir}" in job.output


def test_a_second_signal_stops_at_once(launch: Callable[..., Launched]) -> None:
    job = launch("--ignores-stop=1")
    job.until("epoch 1/10")
    job.process.send_signal(signal.SIGINT)
    job.until("draining")
    job.process.send_signal(signal.SIGINT)
    assert job.code() == 130, job.output
    assert job.processes() == {}


def test_a_job_that_does_not_drain_is_ended_and_fails(launch: Callable[..., Launched]) -> None:
    job = launch("--ignores-stop=1")
    job.until("epoch 1/10")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 1
    assert "the job did not end within" in job.output
    assert job.processes() == {}


def test_nothing_is_left_when_the_launcher_is_killed(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    until(lambda: len(job.processes()) == 3)
    job.process.kill()
    assert job.code() == -signal.SIGKILL
    until(lambda: job.processes() == {})


def test_without_the_kernels_help_the_pipe_ties_a_child_to_its_parent() -> None:
    reading, writing = os.pipe()
    tie = f"from downpour.deploy.launch import child; child.tie_by_pipe({reading}, 9)"
    code = f"{tie}; import signal; print(1, flush=True); signal.pause()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, pass_fds=(reading,), cwd=ROOT, stdout=subprocess.PIPE) as tied:
        os.close(reading)
        assert tied.stdout is not None
        assert tied.stdout.readline() == b"1\n"
        assert tied.poll() is None
        os.close(writing)
        assert tied.wait(TIMEOUT_S) == -signal.SIGKILL


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-I",
        "-S",
        str(ROOT / "deploy" / "launch" / "child.py"),
        "1",
        "9",
        str(reading),
        "/bin/true",
    ]
    done = subprocess.run(command, pass_fds=(reading,), timeout=TIMEOUT_S)
    os.close(reading)
    os.close(writing)
    assert done.returncode == (1 if sys.platform == "linux" else 0)
