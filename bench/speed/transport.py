"""`downpour bench transport`: compares push-pulls with the limits of the machine, all measured in turns.

A push-pull sends a gradient, applies it (plain SGD, after a check that it is finite) and returns the new weights.

- `memcpy`: one copy of the payload in memory. *Passes each way* is the time of a push-pull divided by that of two
  copies.
- `kernel`: the check and the update alone, on one thread.
- `unix echo`, `TCP echo`, `gRPC echo`: the payload is sent to another process and back. The gRPC echo uses the options
  and the message size of the project's stream; its messages are created in advance and not joined at the end.
  `gRPC echo of an array` does both in its client, as is necessary if the payload is an array.
- `shm`, `tcp`, `gRPC`: the project's push-pull with a real server, with `--transport shm` (which `auto` selects on one
  host), `--transport tcp`, with TLS as well, and `--transport grpc`.

Payloads of 318 kB are sent in blocks of 25 consecutive calls, of which the median is used; *alone* is the time of
single calls, which find cold caches and sleeping processes. Larger payloads, which fit in no cache, are sent one by
one. Ratios are computed within one round, and their median is reported. With idle workers, three servers (one with
`--quick`) are measured for each point and the fastest is shown, because some servers take twice as long for their
whole lifetime, with and without idle workers; results.json contains the medians of all. With many workers, every worker
is a process that sleeps instead of computing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from downpour.bench.comparison import spread
from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts, load
from downpour.bench.numpy_worker import NumpyWorker, running_server
from downpour.bench.speed.echo import grpc_echo, tcp_echo, unix_echo
from downpour.bench.speed.many_workers import idle, push_pulls
from downpour.bench.speed.secured import certificates, identity
from downpour.bench.speed.transport_report import checked, plot, saturation_table, table
from downpour.protos.system.progress import tracked
from downpour.ps.core.optimizer import Optimizer
from downpour.ps.core.rules.hyperparameters import Hyperparameters

FLOATS = {"318 kB": 79_510, "8.9 MB": 2_225_000, "102 MB": 25_500_000}
ROUNDS = {"318 kB": (20, 60), "8.9 MB": (20, 100), "102 MB": (4, 15)}  # quick, full
BLOCK = {"318 kB": 25}  # calls of a round, else 1
SWEEP = (262_144, 786_432, 2_359_296, 7_077_888, 21_233_664)  # floats: 1 to 85 MB
RATE = "1e-6"
SATURATING = 4  # workers that compute nothing


def main(argv: list[str]) -> int:
    """Measure, print the tables, and write `results.json`, `report.md` and the plots if requested."""
    parser = FlagParser(prog="downpour bench transport", description="Compare push-pulls with echoes and memcpy.")
    parser.add_argument("--quick", action="store_true", help="Make few rounds, with at most 16 workers.")
    parser.add_argument(
        "--only-sizes", action="store_true", help="Measure one worker on each transport, and nothing else."
    )
    parser.add_argument(
        "--saturation", action="store_true",
        help="Measure only how many push-pulls a server completes that four workers keep busy, by size and transport.",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="Folder for results.json, report.md, report.html and plots."
    )
    flags = parser.parse_args(argv)
    results: dict[str, Any] = {
        "benchmark": "transport",
        "command": " ".join(["downpour bench transport", *argv]),
        "machine": facts(),
        "load_at_start": load(),
        "sizes": {},
    }
    if flags.saturation:
        return _saturation(results, flags)
    for name, floats in tracked(FLOATS.items(), "sizes of the payload"):
        results["sizes"][name] = side_by_side(floats, ROUNDS[name][not flags.quick], BLOCK.get(name, 1))
    if not flags.only_sizes:
        results["sweep"] = sweep(3 if flags.quick else 9)
        results["idle"] = beside_idle((0, 16), 200, 1) if flags.quick else beside_idle((0, 16, 64, 256), 1000, 3)
        results["many_workers"] = many_workers(flags.quick)
        results["memory"] = held_memory(8 if flags.quick else 16)
    results["load_at_end"] = load()
    results["targets"] = checked(results)
    print(table(results))
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        pictures = [] if flags.only_sizes else plot(results, flags.out)
        shown = "\n".join(f"![{path.stem}]({path.name})" for path in pictures)
        (flags.out / "report.md").write_text(f"{table(results)}\n\n{shown}\n\n## How\n\n{__doc__}")
    return 0


def _saturation(results: dict[str, Any], flags: argparse.Namespace) -> int:
    """Measure the rate of a server whose queue is never empty, for each size and transport."""
    seconds = 2.0 if flags.quick else 5.0
    results["saturation"] = [
        {"size": name, **push_pulls(SATURATING, floats, transport, 0.0, seconds)}
        for name, floats in tracked(FLOATS.items(), "sizes of the payload")
        for transport in ("shm", "tcp", "grpc")
    ]
    results["load_at_end"] = load()
    text = saturation_table(results)
    print(text)
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (flags.out / "report.md").write_text(f"{text}\n\n## How\n\n{__doc__}")
    return 0


def side_by_side(floats: int, rounds: int, block: int) -> dict[str, Any]:
    """Return the spreads of all times and of their ratios, measured block by block in turns."""
    with ExitStack() as stack:
        actions: dict[str, Callable[[], object]] = {
            "memcpy": _memcpy(floats),
            "kernel": _kernel(floats),
            "unix echo": stack.enter_context(unix_echo(4 * floats)),
            "TCP echo": stack.enter_context(tcp_echo(4 * floats)),
            "gRPC echo": stack.enter_context(grpc_echo(4 * floats)),
            "gRPC echo of an array": stack.enter_context(grpc_echo(4 * floats, arrays=True)),
            "shm": stack.enter_context(_push_pull(floats, "shm")),
            "tcp": stack.enter_context(_push_pull(floats, "tcp")),
            "tcp with TLS": stack.enter_context(_secured(floats, "tcp")),
            "gRPC": stack.enter_context(_push_pull(floats, "grpc")),
        }
        times = in_turns(actions, rounds, block)
        alone = in_turns(actions, 4 * rounds) if block > 1 else times
    ratios = {
        "passes each way": times["shm"] / times["memcpy"] / 2,
        "gRPC / shm": times["gRPC"] / times["shm"],
        "tcp / (TCP echo + kernel)": times["tcp"] / (times["TCP echo"] + times["kernel"]),
        "gRPC / tcp": times["gRPC"] / times["tcp"],
        "tcp with TLS / tcp": times["tcp with TLS"] / times["tcp"],
        "gRPC / (echo + kernel)": times["gRPC"] / (times["gRPC echo"] + times["kernel"]),
        "gRPC / (echo of an array + kernel)": times["gRPC"] / (times["gRPC echo of an array"] + times["kernel"]),
        "shm / unix echo": times["shm"] / times["unix echo"],
    }
    return {
        "bytes": 4 * floats,
        "rounds": rounds,
        "block": block,
        "seconds": {name: spread(list(values)) for name, values in times.items()},
        "alone": {name: spread(list(values)) for name, values in alone.items()},
        "ratios": {name: spread(list(values)) for name, values in ratios.items()},
    }


def sweep(rounds: int) -> list[dict[str, Any]]:
    """Measure push-pulls of increasing size."""
    rows = []
    for floats in SWEEP:
        with _push_pull(floats, "shm") as shm, _push_pull(floats, "grpc") as remote:
            times = in_turns({"shm": shm, "gRPC": remote}, rounds, 3)
        rows.append({"bytes": 4 * floats, **{name: spread(list(values)) for name, values in times.items()}})
    return rows


def beside_idle(counts: tuple[int, ...], rounds: int, servers: int) -> list[dict[str, Any]]:
    """Measure push-pulls of 318 kB at a server with idle workers; the fastest of `servers` servers counts."""
    rows: list[dict[str, Any]] = []
    floats = FLOATS["318 kB"]
    for count in counts:
        row: dict[str, Any] = {"idle": count}
        for transport, name in (("shm", "shm"), ("grpc", "gRPC")):
            found = [_beside(count, floats, transport, rounds) for _ in range(servers)]
            row[name] = min(found, key=lambda times: times["median"])
            row[f"{name} by server"] = [times["median"] for times in found]
        rows.append(row)
    return rows


def _beside(count: int, floats: int, transport: str, rounds: int) -> dict[str, Any]:
    with (
        running_server(["--workers", "1", "--learning-rate", RATE]) as (address, _),
        _worker(address, floats, transport) as action,
        idle(address, count, floats, transport),
    ):
        return spread(list(in_turns({"one": action}, rounds // 10, 10)["one"]))


def many_workers(quick: bool) -> list[dict[str, Any]]:
    """Measure workers with 50 ms of emulated compute, and workers without, which show the limit of the server."""
    floats, seconds = FLOATS["318 kB"], 2.0 if quick else 10.0
    rows = []
    for count in (4, 16) if quick else (4, 16, 32, 64):
        for transport in ("shm", "grpc"):
            rows.append({"compute_s": 0.05, **push_pulls(count, floats, transport, 0.05, seconds)})
    for transport in ("shm", "grpc"):
        rows.append({"compute_s": 0.0, **push_pulls(SATURATING, floats, transport, 0.0, seconds)})
    return rows


def held_memory(workers: int) -> dict[str, Any]:
    """Measure the memory of a server while many workers push 32 MB over gRPC; the bound is (2 + 2c) models + 120 MB."""
    floats, admitted = 8_000_000, 4
    row = push_pulls(workers, floats, "grpc", 0.0, 5.0, ["--checkpoint-every", "off"])
    return {**row, "model_bytes": 4 * floats, "bound_bytes": (2 + 2 * admitted) * 4 * floats + 120_000_000}


def in_turns(actions: dict[str, Callable[[], object]], rounds: int, block: int = 1) -> dict[str, np.ndarray]:
    """Return the median seconds of a block of calls for every action in every round, after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 2):
        for name, action in actions.items():
            seconds = [_timed(action) for _ in range(block)]
            if number > 1:
                times[name].append(median(seconds))
    return {name: np.array(values) for name, values in times.items()}


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _memcpy(floats: int) -> Callable[[], object]:
    source, target = np.ones(floats, np.float32), np.zeros(floats, np.float32)
    return lambda: np.copyto(target, source)


def _kernel(floats: int) -> Callable[[], object]:
    rule = Optimizer("sgd", Hyperparameters(learning_rate=float(RATE)), floats)
    weights, new, gradient = (np.ones(floats, np.float32) for _ in range(3))

    def update() -> None:
        assert np.isfinite(np.dot(gradient, gradient))
        rule.apply(weights, gradient, new)

    return update


@contextmanager
def _push_pull(floats: int, transport: str, access: Sequence[str] = ()) -> Iterator[Callable[[], object]]:
    with running_server(["--workers", "1", "--learning-rate", RATE, *access]) as (address, _), identity(access):
        with _worker(address, floats, transport) as action:
            yield action


@contextmanager
def _secured(floats: int, transport: str) -> Iterator[Callable[[], object]]:
    with certificates() as access, _push_pull(floats, transport, access) as action:
        yield action


@contextmanager
def _worker(address: str, floats: int, transport: str) -> Iterator[Callable[[], object]]:
    worker = NumpyWorker(address, floats, transport)
    gradient = np.random.default_rng(0).standard_normal(floats, np.float32)
    worker.pull()
    yield lambda: worker.push_pull(gradient)
    worker.close()
