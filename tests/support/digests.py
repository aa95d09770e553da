"""The digests of a few simulated jobs, which are equal on all machines.

After a change of the simulator or of the program that is simulated, record them anew and commit the file:

    .venv/bin/python -m tests.support.digests
"""

from __future__ import annotations

import json
import sys

from downpour.bench.world.job import run_job
from downpour.bench.world.seeded_job import COMMAND, SimulateJobSettings, shape_of
from downpour.protos.settings import parse
from tests.support.paths import ROOT

FILE = ROOT / "tests" / "bench" / "world" / "digests.json"
RECORD = ".venv/bin/python -m tests.support.digests"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"  # asyncio's callbacks are events, and differ between versions
JOBS = (
    "--seed=1 --faults=none",
    "--seed=2 --shards=2 --workers=3 --mode=softsync:2 --faults=kill,reset --count=2",
    "--seed=3 --shards=3 --workers=3 --mode=bsp --faults=cut,kill --count=2",
    "--seed=4 --profile=power --faults=auto",
    "--seed=7 --mode=localsgd:2 --workers=2 --faults=stop,lose --count=2",
)


def measured() -> dict[str, str]:
    """Return the digest of every job, by its flags."""
    found = {}
    for flags in JOBS:
        settings = parse(SimulateJobSettings, flags.split(), COMMAND)
        seed = settings.seed or 1
        result = run_job(seed, shape_of(seed, settings), keep_journal=False)
        found[flags] = f"{result.digest:08x} after {result.events} events"
    return found


def record() -> None:
    """Write the digests of this version of the program."""
    FILE.write_text(json.dumps({"python": PYTHON, "digests": measured()}, indent=2) + "\n")


if __name__ == "__main__":
    record()
