"""The scripts of `examples/`, each run with two workers as its first line says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from downpour.bench.lessons import code_of
from tests.support.paths import ROOT
from tests.support.scripts import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLES = ROOT / "examples"
OF_OTHER_FRAMEWORKS = {"numpy_worker.py", "pytorch_worker.py"}  # tests/worker/loops/test_examples.py
OF_TRACKERS = {"trackers.py"}  # test_trackers.py
LEAST = {"mnist_dense.py": 0.92, "mnist_convnet.py": 0.97, "fine_tuning.py": 0.85}  # accuracy on the test data


def last_line(folder: Path, example: str) -> str:
    """Run an example with two workers in a folder, and return the last line that it prints."""
    line = [sys.executable, "-m", "downpour.deploy.cli", "run", "--workers=2", "--seed=0", str(EXAMPLES / example)]
    done = subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def numbers(text: str) -> list[float]:
    """Return the numbers in a line."""
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_every_example_has_a_test() -> None:
    tested = {*LEAST, *OF_OTHER_FRAMEWORKS, *OF_TRACKERS, "gan.py", "training_loop.py"}
    assert {name for name in os.listdir(EXAMPLES) if name.endswith(".py")} == tested


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(tmp_path: Path, notebook: Path) -> None:
    program = "\n\n".join(code_of(notebook))
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_there_are_two_notebooks_that_have_no_output() -> None:
    notebooks = [json.loads(path.read_text()) for path in EXAMPLES.glob("*.ipynb")]
    assert len(notebooks) == 2
    assert not any(cell.get("outputs") for notebook in notebooks for cell in notebook["cells"])


@pytest.mark.parametrize("example", LEAST)
def test_an_example_reaches_its_accuracy(tmp_path: Path, example: str) -> None:
    assert numbers(last_line(tmp_path, example))[-1] >= LEAST[example]


def test_the_generator_of_the_gan_moves_to_the_data(tmp_path: Path) -> None:
    found = numbers(last_line(tmp_path, "gan.py"))[-2:]
    assert abs(found[0] - 3) < 1 and abs(found[1] + 1) < 1, found


def test_the_loop_lowers_the_error(tmp_path: Path) -> None:
    assert numbers(last_line(tmp_path, "training_loop.py"))[-1] < 0.05  # about 0.25 for the mean of the targets
