"""`python -m tests.support.compat [NAME …]`: tests of compatibility with each version of TensorFlow, Keras and Python.

Each row has an environment of its own in `.venv-compat/`; the lowest Keras is the one that TensorFlow asks for. Rows of
an interpreter that this machine lacks are reported as absent. A name such as `tf2.20-lowest-py3.11` selects a row.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

ENVIRONMENTS = ROOT / ".venv-compat"
TENSORFLOW, KERAS, PYTHONS = ("2.20", "2.21"), ("lowest", "newest"), ("3.11", "3.12", "3.13")
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "psutil", "pyyaml")
TESTS = ("tests/worker/fit", "tests/worker/compute", "tests/worker/train", "tests/worker/catalog")
LOWEST = """
import importlib.metadata, re
print(re.findall("keras>=([0-9.]+)", " ".join(importlib.metadata.requires("tensorflow")))[0])
"""
VERSIONS = "from importlib.metadata import version as v; print(v('tensorflow'), v('keras'), v('numpy'), v('protobuf'))"


class Row(NamedTuple):
    """One combination of versions."""

    tensorflow: str
    keras: str  # lowest or newest
    python: str

    @property
    def name(self) -> str:
        """The name, which is that of its environment."""
        return f"tf{self.tensorflow}-{self.keras}-py{self.python}"


def rows() -> Iterator[Row]:
    """Yield all combinations."""
    for python in PYTHONS:
        for tensorflow in TENSORFLOW:
            for keras in KERAS:
                yield Row(tensorflow, keras, python)


def run(*command: str | Path) -> str:
    """Run a command and return its output.

    Raises:
        RuntimeError: It has failed; the message has the end of its output.
    """
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-3000:])
    return done.stdout


def interpreter_of(version: str, home: Path | None = None) -> str | None:
    """Return an interpreter of a version that works, on the path or installed by pyenv; None if there is none.

    A name on the path may be a placeholder of pyenv for a version that is installed and not selected.
    """
    root = Path(os.environ.get("PYENV_ROOT") or (home or Path.home()) / ".pyenv") / "versions"
    installed = sorted(map(str, root.glob(f"{version}*/bin/python{version}")))
    for path in filter(None, (shutil.which(f"python{version}"), *installed)):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def prepared(row: Row, interpreter: str) -> Path:
    """Return the interpreter of the environment of a row, which is created if it is missing."""
    python = ENVIRONMENTS / row.name / "bin" / "python"
    if not (ENVIRONMENTS / row.name / "done").exists():
        run(interpreter, "-m", "venv", "--clear", ENVIRONMENTS / row.name)
        install = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
        run(*install, f"tensorflow=={row.tensorflow}.*", "-e", ".[worker]", *TOOLS)
        wanted = f"keras=={run(python, '-c', LOWEST).strip()}" if row.keras == "lowest" else "keras>=3"
        run(*install, "--upgrade", wanted)
        (ENVIRONMENTS / row.name / "done").touch()
    return python


def examined(row: Row) -> str:
    """Run the tests of a row, and return the result as one line.

    Raises:
        RuntimeError: The environment cannot be created, or a test has failed.
    """
    interpreter = interpreter_of(row.python)
    if interpreter is None:
        return "absent: this machine has no such interpreter"
    python = prepared(row, interpreter)
    versions = run(python, "-c", VERSIONS).split()
    output = run(python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *TESTS)
    passed = re.findall(r"\d+ passed", output)[-1]
    run(python, "-P", "-m", "downpour", "train", "--workers=2", "--epochs=1", f"--runs-dir={ENVIRONMENTS / 'runs'}")
    named = zip(("tensorflow", "keras", "numpy", "protobuf"), versions, strict=True)
    return f"ok: {passed}, and training; " + ", ".join(f"{name} {version}" for name, version in named)


def main(names: Sequence[str]) -> int:
    """Examine the rows with these names, or all, and return the exit status."""
    failed = 0
    for row in rows():
        if names and row.name not in names:
            continue
        try:
            print(f"{row.name:<22}{examined(row)}", flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{row.name:<22}failed: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
