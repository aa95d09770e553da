"""`python -m downpour.bench.lessons FOLDER…`: executes the lessons, and reports how long each took.

The code cells of a notebook run from top to bottom in a new process, without a notebook server and in a temporary
folder, which receives the runs; a picture is drawn without a window. An assertion that does not hold ends a lesson.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from downpour.bench.module_process import module_environment

LONGEST_S = 120.0


def code_of(notebook: Path) -> list[str]:
    """Return the source of every code cell."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def execute(notebook: Path) -> float:
    """Execute a notebook and return the seconds that it took.

    Raises:
        RuntimeError: A cell has failed; the message ends with its error.
        subprocess.TimeoutExpired: It took longer than `LONGEST_S`.
    """
    begin_s = time.perf_counter()
    command = [sys.executable, "-P", "-c", "\n\n".join(code_of(notebook))]
    environment = {**module_environment(), "MPLBACKEND": "Agg"}
    with tempfile.TemporaryDirectory(prefix="downpour-lesson-") as folder:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    if done.returncode:
        raise RuntimeError(f"every cell of {notebook} must run; one has failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - begin_s


def main(arguments: Sequence[str]) -> int:
    """Execute all lessons of the given folders, and return the exit status."""
    failed = 0
    for notebook in (path for folder in arguments for path in sorted(Path(folder).glob("*.ipynb"))):
        try:
            print(f"{notebook}: {execute(notebook):.1f} s", flush=True)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"{notebook}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
