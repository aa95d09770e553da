"""Nothing of TensorFlow's log reaches a person who has not asked for it, and everything else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795823972.365573   17501 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795823996.429277   17979 cuda_platform.cc:52] failed call to cuInit",
    "a warning of another library",
]
WRITE = f"""
import os
from downpour.worker.quiet_tensorflow import tensorflow_log_filtered
with tensorflow_log_filtered():
    os.write(2, {chr(10).join(LINES).encode() + b"%c" % 10!r})
"""


def run(code: str, folder: Path, **variables: str) -> str:
    """Return what a program writes to its standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DOWNPOUR_", "TF_CPP"))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**clean, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stderr


def test_only_lines_of_tensorflow_are_removed(tmp_path: Path) -> None:
    assert run(WRITE, tmp_path).splitlines() == LINES[-1:]


@pytest.mark.parametrize("level", ["0", "1"])
def test_who_asks_for_the_log_receives_it(tmp_path: Path, level: str) -> None:
    assert run(WRITE, tmp_path, TF_CPP_MIN_LOG_LEVEL=level).splitlines() == LINES


def test_an_error_within_the_block_keeps_what_was_written(tmp_path: Path) -> None:
    code = WRITE.replace("import os\n", "import os, atexit\n") + "    import no_such_package\n"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(code, tmp_path)
    assert "a warning of another library" in caught.value.stderr and "no_such_package" in caught.value.stderr


@pytest.mark.slow
def test_the_commands_that_load_tensorflow_are_quiet(tmp_path: Path) -> None:
    """A small run, its evaluation, its export and its replay; the logs of its processes are quiet as well."""
    commands = (
        ("train", "--model=xor_mlp_relu", "--epochs=1", "--workers=1", "--record=on"),
        ("evaluate", "latest"),
        ("export", "latest"),
        ("replay", "latest"),
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "downpour.deploy.cli", *command], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "0000 00:00" not in done.stdout + done.stderr, command
    for log in (tmp_path / "runs" / "latest" / "logs").iterdir():
        assert "0000 00:00" not in log.read_text(), log
