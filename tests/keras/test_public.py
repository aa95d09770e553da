"""Public examples and guides of Keras and of tools around it, small and on drawn data, each with two workers.

`tests/scripts/public/` has one script for each, written like the original; its line RESULT says what it has reached.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.scripts import SCRIPTS, environment

PUBLIC = sorted(path.name for path in (SCRIPTS / "public").glob("*.py"))
LIBRARIES = {  # that a script needs besides Keras, and that the environment need not have
    "tool_keras_tuner.py": "keras_tuner",
    "tool_mlflow_autolog.py": "mlflow",
    "tool_optuna_pruning.py": "optuna",
    "tool_sklearn_wrapper.py": "sklearn",
}
LIMIT_S = 400.0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("script", PUBLIC)
def test_a_public_example_trains_with_two_workers(tmp_path: Path, script: str) -> None:
    library = LIBRARIES.get(script)
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; make tools-test installs it")
    (tmp_path / script).write_text((SCRIPTS / "public" / script).read_text())
    command = [sys.executable, "-m", "downpour", "run", "--workers=2", script]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S)
    output = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, output
    assert "started again" not in done.stderr and "restarted" not in done.stderr, output
    assert any(line.startswith("RESULT") for line in done.stdout.splitlines()), output


def test_the_documentation_has_a_row_for_every_public_example() -> None:
    rows = [line for line in (ROOT / "docs" / "examples.md").read_text().splitlines() if line.startswith("| [")]
    assert sorted(row.split("`")[1] for row in rows) == PUBLIC
