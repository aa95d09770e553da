"""The wheel and the source distribution install into an empty environment, which can then serve and train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SDIST = "from setuptools.build_meta import build_sdist; print(build_sdist('dist'))"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command in an environment without variables of Python, and return its output."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DOWNPOUR_", "VIRTUAL"))
    }
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both, built from a clone as `make dist` builds them."""
    clone = tmp_path_factory.mktemp("dist") / "clone"
    run("git", "clone", "--quiet", ROOT, clone, cwd=clone.parent)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=clone)
    run(sys.executable, "-c", SDIST, cwd=clone)
    return clone / "dist"


def environment_with(what: str, folder: Path) -> Path:
    """Return the folder of the programs of a new environment in which a distribution is installed."""
    run(sys.executable, "-m", "venv", "env", cwd=folder)
    run("env/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", what, cwd=folder)
    return folder / "env" / "bin"


def test_a_server_is_installed_from_the_source_distribution(dist: Path, tmp_path: Path) -> None:
    (archive,) = dist.glob("downpour_ps-*.tar.gz")
    programs = environment_with(str(archive), tmp_path)
    assert "usage: downpour ps" in run(programs / "downpour", "ps", "--help", cwd=tmp_path)
    found = json.loads(run(programs / "pip", "list", "--format=json", cwd=tmp_path))
    assert not {"tensorflow", "keras", "matplotlib"} & {each["name"] for each in found}
    where = run(programs / "python", "-c", "import downpour; print(downpour.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path / "env"))


def test_a_worker_is_installed_from_the_wheel_and_trains(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("downpour_ps-*.whl")
    programs = environment_with(f"{wheel}[worker]", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    run(programs / "downpour", "train", "--workers=1", "--epochs=1", cwd=empty)
    summary = json.loads((empty / "runs" / "latest" / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.8 and summary["command"].startswith("downpour train --workers=1")
    assert summary["started"].endswith("+00:00")
