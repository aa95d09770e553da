"""`downpour bench chaos`: breaks running jobs at random and checks that no update was lost or repeated.

    downpour bench chaos --seed 7 --kills 100 --shards 2
    downpour bench chaos --script --seed 7 --kills 50 --samples 8192

The servers and the launcher are the real ones; the workers compute gradients that identify their samples
(signed_gradients.py). With `--script`, the workers run Keras's `fit` in a script (fit_script.py). From a seed that is
printed, the benchmark kills processes (SIGKILL), stops them for longer than a session (SIGSTOP), and resets their
connections: workers, servers and the launcher. For most kills a push is in flight: the process is stopped first, and
killed if a push waits for it at that moment; sometimes a second process is killed with it. Three in ten kills in a
script are made at any moment: at a barrier, in a callback, while the process starts. Rounds are run until there are
enough kills. After each round, the weights and the traces must show that every slice applied every sample of every
epoch exactly once (with several shards: at most once, and the servers count what a slice did not apply); that the
history is valid (history.py); that the launcher exited with status 0; and that no process and no temporary file is
left. Of a script, also the history and the files of callbacks are checked (script_checks.py).
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from downpour.bench.chaos.settings import ChaosCounts, ChaosSettings
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import parse


def run(settings: ChaosSettings, folder: Path) -> ChaosCounts:
    """Run rounds until there were enough kills, or a fault was found."""
    from downpour.bench.chaos.round import Round  # psutil, which the help of the command does not need

    counts, rng, number = ChaosCounts(), random.Random(settings.seed), 0
    while counts.kills.total() < settings.kills and not counts.faults:
        number += 1
        left = settings.kills - counts.kills.total()
        Round(settings, folder / f"round-{number}", rng, counts).run(left)
        done = ", ".join(f"{count} {role}" for role, count in sorted(counts.kills.items()))
        print(
            f"round {number}: {counts.kills.total()} of {counted(settings.kills, 'kill')} so far ({done})", flush=True
        )
    return counts


def report(settings: ChaosSettings, counts: ChaosCounts) -> str:
    """Return a summary of the disturbances and the findings, as text."""
    killed = ", ".join(f"{count} × {role}" for role, count in sorted(counts.kills.items()))
    total = counts.kills.total()
    lines = [
        f"chaos: seed {settings.seed}, {counted(settings.workers, 'worker')}, {counted(settings.shards, 'shard')}, "
        f"{settings.transport}, "
        f"{settings.mode}",
        f"kills with a push in flight   {total} ({killed}); "
        f"{counted(counts.misses, 'attempt')} found no push in flight",
        f"killed at the same moment     {counted(counts.additional_kills, 'other process', 'other processes')}",
        f"stopped beyond the session    {counts.suspensions}",
        f"connections reset             {counts.connections}, of {counted(counts.resets, 'process', 'processes')}",
        f"jobs resumed                  {counts.resumes}",
        f"samples × epochs checked      {counts.samples:,}",
        f"partial pushes                {counts.partial}",
    ]
    for role, outages_s in counts.outages_s.items():
        if outages_s:
            shown = f"median {sorted(outages_s)[len(outages_s) // 2]:.2f} s, maximum {max(outages_s):.2f} s"
            lines.append(f"time until a push is answered after the {role} was killed: {shown}")
    return "\n".join([*lines, *(f"FAULT: {fault}" for fault in counts.faults)])


def main(argv: Sequence[str]) -> int:
    """Run `downpour bench chaos`; return 1 if a check failed."""
    settings = parse(ChaosSettings, list(argv), "downpour bench chaos")
    print(f"seed {settings.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="downpour-chaos-") as folder:
        counts = run(settings, Path(settings.keep or folder))
        print(report(settings, counts))
    return 1 if counts.faults else 0
