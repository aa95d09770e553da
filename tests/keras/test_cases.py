"""Scripts after public reports of bugs: each ends as with plain Keras, or is refused where the script allows it.

`tests/scripts/cases/` has one script for each; its docstring says what must hold, and its line RESULT says that it did.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import SCRIPTS, environment

CASES = sorted(path.name for path in (SCRIPTS / "cases").glob("*.py"))
WITHOUT_CLUSTER = ["notebook_lambda.py"]  # it starts clusters of its own
CLUSTERS = {
    "two workers": ("--workers=2",),
    "four workers": ("--workers=4",),
    "two shards": ("--workers=2", "--shards=2"),
    "bsp": ("--workers=2", "--mode=bsp"),
    "gRPC": ("--workers=2", "--transport=grpc"),
}
LIMIT_S = 240.0
pytestmark = [pytest.mark.slow, pytest.mark.cases, pytest.mark.timeout(600)]


def result(folder: Path, case: str, *flags: str) -> str:
    """Run a case in an empty folder, with `downpour run` if there are flags, and return its line RESULT."""
    folder.mkdir()
    script = folder / case
    script.write_text((SCRIPTS / "cases" / case).read_text())
    command = ["-m", "downpour", "run", *flags, case] if flags else [case]
    clean = {name: value for name, value in environment().items() if name != "PYTHONHASHSEED"}
    done = subprocess.run(
        [sys.executable, *command], env=clean, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
    )
    output = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, output
    assert "started again" not in done.stderr, output
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results, output
    return results[-1]


@pytest.mark.parametrize("case", CASES)
def test_a_case_trains_with_plain_keras(tmp_path: Path, case: str) -> None:
    assert "refused" not in result(tmp_path / "plain", case) or case in WITHOUT_CLUSTER


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("case", [case for case in CASES if case not in WITHOUT_CLUSTER])
def test_a_case_trains_or_is_refused(tmp_path: Path, case: str, cluster: str) -> None:
    result(tmp_path / "case", case, *CLUSTERS[cluster])


@pytest.mark.parametrize(("case", "moved"), [("own_accumulation.py", -1.6), ("uneven_accumulation.py", -3.0)])
def test_three_workers_that_add_up_gradients_make_the_updates_of_one(tmp_path: Path, case: str, moved: float) -> None:
    assert float(result(tmp_path / "case", case, "--workers=3").split()[1]) == pytest.approx(moved, abs=1e-4)
