"""`downpour bench mutants`: mutation testing of the simulation.

It changes one line at a time in a copy of the sources, and counts the changes that simulated jobs detect.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import Field

from downpour.bench.world.history import HISTORY
from downpour.bench.world.mutants import MUTANTS, Mutant
from downpour.protos.settings import Settings, parse

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("downpour", "protos", "ps", "worker", "deploy", "bench")
SEEDS = "1..20000"
HEADER = "| file | mutant | seconds | finding |\n|---|---|---|---|"
SLOWEST = 20  # limit of the elapsed time, as a multiple of the budget: the machine may be busy


class MutantsSettings(Settings):
    """Plant faults of one line in copies of the sources, and count those that simulated jobs find."""

    budget_s: float = Field(60.0, gt=0, description="Processor time for each mutant, in seconds.")
    only: str = Field("", description="Only mutants whose file or name contains this text.")
    history: bool = Field(False, description="Undo the corrections of past faults instead.")
    report: str = Field("", description="File to which a table of the results is written.")


def mutants(settings: MutantsSettings) -> int:
    """Try every mutant and print which are found; return 0 if all are."""
    missed, rows = [], []
    with tempfile.TemporaryDirectory(prefix="downpour-mutants-") as folder:
        copy = copy_sources(Path(folder))
        for mutant in HISTORY if settings.history else MUTANTS:
            if settings.only not in f"{mutant.file} {mutant.name}":
                continue
            begin = time.perf_counter()
            finding = try_mutant(copy, mutant, settings.budget_s)
            seconds = time.perf_counter() - begin
            print(f"{seconds:6.1f} s  {mutant.file}: {mutant.name}: {finding or 'NOT FOUND'}", flush=True)
            rows.append(f"| `{mutant.file}` | {mutant.name} | {seconds:.0f} | {finding or '**not found**'} |")
            if not finding:
                missed.append(mutant)
    result = f"{len(rows) - len(missed)} of {len(rows)} mutants were found within {settings.budget_s:g} s each"
    print(result)
    if settings.report:
        Path(settings.report).write_text("\n".join([HEADER, *rows, "", f"{result}.", ""]))
    return 1 if missed else 0


def copy_sources(folder: Path) -> Path:
    """Copy the sources to a folder, which can be the only entry of PYTHONPATH, and return it."""
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.npz")
        )
    return folder


def try_mutant(copy: Path, mutant: Mutant, budget_s: float) -> str:
    """Run jobs with a mutant until one fails; return the first line of the failure, or an empty string."""
    path = copy / mutant.file
    original = path.read_text()
    path.write_text(planted(original, mutant))
    command = [
        sys.executable, "-P", "-m", "downpour.bench.world.simulate_job", f"--seeds={SEEDS}", f"--budget-s={budget_s}",
        "--processes=1", "--stop",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=copy, capture_output=True, text=True, timeout=SLOWEST * budget_s
        )
    except subprocess.TimeoutExpired:
        return "a job does not end"
    finally:
        path.write_text(original)
    if done.returncode == 0:
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines() or ["no output"]
    return lines[0] if done.stdout else lines[-1]


def planted(source: str, mutant: Mutant) -> str:
    """Return the text of a source file with a mutant.

    Raises:
        ValueError: The line of the mutant does not occur exactly once.
    """
    if source.count(mutant.before) != 1:
        raise ValueError(
            f"the text of a mutant must occur once in {mutant.file}; {mutant.before!r} occurs "
            f"{source.count(mutant.before)} times. Update bench/world/mutants.py."
        )
    return source.replace(mutant.before, mutant.after)


def main(argv: list[str]) -> int:
    """Run the command with its flags, and return its exit status."""
    return mutants(parse(MutantsSettings, argv, "downpour bench mutants"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
