"""The report of `downpour bench transport`: targets, tables and plots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from downpour.protos.sentences.sentence import counted

Results = dict[str, Any]
_UNITS = {"ms": 1e3, "MB": 1e-6, "": 1.0}


def checked(results: Results) -> list[dict[str, Any]]:
    """Return every target with its measured value."""
    sizes, rows = results["sizes"], []

    def row(what: str, value: float, bound: float, holds: Callable[[float, float], bool], unit: str = "") -> None:
        rows.append({"what": what, "value": value, "bound": bound, "unit": unit, "met": bool(holds(value, bound))})

    def at_most(value: float, bound: float) -> bool:
        return value <= bound

    def at_least(value: float, bound: float) -> bool:
        return value >= bound

    small = sizes["318 kB"]
    row("shm push-pull of 318 kB, median", small["seconds"]["shm"]["median"], 0.25e-3, at_most, "ms")
    row("gRPC / shm, 318 kB", small["ratios"]["gRPC / shm"]["median"], 2.5, at_least)
    for name, bound in (("8.9 MB", 4.0), ("102 MB", 5.0)):
        row(f"shm, memcpy passes each way, {name}", sizes[name]["ratios"]["passes each way"]["median"], bound, at_most)
    for name, bound in (("318 kB", 3.5), ("8.9 MB", 3.0), ("102 MB", 1.8)):
        ratios = sizes[name]["ratios"]
        row(
            f"tcp push-pull / (TCP echo + kernel), {name}", ratios["tcp / (TCP echo + kernel)"]["median"], 1.25, at_most
        )
        row(f"gRPC / tcp, {name}", ratios["gRPC / tcp"]["median"], bound, at_least)
        row(f"tcp with TLS / tcp, {name}", ratios["tcp with TLS / tcp"]["median"], 1.6, at_most)
    for name in sizes:
        found = sizes[name]["ratios"]["gRPC / (echo + kernel)"]["median"]
        row(f"gRPC push-pull / (gRPC echo + kernel), {name}", found, 1.15, at_most)
        found = sizes[name]["ratios"]["gRPC / (echo of an array + kernel)"]["median"]
        row(f"gRPC push-pull / (gRPC echo of an array + kernel), {name}", found, 1.15, at_most)
    if "sweep" not in results:
        return rows
    for entry in results["many_workers"]:
        if entry["transport"] == "shm" and entry["compute_s"] and entry["workers"] >= 16:
            ideal = entry["workers"] / entry["compute_s"]
            row(f"{entry['workers']} workers, 50 ms emulated compute, shm: of the ideal rate",
                entry["per_s"] / ideal, 0.9, at_least)  # fmt: skip
    memory = results["memory"]
    row(f"server memory, {memory['workers']} gRPC workers at once", memory["resident_bytes"], memory["bound_bytes"],
        at_most, "MB")  # fmt: skip
    idle = results["idle"]
    row(f"shm push-pull beside {idle[-1]['idle']} idle workers / beside none",
        idle[-1]["shm"]["median"] / idle[0]["shm"]["median"], 1.25, at_most)  # fmt: skip
    for name in ("shm", "gRPC"):
        row(f"{name}: time grows as bytes to the power of, 1 to 85 MB", _power(results["sweep"], name), 1.15, at_most)
    return rows


def _power(sweep: list[dict[str, Any]], name: str) -> float:
    """Return the slope of the times on logarithmic axes, which is 1 if the time is linear in bytes."""
    sizes, times = [row["bytes"] for row in sweep], [row[name]["median"] for row in sweep]
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def table(results: Results) -> str:
    """Return the report in Markdown without the plots."""
    more = [_many_workers(results), _memory(results)] if "sweep" in results else []
    return "\n\n".join([_head(results), _targets(results), _times(results), *more])


def saturation_table(results: Results) -> str:
    """Return the rates of saturated servers in Markdown."""
    lines = ["| payload | transport | push-pulls/s | ms each | ms of the server's CPU each |", "|---|---|---|---|---|"]
    for row in results["saturation"]:
        lines.append(
            f"| {row['size']} | {row['transport']} | {row['per_s']:,.0f} | {1e3 / row['per_s']:.3g} "
            f"| {1e3 * row['server_cpu_s']:.3g} |"
        )
    return "\n\n".join([_head(results), "\n".join(lines)])


def _head(results: Results) -> str:
    machine = results["machine"]
    return (
        f"# Transport\n\n`{results['command']}`: {counted(machine['cores'], 'core')} of {machine['cpu']}, "
        f"{machine['system']}, "
        f"Python {machine['python']}, NumPy {machine['numpy']}, grpcio {machine['grpcio']}; load average "
        f"{results['load_at_start']} at the start, {results['load_at_end']} at the end."
    )


def _targets(results: Results) -> str:
    lines = ["| what | found | target | met |", "|---|---|---|---|"]
    for row in results["targets"]:
        scale, unit = _UNITS[row["unit"]], f" {row['unit']}" if row["unit"] else ""
        lines.append(
            f"| {row['what']} | {scale * row['value']:.3g}{unit} | {scale * row['bound']:.3g}{unit} "
            f"| {'yes' if row['met'] else 'no'} |"
        )
    return "\n".join(lines)


def _times(results: Results) -> str:
    names = list(next(iter(results["sizes"].values()))["seconds"])
    lines = ["Milliseconds, median (quartiles):", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for size, found in results["sizes"].items():
        lines.append(f"| {size} | {' | '.join(_ms(found['seconds'][name]) for name in names)} |")
    for size, found in results["sizes"].items():
        if found["block"] > 1:
            lines.append(f"| {size}, alone | {' | '.join(_ms(found['alone'][name]) for name in names)} |")
    return "\n".join(lines)


def _many_workers(results: Results) -> str:
    lines = ["| workers | emulated compute ms | transport | push-pulls/s | of the ideal | median push-pull ms "
             "| server's processor time for one, ms |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in results["many_workers"]:
        share = f"{row['per_s'] * row['compute_s'] / row['workers']:.2f}" if row["compute_s"] else ""
        lines.append(
            f"| {row['workers']} | {1e3 * row['compute_s']:.0f} | {row['transport']} | {row['per_s']:.0f} | {share} "
            f"| {1e3 * row['median_s']:.2f} | {1e3 * row['server_cpu_s']:.2f} |"
        )
    return "\n".join(lines)


def _memory(results: Results) -> str:
    row = results["memory"]
    return (
        f"Server memory with {row['workers']} workers that push {row['model_bytes'] / 1e6:.0f} MB over gRPC at once: "
        f"{row['resident_bytes'] / 1e6:.0f} MB resident of its own, and {row['shared_bytes'] / 1e6:.0f} MB of shared "
        "memory in which the weights are committed; bound (2 + 2·4) × model + 120 MB = "
        f"{row['bound_bytes'] / 1e6:.0f} MB."
    )


def _ms(spread: dict[str, float]) -> str:
    return f"{1e3 * spread['median']:.3g} ({1e3 * spread['q1']:.3g}–{1e3 * spread['q3']:.3g})"


# ------------------------------------------------------------------------------------------------ plots


def plot(results: Results, folder: Path) -> list[Path]:
    """Plot the results and return the files; without matplotlib there are none."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    paths = []
    for name, draw in (("sizes", _draw_sizes), ("scaling", _draw_scaling)):
        figure, axes = pyplot.subplots(1, 2 if name == "scaling" else 1, figsize=(11, 4.2), layout="constrained")
        draw(results, axes)
        paths.append(folder / f"{name}.svg")
        figure.savefig(paths[-1])
        pyplot.close(figure)
    return paths


def _draw_sizes(results: Results, axes: Any) -> None:
    sizes = results["sizes"]
    names = list(next(iter(sizes.values()))["seconds"])
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        found = [size["seconds"][name] for size in sizes.values()]
        middle = [1e3 * s["median"] for s in found]
        errors = [[m - 1e3 * s["q1"] for m, s in zip(middle, found, strict=True)],
                  [1e3 * s["q3"] - m for m, s in zip(middle, found, strict=True)]]  # fmt: skip
        places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(sizes))]
        axes.bar(places, middle, width, yerr=errors, label=name, capsize=2)
    axes.set(yscale="log", ylabel="ms, median and quartiles", title="One push-pull, beside raw echoes and memcpy")
    axes.set_xticks(range(len(sizes)), list(sizes))
    axes.legend(ncols=3)


def _draw_scaling(results: Results, axes: Any) -> None:
    left, right = axes
    for name in ("shm", "gRPC"):
        megabytes = [row["bytes"] / 1e6 for row in results["sweep"]]
        left.plot(megabytes, [1e3 * row[name]["median"] for row in results["sweep"]], "o-", label=name)
        counts = [row["idle"] for row in results["idle"]]
        right.plot(counts, [1e3 * row[name]["median"] for row in results["idle"]], "o-", label=name)
    left.set(xscale="log", yscale="log", xlabel="payload, MB", ylabel="push-pull, ms", title="Time grows with bytes")
    right.set(xlabel="idle workers", ylabel="push-pull of 318 kB, ms", title="Beside idle workers", ylim=(0, None))
    for one in axes:
        one.legend()
