"""Breaks a running job again and again, for real, and checks that nothing was lost: `downpour bench chaos`.

    downpour bench chaos --seed 7 --kills 100 --shards 2

Real servers and a real launcher; workers whose gradients sign for their samples (marks.py). From a seed that is
printed, processes are killed (SIGKILL) or stopped for longer than a session (SIGSTOP), and their connections reset:
those of workers, servers and the launcher. Only kills that hit while a push was in flight are counted: the process is
stopped first, and killed if a push waits for it then; sometimes another one dies with it. Rounds are run until there
are enough; after each, weights and traces must tell that every sample of every epoch was applied to every slice
exactly once (on several shards: at most once, and what some slice lacks is counted by the servers), that the history
is possible (history.py), that the launcher's exit status is 0 and that no process and no temporary file is left.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from downpour.bench.chaos.marks import MOST_EPOCHS
from downpour.bench.chaos.round import EPOCHS, ChaosSettings, Round, Tally
from downpour.protos.settings import parse


def run(settings: ChaosSettings, folder: Path) -> Tally:
    """Runs rounds until there were enough kills, or a fault."""
    tally, dice, number = Tally(), random.Random(settings.seed), 0
    while tally.kills.total() < settings.kills and not tally.faults:
        number += 1
        left = settings.kills - tally.kills.total()
        Round(settings, folder / f"round-{number}", dice, tally).run(left)
        done = ", ".join(f"{count} {role}" for role, count in sorted(tally.kills.items()))
        print(f"round {number}: {tally.kills.total()} of {settings.kills} kills so far ({done})", flush=True)
    return tally


def report(settings: ChaosSettings, tally: Tally) -> str:
    """What was done and found, for a person."""
    killed = ", ".join(f"{count} × {role}" for role, count in sorted(tally.kills.items()))
    lines = [
        f"chaos: seed {settings.seed}, {settings.workers} workers, {settings.shards} shards, {settings.transport}, "
        f"{settings.mode}",
        f"kills with a push in flight   {tally.kills.total()} ({killed}); {tally.misses} attempts found none in flight",
        f"killed at the same moment     {tally.more} others",
        f"stopped beyond the session    {tally.stops}",
        f"connections reset             {tally.connections}, of {tally.resets} processes",
        f"jobs resumed                  {tally.resumes}",
        f"samples × epochs checked      {tally.samples:,}",
        f"partial pushes                {tally.partial}",
    ]
    for role, outages_s in tally.outages_s.items():
        if outages_s:
            shown = f"median {sorted(outages_s)[len(outages_s) // 2]:.2f} s, most {max(outages_s):.2f} s"
            lines.append(f"until a push is answered after the death of a {role}: {shown}")
    return "\n".join([*lines, *(f"FAULT: {fault}" for fault in tally.faults)])


def main(argv: Sequence[str]) -> int:
    """`downpour bench chaos`; returns 1 if anything was lost."""
    assert EPOCHS <= MOST_EPOCHS
    settings = parse(ChaosSettings, list(argv), "downpour bench chaos")
    print(f"seed {settings.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="downpour-chaos-") as folder:
        tally = run(settings, Path(settings.keep or folder))
        print(report(settings, tally))
    return 1 if tally.faults else 0
