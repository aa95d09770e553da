"""The commands, their help, and what they refuse before anything starts."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy import cli, completion
from downpour.deploy.scripts.script_checks import check_script
from tests.support.command_line import TIMEOUT_S, run
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, command in cli.commands().items():
        assert re.search(rf"^  {name} +{command.description}$", output, re.MULTILINE)


def test_without_a_command_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "usage: downpour COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "nearest"), [("trian", "train"), ("helpp", "help"), ("--verson", "--version"), ("--hlep", "--help")]
)
def test_an_unknown_command_names_the_nearest_one_and_all(
    name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name]) == 2
    output = capsys.readouterr().err
    assert f"did you mean {nearest}?" in output
    assert all(name in output for name in cli.commands())


@pytest.mark.parametrize("command", [(), ("bench",)])
def test_the_lists_of_commands_fit_80_columns(command: tuple[str, ...]) -> None:
    assert max(map(len, run(*command, "--help").stdout.splitlines())) <= 80


@pytest.mark.parametrize(("command", "usage"), [("logs", "[RUN]"), ("job", "ADDRESS ACTION [ARGUMENT]")])
def test_what_may_be_left_out_is_in_brackets(command: str, usage: str) -> None:
    assert f"usage: downpour {command} {usage} [flags]\n" in run(command, "--help").stdout


@pytest.mark.parametrize("command", ["train", "status", "certs"])
def test_help_with_a_command_is_the_help_of_the_command(command: str) -> None:
    asked, flagged = run("help", command), run(command, "--help")
    assert asked.returncode == 0 and asked.stdout == flagged.stdout != ""


def test_an_unknown_benchmark_gets_the_nearest() -> None:
    done = run("bench", "basselines")
    assert done.returncode == 2 and "unknown benchmark basselines (did you mean baselines?)" in done.stderr


@pytest.mark.parametrize("command", [("train",), ("run", "script.py"), ("ps",), ("worker",), ("status", "latest")])
def test_a_variable_that_sets_nothing_is_refused(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOWNPOUR_WORKRS", "3")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "no command has the setting DOWNPOUR_WORKRS (did you mean DOWNPOUR_WORKERS?)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_variables_that_set_something_or_come_from_kubernetes_are_accepted() -> None:
    from downpour.deploy.variables import unknown_variables

    names = ["WORKERS", "workers", "TOKEN", "INSECURE", "KILLS", "RUNS_DIR", "SERVICE_HOST", "PS_PORT_2222_TCP_ADDR"]
    names += ["PS_SERVICE_PORT_GRPC", "PORT"]
    assert unknown_variables({f"DOWNPOUR_{name}": "1" for name in names} | {"OTHER_WORKRS": "1"}) == []
    assert unknown_variables({"DOWNPOUR_WORKRS": ""}) == []  # as if it were not set
    assert unknown_variables({"DOWNPOUR_JSON": "1"}) != []  # --json has no variable


def test_a_flag_after_the_script_is_pointed_out() -> None:
    from downpour.deploy.scripts.script_launcher import own_flags

    assert own_flags(["--workers", "2", "--mode=bsp", "--its-own", "value"]) == ["--workers", "--mode"]


def test_keys_are_not_written_among_other_things(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "results.txt").write_text("")
    done = run("certs", "runs", cwd=tmp_path)
    assert done.returncode == 2
    assert "FOLDER must be new or empty, as it receives keys; runs has results.txt" in done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["results.txt"]


def test_a_dry_run_shows_every_process_and_starts_none(tmp_path: Path) -> None:
    done = run("train", "--dry-run", "--workers=3", "--shards=2", "--optimizer=adam", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert names == ["ps-0", "ps-1", "worker-0", "worker-1", "worker-2"]
    assert "--optimizer=adam" in done.stdout.splitlines()[0] and "--dry-run" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"downpour \S.*\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["train", "status", "ps", "worker"])
def test_the_help_of_a_command_fits_80_columns_and_names_its_flags(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert f"usage: downpour {command}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train", "[flags]"),
        ("run", "[flags] SCRIPT [ARGUMENTS]"),
        ("slurm", "[flags] [SCRIPT [ARGUMENTS]]"),
        ("auto", "[flags] [SCRIPT [ARGUMENTS]]"),
        ("ray", "[flags] [SCRIPT [ARGUMENTS]]"),
        ("status", "ADDRESS [flags]"),
        ("runs", "[flags] | runs compare RUN OTHER | runs remove RUN ..."),
        ("certs", "FOLDER [flags]"),
        ("worker", "[flags]"),
        ("dashboard", "SOURCE [flags]"),
    ],
)
def test_the_help_of_a_command_shows_its_own_arguments_and_flags(command: str, usage: str) -> None:
    done = run(command, "--help")
    output = done.stdout
    assert done.returncode == 0 and max(map(len, output.splitlines())) <= 80
    assert f"usage: downpour {command} {usage}\n" in output
    assert "(default: True)" not in output and "(default: None)" not in output
    flags = re.split(r"\n  (?=--)", re.split(r"\n\nhelp:", output)[0])[1:]
    for name, text in ((re.split("[ ,\n]", each)[0], each) for each in flags):
        variable = re.findall(r"\[DOWNPOUR_([A-Z0-9_]+)\]", re.split(r"\n\n", text)[0])
        assert variable == ([] if name == "--json" else [name[2:].upper().replace("-", "_")]), f"{command} {name}"


def test_the_command_line_is_imported_without_its_commands() -> None:
    code = (
        "import sys, downpour.deploy.cli\n"
        "print(json := [m for m in ('tensorflow', 'grpc', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S)
    assert done.stdout.strip() == "[]", done.stderr


def test_train_and_status_import_neither_tensorflow_nor_what_they_start() -> None:
    code = (
        "import downpour.deploy.launch.launcher, downpour.deploy.view.status, sys\n"
        "names = ('tensorflow', 'keras', 'downpour.ps.server', 'downpour.worker.train.loop')\n"
        "print([m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=TIMEOUT_S)
    assert done.stdout.strip() == "[]", done.stderr


def test_models_and_datasets_are_checked_before_anything_starts(tmp_path: Path) -> None:
    output = run("train", "--model=sigmoid10", "--dataset=mnits", cwd=tmp_path).stderr
    assert "--model must be one of" in output
    assert "(did you mean sigmoid100?), or module:function; received 'sigmoid10'" in output
    assert "(did you mean mnist?), or the path of an .npz file; received 'mnits'" in output
    output = run("train", "--model=nowhere_to_be_found:f", "--dataset=none.npz", cwd=tmp_path).stderr
    assert f"--model must name a module that can be found in {tmp_path}" in output
    assert f"{tmp_path / 'none.npz'} does not exist" in output
    assert list(tmp_path.iterdir()) == []


def arrays(folder: Path, **changed: Any) -> str:
    """Write a small dataset, in which some arrays are replaced, and return its name."""
    x, y = np.ones((8, 4), np.float32), np.zeros(8, np.int64)
    np.savez(folder / "data.npz", **{"x_train": x, "y_train": y, "x_test": x, "y_test": y, **changed})
    return "data.npz"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x_train": np.full((8, 4), np.nan)}, "x_train must be finite"),
        ({"y_test": np.full(8, -1)}, "class numbers from 0"),
        ({"y_train": np.zeros(7, np.int64)}, "one label for each sample"),
        ({"x_test": np.ones((8, 5))}, "one shape and dtype"),
        ({"x_train": np.array([None] * 8)}, "readable and numeric"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_before_anything_starts(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    done = run("train", f"--dataset={arrays(tmp_path, **changed)}", cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["data.npz", "initial.keras", "initial.weights.h5"])
def test_a_damaged_file_is_refused_before_anything_starts(name: str, tmp_path: Path) -> None:
    whole = (tmp_path / arrays(tmp_path)).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    done = run("train", f"--{'dataset' if name == 'data.npz' else 'weights'}={name}", cwd=tmp_path)
    assert done.returncode == 2 and name in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_that_its_module_does_not_define_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(): ...")
    done = run("train", "--model=mine:biuld", cwd=tmp_path)
    assert done.returncode == 2
    assert "--model must name a function that mine defines; its functions are: build" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("source", ["def f(:\n    pass\n", "x = '\n", "return\n", "if x:\ny\n"])
def test_a_script_that_python_cannot_parse_fails_as_with_python_and_starts_nothing(source: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(source)
    done = run("run", "script.py", cwd=tmp_path)
    plain = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing.py", "does not exist"), ("book.ipynb", "is a notebook"), ("folder", "is a folder"),
     ("binary.py", "contains null bytes"), ("/dev/null", "is no regular file")],
)  # fmt: skip
def test_what_is_no_script_is_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "book.ipynb").write_text("{}")
    (tmp_path / "binary.py").write_bytes("x = 1".encode("utf-16"))
    done = run("run", name, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing_here", "No module named nothing_here"),
        ("package.nothing", "No module named package.nothing"),
        ("package.part.nothing", "No module named package.part.nothing"),
        ("package", "package is a package without the module __main__"),
        ("package.wrong", "SyntaxError"),
        ("json.nothing", "No module named json.nothing"),
    ],
)
def test_a_module_that_cannot_be_run_is_refused_before_anything_starts(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    for file, content in {"__init__": "raise SystemExit('imported')", "part": "", "wrong": "def f(:"}.items():
        (tmp_path / "package" / f"{file}.py").write_text(content)
    done = run("run", "-m", name, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and "imported" not in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["script", "package", "package.part", "space.part", "moved.elsewhere", "json.tool"])
def test_a_module_that_can_be_run_is_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("script.py", "package/__init__.py", "package/__main__.py", "package/part.py", "space/part.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "__init__.py").write_text("__path__.append('somewhere')")
    monkeypatch.chdir(tmp_path)
    check_script(["-m", name])


def test_a_folder_for_runs_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("train", "--runs-dir=file", cwd=tmp_path)
    assert done.returncode == 2
    assert "--runs-dir must be a writable folder" in done.stderr


def test_each_flag_of_a_command_has_a_sentence() -> None:
    for source in completion.SETTINGS.values():
        module, _, name = source.partition(":")
        for field, info in getattr(importlib.import_module(module), name).model_fields.items():
            assert re.fullmatch(r"[A-Z].*\.", info.description or "", re.S), f"{name}.{field}: {info.description}"
