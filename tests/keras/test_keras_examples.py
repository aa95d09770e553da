"""Scripts as the public examples of Keras are written, with only the optimizer's line changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import MNIST, SCRIPTS, command, environment

# As `downpour run --seed` does in every worker: initial weights, shuffles and Dropout are the same in each run. With
# servers, only the order of the workers' pushes differs.
SEED = 1
SEEDED = """
import runpy, sys, keras
keras.utils.set_random_seed(int(sys.argv[1]))
sys.argv[:2] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLES = {
    "example_convnet.py": ((str(MNIST),), (0.85,)),
    "example_text.py": ((), (0.8, 0.75)),
    "example_table.py": ((), (0.9,)),
}


def accuracies(line: list[str], folder: Path) -> list[float]:
    done = subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [float(found) for found in re.findall(r"^ACCURACY (\S+)", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("script", EXAMPLES)
def test_an_example_learns_alone_and_with_servers(tmp_path: Path, script: str) -> None:
    arguments, least = EXAMPLES[script]
    alone = accuracies([sys.executable, "-c", SEEDED, str(SEED), str(SCRIPTS / script), *arguments], tmp_path)
    ours = accuracies(command(tmp_path, script, *arguments, workers=2, seed=SEED), tmp_path)
    assert len(alone) == len(ours) == len(least)
    for found, other, lowest in zip(ours, alone, least, strict=True):
        assert min(found, other) > lowest and found > other - 0.06, (script, alone, ours)
