"""What checkpoints cost: push-pulls per second with and without them, in turns: `downpour bench checkpoints`.

One server, one worker without a model that pushes as fast as it can: the worst case, for a worker that computes has
time to spare for the thread that writes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from bench.server import NumpyWorker, server
from protos.settings import Settings, parse
from worker.client import Samples


class CheckpointsSettings(Settings):
    """Measures what checkpoints cost."""

    every: str = Field("2s", description="time or updates between two checkpoints")
    rounds: int = Field(5, ge=1, description="measurements of each kind, in turns")
    seconds_s: float = Field(6.0, gt=0, description="length of one measurement")
    sizes: str = Field("79510,2200000", description="numbers of weights")
    optimizer: str = Field("adam", description="update rule; its slots are kept too")
    transport: str = Field("auto", description="how payloads travel")


def rate(settings: CheckpointsSettings, size: int, every: str) -> tuple[float, float, float]:
    """Push-pulls per second, the worst of them in ms, and seconds that the last checkpoint took."""
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        run = Path(folder) / "run"
        flags = [f"--optimizer={settings.optimizer}", "--workers=1", f"--checkpoint-every={every}", f"--run-dir={run}"]
        with server(flags) as (address, _):
            worker = NumpyWorker(address, size, settings.transport)
            gradient = np.full(size, 1e-3, np.float32)
            worker.client.pull()
            count, worst, begin = 0, 0.0, time.perf_counter()
            while (now := time.perf_counter()) < begin + settings.seconds_s:
                worker.client.push_pull(gradient, 1.0, Samples())
                worst = max(worst, time.perf_counter() - now)
                count += 1
            found = count / (time.perf_counter() - begin)
            worker.close()
        took = [path.stat().st_mtime for path in (run / "checkpoints").glob("*.safetensors")]
        return found, 1000 * worst, float(len(took))


def main(argv: Sequence[str]) -> int:
    """`downpour bench checkpoints`: prints a table."""
    settings = parse(CheckpointsSettings, list(argv), "downpour bench checkpoints")
    print(f"{'weights':>10} {'off /s':>9} {settings.every + ' /s':>9} {'ratio':>6} {'worst off':>10} {'worst on':>9}")
    for size in map(int, settings.sizes.split(",")):
        pairs = [(rate(settings, size, "off"), rate(settings, size, settings.every)) for _ in range(settings.rounds)]
        ratio = statistics.median(on[0] / off[0] for off, on in pairs)
        off_s, on_s = (statistics.median(pair[k][0] for pair in pairs) for k in (0, 1))
        off_ms, on_ms = (statistics.median(pair[k][1] for pair in pairs) for k in (0, 1))
        print(f"{size:>10,} {off_s:>9.1f} {on_s:>9.1f} {ratio:>6.3f} {off_ms:>7.1f} ms {on_ms:>6.1f} ms", flush=True)
        kept = [on[2] for _, on in pairs]
        assert min(kept) >= 1, "no checkpoint was written"
    return 0
