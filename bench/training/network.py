"""`downpour bench network`: training between two network namespaces, with TCP, gRPC and TensorFlow's parameter server.

The servers are in one namespace and two workers in the other, so that all payloads pass a virtual Ethernet pair:
shared memory does not reach across. Networks: the pair as it is, limited to 1 Gbit/s and to 100 Mbit/s in each
direction, and with a relay that delays every byte by 10 ms in each direction (20 ms round trip).

Bytes are those of the workers' interface in both directions, with all headers, heartbeats and acknowledgements,
divided by the samples. The time to an accuracy is the time of the last push of the first epoch whose validation
accuracy reaches it. Every configuration is run `--repeats` times in turns, and the median is shown. Requires root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple

import numpy as np

from downpour.bench.flags import FlagParser
from downpour.bench.machine import facts, load
from downpour.bench.module_process import module_command, module_environment
from downpour.bench.training.baselines import write_data
from downpour.bench.training.namespaces import SERVER_HOST, WORKER_HOST, Namespaces, two_namespaces
from downpour.protos.system.progress import tracked

PORT, TCP_PORT = 7000, 7001  # within the servers' namespace; a relay listens 100 above
TIMEOUT_S = 300.0
TRANSPORTS = ("tcp", "grpc")


class NetworkLimits(NamedTuple):
    """A row of the table of networks."""

    what: str
    rate_mbit: int | None = None
    delay_s: float = 0.0


NETWORKS = {
    "veth": NetworkLimits("virtual Ethernet, not limited"),
    "1gbit": NetworkLimits("1 Gbit/s", rate_mbit=1000),
    "100mbit": NetworkLimits("100 Mbit/s", rate_mbit=100),
    "20ms": NetworkLimits("20 ms round trip", delay_s=0.01),
}
# Flags of the servers, by what the tables call them.
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "async": (),
    "push-every 20": ("--push-every=20",),
    "codec bfloat16": ("--codec=bfloat16",),
    "codec int8": ("--codec=int8",),
    "codec topk:0.01": ("--codec=topk:0.01",),
    "mode localsgd:50": ("--mode=localsgd:50",),
}


def main(argv: list[str]) -> int:
    """Measure, print a table for each network, and write `results.json` and `report.md` if requested."""
    flags = _parser().parse_args(argv)
    results: dict[str, Any] = {
        "benchmark": "network",
        "command": " ".join(["downpour", "bench", "network", *argv]),
        "machine": facts(),
        "load_at_start": load(),
        "model": flags.model,
        "networks": {},
    }
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        data, samples, epochs = write_data(Path(folder), flags.samples, flags.batch_size)
        results |= {"samples": samples, "epochs": epochs, "batch_size": flags.batch_size}
        for name in tracked(flags.networks, "networks"):
            rows = results["networks"][name] = measure(NETWORKS[name], flags, data, epochs)
            print(f"\n{NETWORKS[name].what}, {flags.model}:\n\n{table(rows, flags.accuracy)}", flush=True)
    results["load_at_end"] = load()
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        parts = [
            f"{NETWORKS[name].what}:\n\n{table(rows, flags.accuracy)}" for name, rows in results["networks"].items()
        ]
        (flags.out / "report.md").write_text("\n\n".join([f"# Network\n\n`{results['command']}`", *parts, __doc__]))
    return 0


def measure(network: NetworkLimits, flags: argparse.Namespace, data: Path, epochs: int) -> list[dict[str, Any]]:
    """Return a row for each configuration and transport, and for TensorFlow's parameter server, on one network."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with two_namespaces(network.rate_mbit) as inside:
        for _ in range(flags.repeats):
            for name in flags.configurations:
                for transport in flags.transports:
                    run = _downpour(inside, network, flags, data, epochs, transport, CONFIGURATIONS[name])
                    rows.setdefault(f"{name}, {transport}", []).append(run)
            for steps in flags.tensorflow:
                run = _tensorflow(inside, flags, data, epochs, steps)
                rows.setdefault(f"ParameterServerStrategy, {steps} steps per function", []).append(run)
    shown = ("samples_per_s", "bytes_per_sample", "to_accuracy_s", "accuracy")
    return [
        {"what": what, "runs": runs, **{key: median(run[key] for run in runs) for key in shown}}
        for what, runs in rows.items()
    ]


def table(rows: Sequence[dict[str, Any]], accuracy: float) -> str:
    """Return the rows as a table in Markdown."""
    lines = [f"| | samples/s | to {accuracy:g}, s | accuracy | bytes per sample |", "|---|---|---|---|---|"]
    for row in rows:
        reached = f"{row['to_accuracy_s']:.1f}" if row["to_accuracy_s"] < float("inf") else "not reached"
        lines.append(
            f"| {row['what']} | {row['samples_per_s']:,.0f} | {reached} | {row['accuracy']:.3f} "
            f"| {row['bytes_per_sample']:,.0f} |"
        )
    return "\n".join(lines)


def _downpour(
    inside: Namespaces,
    network: NetworkLimits,
    flags: argparse.Namespace,
    data: Path,
    epochs: int,
    transport: str,
    extra: Sequence[str],
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder, ExitStack() as stack:
        run, log = Path(folder) / "run", stack.enter_context((Path(folder) / "log").open("w+"))
        own = ["--insecure", f"--bind={SERVER_HOST}:{PORT}", f"--tcp-port={TCP_PORT}", f"--run-dir={run}"]
        own += [f"--model={flags.model}", f"--dataset={data}", f"--epochs={epochs}", f"--batch-size={flags.batch_size}"]
        own += [f"--transport={transport}", "--workers=2", "--validation-split=0.1", "--checkpoint-every=off"]
        own += [f"--learning-rate={flags.learning_rate}", *extra]
        address = f"{SERVER_HOST}:{PORT}"
        if network.delay_s:
            for port in (PORT, TCP_PORT):
                stack.enter_context(_relay(inside, port, network.delay_s))
            address = f"{SERVER_HOST}:{PORT + 100}"
            own += [f"--advertise={address}", f"--tcp-advertise={SERVER_HOST}:{TCP_PORT + 100}"]
        server = stack.enter_context(_process([*inside.server, *module_command("downpour.ps", *own)], log))
        assert server.stdout is not None
        if not server.stdout.readline():
            raise RuntimeError(f"the server must announce its address; it ended: {' '.join(own)}")
        before = inside.transferred_bytes()
        worker = [*inside.worker, *module_command("downpour.worker", f"--server={address}", f"--dataset={data}")]
        workers = [stack.enter_context(_process(worker, log)) for _ in range(2)]
        for process in (*workers, server):
            if process.wait(TIMEOUT_S):
                log.seek(0)
                raise RuntimeError(
                    f"every process must exit with 0; received {process.returncode}: {log.read()[-2000:]}"
                )
        transferred = inside.transferred_bytes() - before
        summary = json.loads((run / "summary.json").read_text())
        return _result(summary, np.load(run / "trace.npy"), flags.accuracy, transferred)


def _result(summary: dict[str, Any], trace: np.ndarray, accuracy: float, transferred: int) -> dict[str, Any]:
    reached = [each["epoch"] for each in summary["history"] if each.get("val_accuracy", 0.0) >= accuracy]
    end_s = float("inf")
    if reached:
        end_s = float(trace["time_s"][trace["epoch"] < reached[0]].max() - trace["time_s"].min())
    samples = int(summary["samples"])
    return {
        "samples_per_s": summary["samples_per_s"],
        "bytes_per_sample": transferred / samples,
        "to_accuracy_s": end_s,
        "accuracy": max(each.get("val_accuracy", 0.0) for each in summary["history"]),
        "transports": summary["transports"],
    }


def _tensorflow(inside: Namespaces, flags: argparse.Namespace, data: Path, epochs: int, steps: int) -> dict[str, Any]:
    placed = ["--ps-host", SERVER_HOST, "--worker-host", WORKER_HOST, "--ps-before", " ".join(inside.server)]
    command = module_command(
        "downpour.bench.competitors.tf_parameter_server", "--data", str(data), "--model", flags.model, "--workers", "2",
        "--epochs", str(epochs), "--batch-size", str(flags.batch_size),
        "--learning-rate", str(flags.learning_rate), "--steps-per-call", str(steps), *placed,
    )  # fmt: skip
    before = inside.transferred_bytes()
    done = subprocess.run(
        [*inside.worker, *command], capture_output=True, text=True, timeout=TIMEOUT_S, env=module_environment()
    )
    if done.returncode:
        raise RuntimeError(f"ParameterServerStrategy must train; it ended: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    transferred = inside.transferred_bytes() - before
    return {
        "samples_per_s": found["samples_per_s"],
        "bytes_per_sample": transferred / found["samples"],
        "to_accuracy_s": float("inf"),
        "accuracy": found["accuracy"],
    }


@contextmanager
def _relay(inside: Namespaces, port: int, delay_s: float) -> Iterator[None]:
    ends = [f"{SERVER_HOST}:{port + 100}", f"{SERVER_HOST}:{port}", str(delay_s)]
    with _process([*inside.server, *module_command("downpour.bench.training.namespaces", *ends)]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


@contextmanager
def _process(command: Sequence[str], log: IO[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=module_environment())
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="downpour bench network", description="Train between two network namespaces; requires root."
    )
    parser.add_argument(
        "--networks",
        type=_names(NETWORKS),
        default=list(NETWORKS),
        help=f"Networks (default: all): {', '.join(NETWORKS)}.",
    )
    parser.add_argument(
        "--configurations", type=_names(CONFIGURATIONS), default=list(CONFIGURATIONS),
        help=f"Configurations (default: all): {', '.join(CONFIGURATIONS)}.",
    )  # fmt: skip
    parser.add_argument(
        "--transports", type=_names(dict.fromkeys(TRANSPORTS)), default=list(TRANSPORTS),
        help=f"Transports (default: all): {', '.join(TRANSPORTS)}.",
    )  # fmt: skip
    parser.add_argument(
        "--tensorflow", type=lambda text: [int(part) for part in text.split(",") if part], default=[],
        help="Steps per function of ParameterServerStrategy, such as 1,20 (default: not measured).",
    )  # fmt: skip
    parser.add_argument("--model", default="sigmoid100", help="Model of the training (default: sigmoid100).")
    parser.add_argument(
        "--samples", type=int, default=48_000, help="Number of training samples in all epochs (default: 48000)."
    )
    parser.add_argument("--batch-size", type=int, default=32, help="Number of samples of a step (default: 32).")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="Learning rate of SGD (default: 0.1).")
    parser.add_argument("--accuracy", type=float, default=0.85, help="Accuracy to reach (default: 0.85).")
    parser.add_argument("--repeats", type=int, default=1, help="Number of runs of each configuration (default: 1).")
    parser.add_argument("--out", type=Path, metavar="DIR", help="Folder for results.json, report.md and report.html.")
    return parser


def _names(known: dict[str, Any]) -> Any:
    def parsed(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"must be among {', '.join(known)}; received {', '.join(unknown)}")
        return names

    return parsed
