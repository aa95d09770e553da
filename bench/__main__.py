"""Runs `downpour bench NAME [flags]`, which is `python -m downpour.bench NAME [flags]`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from downpour.bench.page import write_page
from downpour.protos.sentences.choices import did_you_mean
from downpour.protos.system.command import install_command
from downpour.protos.system.progress import doing


class Bench(NamedTuple):
    """A row of the table of benchmarks."""

    module: str  # name below `downpour.bench`; has a function `main`
    description: str  # one line for `downpour bench --help`
    needs: str = ""  # a package of the extra `bench` that it cannot do without
    plots: bool = False  # whether --out needs matplotlib


BENCHES: dict[str, Bench] = {
    "speedup": Bench("speed.speedup", "samples/s and time to accuracy by the number of workers", plots=True),
    "staleness": Bench(
        "training.staleness", "distribution of the staleness, and its cost for each compensation and mode", plots=True
    ),
    "baselines": Bench("training.baselines", "samples/s compared with ParameterServerStrategy and model.fit"),
    "quality": Bench("training.quality", "test accuracy compared with single-process Keras"),
    "course": Bench("training.course", "the course's models compared with single-process Keras"),
    "chaos": Bench("chaos.chaos", "kills processes of running jobs and checks that no update is lost", needs="psutil"),
    "mutants": Bench("world.mutation", "plants faults in the sources and counts those that simulated jobs find"),
    "checkpoints": Bench("speed.checkpoints", "push-pulls/s with and without checkpoints"),
    "recording": Bench("speed.recording", "cost of recording a run for `downpour replay`"),
    "gradient": Bench("speed.gradient", "a worker's step compared with the plain tf.function, with and without XLA"),
    "modes": Bench(
        "training.modes", "the plots of docs/modes.md, from real runs and in virtual time", needs="matplotlib"
    ),
    "kernels": Bench("speed.kernels", "time of the update rules compared with memcpy", plots=True),
    "transport": Bench(
        "speed.transport", "push-pulls compared with echoes and memcpy, and with many workers", plots=True
    ),
    "dashboard": Bench("speed.dashboard", "what a viewer of the dashboard costs a job, and how fast its page is"),
    "launchers": Bench("speed.launchers", "samples/s of the same job with each launcher"),
    "network": Bench(
        "training.network", "training across network namespaces, by transport, codec and mode (requires root)"
    ),
    "codecs": Bench("speed.codecs", "size, time and final loss of each codec", plots=True),
}


def main(argv: list[str]) -> int:
    """Run a benchmark and return its exit status."""
    rows = "\n".join(wrapped(name, bench.description) for name, bench in BENCHES.items())
    usage = (
        f"usage: downpour bench NAME [flags]\n\nbenchmarks:\n{rows}\n\n`downpour bench NAME --help` lists its flags."
    )
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    name, *rest = argv
    if name not in BENCHES:
        near = did_you_mean(name, BENCHES)
        print(f"downpour bench: unknown benchmark {name}{near}; benchmarks are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    bench = BENCHES[name]
    drawn = bench.plots and any(argument.partition("=")[0] == "--out" for argument in rest)
    package = "matplotlib" if drawn else bench.needs
    if package and not {"-h", "--help"} & set(rest) and importlib.util.find_spec(package) is None:
        print(
            f"downpour bench {name}: {package} must be installed: {install_command('bench')}",
            file=sys.stderr,
        )
        return 2
    module = importlib.import_module(f"downpour.bench.{BENCHES[name].module}")
    with nullcontext() if {"-h", "--help"} & set(rest) else doing(f"downpour bench {name}"):
        status: int = module.main(rest)
    if (out := folder_of(rest)) and status == 0 and (page := write_page(Path(out))):
        print(f"the report is {page}, which opens in a browser without a network", file=sys.stderr)
    return status


def wrapped(name: str, description: str) -> str:
    """Return the lines of a benchmark in the help, which fit a terminal of 80 columns."""
    return textwrap.fill(description, 80, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15)


def folder_of(arguments: Sequence[str]) -> str:
    """Return the value of `--out`; empty if it is not given."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == "--out":
            return value if equals else following
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
