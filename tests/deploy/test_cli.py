"""The commands, their help, and what they refuse before anything starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from downpour.deploy import cli
from tests.support.command_line import TIMEOUT_S, run
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, command in cli.commands().items():
        assert re.search(rf"^  {name} +{command.description}$", said, re.MULTILINE)


def test_without_a_command_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: downpour COMMAND" in capsys.readouterr().err


def test_an_unknown_command_names_the_nearest_one_and_all(capsys: pytest.CaptureFixture[str]) -> None:
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
