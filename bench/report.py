"""Writes the report of a benchmark: `results.json`, plots, and a `report.md` that includes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from downpour.bench.machine import facts, load
from downpour.protos.sentences.sentence import counted
from downpour.protos.system.json_text import json_text

Draw = Callable[[Any], None]


def results_header(name: str, argv: list[str]) -> dict[str, Any]:
    """Return the first entries of a benchmark's results: the command and the machine."""
    return {
        "benchmark": name,
        "command": " ".join([f"downpour bench {name}", *argv]),
        "machine": facts(),
        "load_at_start": load(),
    }


def head(results: Mapping[str, Any], title: str) -> str:
    """Return title, command and machine in Markdown."""
    machine = results["machine"]
    return (
        f"# {title}\n\n`{results['command']}`: {counted(machine['cores'], 'core')} of {machine['cpu']}, "
        f"{machine['system']}, "
        f"Python {machine['python']}, NumPy {machine['numpy']}, TensorFlow {machine['tensorflow']}, "
        f"grpcio {machine['grpcio']}; load average {results['load_at_start']} at the start, "
        f"{results.get('load_at_end', '?')} at the end."
    )


def writable(value: str | None) -> str | None:
    """Return the value of `--json` if the file can be written when the run has ended; used as a validator.

    Raises:
        ValueError: The value is a folder, or its folder does not exist.
    """
    if value not in (None, "-") and (not Path(value).parent.is_dir() or Path(value).is_dir()):
        raise ValueError("must be - or a file in an existing folder")
    return value


def rows(names: list[str], lines: list[list[str]]) -> str:
    """Return a table in Markdown."""
    table = [names, ["---"] * len(names), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def write(folder: Path, results: Mapping[str, Any], text: str, plots: Mapping[str, Draw], how: str) -> None:
    """Write `results.json`, the plots and `report.md` into a folder.

    Args:
        folder: The folder of the report, which is created.
        results: The content of `results.json`.
        text: The report without plots.
        plots: Functions that draw on a matplotlib figure, by name.
        how: The description of the method, for the end of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json_text(results, indent=2) + "\n")
    shown = "\n\n".join(f"![{name}]({name}.svg)" for name in _drawn(folder, plots))
    (folder / "report.md").write_text(f"{text}\n\n{shown}\n\n## Method\n\n{how.strip()}\n")


def _drawn(folder: Path, plots: Mapping[str, Draw]) -> list[str]:
    if not plots:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, draw in plots.items():
        figure = pyplot.figure(figsize=(11, 4.4), layout="constrained")
        draw(figure)
        figure.savefig(folder / f"{name}.svg")
        figure.savefig(folder / f"{name}.png", dpi=80)
        pyplot.close(figure)
    return list(plots)
