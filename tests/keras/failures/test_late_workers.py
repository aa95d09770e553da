"""Workers of a script that are killed after a call of `fit`: they go on with what it has left to the others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import command, environment

pytestmark = pytest.mark.slow
REFUSED = "worker 1 must not be started again after call 1 of fit, which is complete"


def finished(folder: Path, *arguments: str, **flags: Any) -> subprocess.CompletedProcess[str]:
    line = command(folder, "late_fits.py", str(folder), *arguments, workers=2, **flags)
    return subprocess.run(line, env=environment(), cwd=folder, capture_output=True, text=True, timeout=250)


@pytest.mark.parametrize(("victim", "where"), [(1, "between"), (0, "between"), (1, "during"), (1, "after")])
def test_a_worker_that_is_started_again_has_what_each_call_has_left_to_the_others(
    tmp_path: Path, victim: int, where: str
) -> None:
    done = finished(tmp_path, str(victim), where, "60")
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"worker-{victim} was killed by SIGKILL; restarted (1 of" in done.stderr
    first, second = (json.loads((tmp_path / f"facts-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second


def test_a_worker_is_refused_where_no_weights_are_kept_and_the_others_go_on(tmp_path: Path) -> None:
    done = finished(tmp_path, "1", "after", "30", checkpoint_every="off")
    assert done.returncode == 0, done.stderr[-4000:]
    assert REFUSED in done.stderr and "--checkpoint-every is off" in done.stderr
    assert (tmp_path / "facts-0.json").exists() and not (tmp_path / "facts-1.json").exists()
