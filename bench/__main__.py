"""Dispatches `downpour bench NAME [flags]`, which is `python -m downpour.bench NAME [flags]`."""

from __future__ import annotations

import importlib
import sys
from typing import NamedTuple


class Bench(NamedTuple):
    """A row of the table of benchmarks."""

    module: str  # below `downpour.bench`, with a function `main`
    line: str  # what it measures, for `downpour bench --help`


BENCHES: dict[str, Bench] = {
    "speedup": Bench("speed.speedup", "samples/s and time to accuracy against the number of workers"),
    "staleness": Bench(
        "training.staleness", "the distribution beside its prediction, and its cost by compensation and mode"
    ),
    "baselines": Bench("training.baselines", "samples/s beside ParameterServerStrategy and Keras's model.fit"),
    "quality": Bench("training.quality", "test accuracy over seeds beside single-process Keras"),
    "course": Bench("training.course", "the course's models, by name, beside single-process Keras"),
    "chaos": Bench("chaos.chaos", "kills processes of a running job and checks that nothing was lost"),
    "checkpoints": Bench("speed.checkpoints", "push-pulls/s with and without checkpoints, in turns"),
    "recording": Bench("speed.recording", "what it costs to keep what `downpour replay` needs"),
    "gradient": Bench("speed.gradient", "a worker's step beside the bare tf.function, plain and through XLA"),
    "modes": Bench("training.modes", "pictures of docs/modes.md, from real runs and in virtual time"),
    "kernels": Bench("speed.kernels", "time of the update rules beside that of a memcpy"),
    "transport": Bench("speed.transport", "push-pulls beside raw echoes, memcpy, and idle and busy workers"),
    "launchers": Bench("speed.launchers", "samples/s of the same job, started by each launcher"),
    "codecs": Bench("speed.codecs", "bytes, time and final loss of each codec"),
}


def main(argv: list[str]) -> int:
    """Runs one bench and returns its exit status."""
    rows = "\n".join(f"  {name:<13}{bench.line}" for name, bench in BENCHES.items())
    usage = f"usage: downpour bench NAME [flags]\n\n{rows}\n\n`downpour bench NAME --help` lists its flags."
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    name, *rest = argv
    if name not in BENCHES:
        print(f"downpour bench: unknown bench {name!r}; benches are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"downpour.bench.{BENCHES[name].module}").main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
