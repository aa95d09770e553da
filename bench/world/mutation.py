"""`downpour bench mutants`: mutation testing of the simulation.

It changes one line at a time in a copy of the sources, and counts the changes that simulated jobs detect.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from downpour.bench.world.history import HISTORY
from downpour.bench.world.mutants import MUTANTS, Mutant
from downpour.protos.settings import Settings, parse

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("downpour", "protos", "ps", "worker", "deploy", "bench")
SEEDS = "1..20000"
HEADER = "| file | mutant | processor time in s | finding |\n|---|---|---|---|"
NOT_FOUND, MOST_CHARACTERS = "**not found**", 160
SLOWEST = 20  # limit of the elapsed time, as a multiple of the budget: the machine may be busy


class MutantsSettings(Settings):
    """Plant faults of one line in copies of the sources, and count those that simulated jobs find."""

    budget_s: float = Field(60.0, gt=0, description="Processor time for each mutant, in seconds.")
    only: str = Field("", description="Only mutants whose file or name contains this text.")
    history: bool = Field(False, description="Undo the corrections of past faults instead.")
    report: str = Field(
        "", description="File to which a table of the results is written. Results of other mutants in it are kept."
    )


def mutants(settings: MutantsSettings) -> int:
    """Try every mutant and print which are found; return 0 if all are."""
    results: dict[str, tuple[float, str]] = {}
    planted = HISTORY if settings.history else MUTANTS
    with tempfile.TemporaryDirectory(prefix="downpour-mutants-") as folder:
        copy = copy_sources(Path(folder))
        for mutant in planted:
            if settings.only not in f"{mutant.file} {mutant.name}":
                continue
            before = _children_s()
            finding = try_mutant(copy, mutant, settings.budget_s)
            seconds = _children_s() - before
            print(f"{seconds:6.1f} s  {mutant.file}: {mutant.name}: {finding or 'NOT FOUND'}", flush=True)
            results[mutant.name] = seconds, finding
            if settings.report:
                update_report(Path(settings.report), planted, mutant, seconds, finding)
    found = sum(bool(finding) for _, finding in results.values())
    print(f"{found} of {len(results)} mutants were found within {settings.budget_s:g} s of processor time each")
    return 0 if found == len(results) else 1


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def update_report(path: Path, planted: Sequence[Mutant], mutant: Mutant, seconds: float, finding: str) -> None:
    """Write the result of a mutant to a table, in place of its earlier one; rows of unknown mutants are removed."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = {line.split(" | ")[1]: line for line in lines if line.startswith("| `")}
    finding = finding.replace("|", "/")[:MOST_CHARACTERS] or NOT_FOUND
    rows[mutant.name] = f"| `{mutant.file}` | {mutant.name} | {seconds:.0f} | {finding} |"
    known = [rows[each.name] for each in planted if each.name in rows]
    missed = sum(row.endswith(f"| {NOT_FOUND} |") for row in known)
    total = f"{len(known) - missed} of the {len(known)} mutants that were tried were found."
    path.write_text("\n".join([HEADER, *known, "", total, ""]))


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
