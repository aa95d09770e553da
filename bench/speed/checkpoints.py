"""`downpour bench checkpoints`: measures push-pulls per second with and without checkpoints, in turns.

One server and one worker without a model that pushes as fast as possible are the worst case: a worker that computes
leaves time for the thread that writes. The table contains, for each size, the rates, the time for which pushes were
delayed by a checkpoint, and the time until the checkpoint was on the disk. The interval between two checkpoints is at
least twenty times that time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from downpour.bench.module_process import module_command, module_environment
from downpour.bench.numpy_worker import NumpyWorker
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.settings import Settings, parse
from downpour.protos.system.progress import tracked

END_S = 30.0


class CheckpointsSettings(Settings):
    """Measure the cost of checkpoints."""

    every: str = Field("2s", description="Time or updates between two checkpoints.")
    rounds: int = Field(5, ge=1, description="Number of measurements of each kind, in turns.")
    seconds_s: float = Field(6.0, gt=0, description="Duration of one measurement.")
    sizes: str = Field("79510,2200000", description="Numbers of weights, separated by commas.")
    optimizer: str = Field("adam", description="Optimizer, whose slots are part of the checkpoint.")
    transport: str = Field("auto", description="Transport of payloads.")


@dataclass(frozen=True)
class Measured:
    """The result of one measurement.

    Attributes:
        per_s: Push-pulls per second.
        worst_s: The time of the longest push-pull.
        checkpoints: The number of checkpoints.
        pause_s: The time for which the latest checkpoint delayed pushes.
        write_s: The time until the latest checkpoint was on the disk.
    """

    per_s: float
    worst_s: float
    checkpoints: int = 0
    pause_s: float = 0.0
    write_s: float = 0.0


def measure(settings: CheckpointsSettings, size: int, every: str) -> Measured:
    """Measure push-pulls to a new server."""
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        flags = [f"--optimizer={settings.optimizer}", "--workers=1", f"--checkpoint-every={every}"]
        flags += [f"--run-dir={folder}", "--model=bench", "--dataset=bench", "--checkpoint-keep=10000"]
        command = module_command("downpour.ps", *flags)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=module_environment()
        ) as process:
            try:
                assert process.stdout is not None
                address = json.loads(process.stdout.readline())["address"]
                per_s, worst_s = _push(settings, address, size)
                with open_channel(address) as channel:
                    CoordinatorStub(channel).Stop(pb.StopRequest(now=True, reason="measured"), timeout=END_S)
                process.wait(END_S)
            finally:
                process.kill()
        found = json.loads((Path(folder) / "summary.json").read_text())
        return Measured(per_s, worst_s, found["checkpoints"], found["checkpoint_pause_s"], found["checkpoint_s"])


def _push(settings: CheckpointsSettings, address: str, size: int) -> tuple[float, float]:
    worker = NumpyWorker(address, size, settings.transport)
    gradient = np.full(size, 1e-3, np.float32)
    worker.pull()
    count, worst_s, begin = 0, 0.0, time.perf_counter()
    while (now := time.perf_counter()) < begin + settings.seconds_s:
        worker.push_pull(gradient)
        worst_s = max(worst_s, time.perf_counter() - now)
        count += 1
    per_s = count / (time.perf_counter() - begin)
    worker.close()
    return per_s, worst_s


def line(size: int, pairs: Sequence[tuple[Measured, Measured]]) -> str:
    """Return one row of the table, with medians over the rounds."""

    def median(which: int, name: str) -> float:
        return statistics.median(float(getattr(pair[which], name)) for pair in pairs)

    ratio = statistics.median(on.per_s / off.per_s for off, on in pairs)
    return (
        f"{size:>10,} {median(0, 'per_s'):>9.1f} {median(1, 'per_s'):>9.1f} {ratio:>6.3f} "
        f"{1000 * median(0, 'worst_s'):>7.1f} ms {1000 * median(1, 'worst_s'):>6.1f} ms "
        f"{1000 * median(1, 'pause_s'):>7.2f} ms {1000 * median(1, 'write_s'):>7.1f} ms"
    )


def main(argv: Sequence[str]) -> int:
    """Run `downpour bench checkpoints` and print a table."""
    settings = parse(CheckpointsSettings, list(argv), "downpour bench checkpoints")
    print(
        f"{'weights':>10} {'off /s':>9} {settings.every + ' /s':>9} {'ratio':>6} {'worst off':>10} {'worst on':>9} "
        f"{'delay':>10} {'write':>10}"
    )
    for size in tracked([int(each) for each in settings.sizes.split(",")], "sizes of the model"):
        pairs = [
            (measure(settings, size, "off"), measure(settings, size, settings.every)) for _ in range(settings.rounds)
        ]
        print(line(size, pairs), flush=True)
        assert min(on.checkpoints for _, on in pairs) >= 1, "no checkpoint was written"
    return 0
