"""What pyproject.toml, the Makefile and the package data promise."""

import re
import subprocess
import tomllib

import pytest
from setuptools import find_packages

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SIDES = {"protos", "ps", "worker", "deploy", "bench"}


def test_every_folder_of_code_is_a_listed_package():
    listed = find_packages(str(ROOT), **PROJECT["tool"]["setuptools"]["packages"]["find"])
    folders = {str(file.parent.relative_to(ROOT)) for side in SIDES for file in (ROOT / side).rglob("*.py")}
    assert sorted(listed) == sorted(["downpour", *(f"downpour.{folder.replace('/', '.')}" for folder in folders)])


def test_every_data_file_that_is_listed_exists():
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: {pattern}"


def test_the_server_needs_no_tensorflow():
    names = {re.split(r"[<>=]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert "grpcio" in names and not names & {"tensorflow", "keras"}
    assert any(line.startswith("tensorflow") for line in PROJECT["project"]["optional-dependencies"]["worker"])


def test_dependencies_are_not_below_the_guards_of_the_stubs():
    (grpcio,) = re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", _read("protos/parameter_server_pb2_grpc.py"))
    (protobuf,) = re.findall(r"(?m)^# Protobuf Python Version: ([\d.]+)$", _read("protos/parameter_server_pb2.py"))
    floors = dict(re.findall(r"(?m)^([\w-]+)>=([\d.]+)", "\n".join(PROJECT["project"]["dependencies"])))
    assert floors["grpcio"] == floors["grpcio-health-checking"] == grpcio
    assert floors["protobuf"] == protobuf
    assert f"grpcio-tools=={grpcio}" in PROJECT["project"]["optional-dependencies"]["dev"]


def test_python_is_bounded_as_tensorflow_is():
    # TensorFlow 2.20 and 2.21 have wheels for CPython 3.11 to 3.13, among those from 3.11.
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_setup_refuses_an_interpreter_that_tensorflow_has_no_wheels_for(tmp_path, version):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version}.0\nexit 1\n')
    python.chmod(0o755)
    tree = tmp_path / "tree"
    (tree / "deploy").mkdir(parents=True)
    for file in ("pyproject.toml", "deploy/setup.sh"):
        (tree / file).write_text(_read(file))
    done = subprocess.run(
        ["sh", tree / "deploy/setup.sh", "worker"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "must be an interpreter with version >=3.11,<3.14" in done.stderr
    assert f"{python} (Python {version}.0)" in done.stderr
    assert not (tree / ".venv").exists()


def test_the_entry_point_exists():
    module, function = PROJECT["project"]["scripts"]["downpour"].split(":")
    assert f"def {function}(" in _read(f"{module.replace('.', '/')}.py")


def test_the_check_is_make_test():
    assert "make test" in _read(".ci/run")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def _read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize(("with_uv", "fails"), [(False, False), (False, True), (True, False)])
def test_setup_shows_what_it_installs(tmp_path, with_uv, fails):
    """An interpreter and a `uv` that only print stand in for those that install."""
    script = f'echo "Collecting x"; echo "  Downloading x.whl (9 MB)"; echo "$0 $*"; exit {int(fails)}'
    python = tmp_path / "tree" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ncase "$*" in *install*) {script};; esac\nexit 0\n')
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text(f"#!/bin/sh\n{script}\n")
    for file in (python, *([uv] if with_uv else [])):
        file.chmod(0o755)
    (tmp_path / "tree" / "deploy").mkdir()
    for name in ("pyproject.toml", "deploy/setup.sh"):
        (tmp_path / "tree" / name).write_text(_read(name))
    done = subprocess.run(
        ["sh", tmp_path / "tree" / "deploy" / "setup.sh", "worker"],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "setup: downloading x.whl (9 MB)" in done.stderr and "Collecting" not in done.stderr.split("setup: down")[0]
    assert done.returncode == int(fails) and (tmp_path / "tree" / ".venv" / "worker.stamp").exists() != fails
    if fails:
        assert "could not be installed" in done.stderr and ("pip install" in done.stderr) != with_uv
