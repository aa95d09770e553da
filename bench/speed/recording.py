"""`downpour bench recording`: measures the cost of recording a job for `downpour replay`.

First, the time of a shard for a push is measured in one process, with and without recording in blocks that take turns;
the difference is the added time. Then the push-pulls per second of one server and one worker without a model, which
pushes as fast as possible (the worst case), are measured with `--record on` and `off` in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from downpour.bench.numpy_worker import NumpyWorker, running_server
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.layout import TRAINED, Layout
from downpour.protos.settings import Settings, parse
from downpour.protos.system.progress import tracked
from downpour.ps.config import ServerSettings
from downpour.ps.data_plane.shard_commands import ShardCommands
from downpour.ps.data_plane.shard_runtime import ShardRuntime
from downpour.ps.trace import call_log as calls
from downpour.ps.trace.format import TraceFile

MAX_PUSHES, WEIGHTS = 200, 16_000_000  # per block


class RecordingSettings(Settings):
    """Measure the cost of recording."""

    sizes: str = Field("79510,2200000", description="Numbers of weights, separated by commas.")
    blocks: int = Field(100, ge=2, description="Number of blocks of up to 200 pushes of each kind, in turns.")
    rounds: int = Field(5, ge=1, description="Number of measurements of push-pulls of each kind, in turns.")
    seconds_s: float = Field(3.0, gt=0, description="Duration of a measurement of push-pulls.")
    transport: str = Field("auto", description="Transport of payloads.")


def shard_times(size: int, blocks: int) -> tuple[float, float]:
    """Return the median time of a shard with `size` weights for a push, and the median time that recording adds."""
    host = ShardRuntime(0)
    commands = ShardCommands(host)
    layout = Layout.of([("weights", (size,), TRAINED)])
    commands.execute(pb.ShardCommand(settings=ServerSettings(record="on").model_dump_json(), layout=layout.to_proto()))
    member = pb.Member(worker=0, incarnation=1, session=1)
    commands.execute(pb.ShardCommand(view=pb.View(number=1, members=[member])))
    host.initialise(np.zeros(size, np.float32).data.cast("B"))
    gradient = np.full(size, 1e-3, np.float32).data.cast("B")
    header = pb.Request(kind=pb.PUSH_PULL, incarnation=1, generation=1, codec="float32", samples=32, norm=1.0)
    block = max(10, min(MAX_PUSHES, WEIGHTS // size))
    host.calls.take()
    times: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        file = TraceFile(Path(folder) / "calls.npy", dtype=calls.DTYPE)
        for turn in range(2 * blocks):
            recorded = turn % 2 == 1
            if recorded:
                host.calls.begin(pulls=False)
                host.calls.take()  # the record of the beginning
            else:
                host.calls.pause()
            begin = time.perf_counter()
            for _ in range(block):
                header.base_version = header.seq
                header.seq += 1
                host.push(header, gradient)
            if recorded:
                file.append(host.calls.take())
            times[recorded].append((time.perf_counter() - begin) / block)
            host.records.take()
        assert file.count == blocks * block
        file.close()
    added = [on - off for off, on in zip(times[False], times[True], strict=True)]
    return statistics.median(times[False]), statistics.median(added)


def rate(settings: RecordingSettings, size: int, record: str) -> float:
    """Return the push-pulls per second of one worker."""
    with running_server(["--workers=1", "--checkpoint-every=off", f"--record={record}"]) as (address, _):
        worker = NumpyWorker(address, size, settings.transport)
        gradient = np.full(size, 1e-3, np.float32)
        worker.pull()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() < begin + settings.seconds_s:
            worker.push_pull(gradient)
            count += 1
        found = count / (time.perf_counter() - begin)
        worker.close()
    return found


def main(argv: Sequence[str]) -> int:
    """Run `downpour bench recording` and print a table."""
    settings = parse(RecordingSettings, list(argv), "downpour bench recording")
    print(f"{'weights':>10} {'shard':>11} {'added':>9} {'push-pulls off':>15} {'on':>9} {'share':>7}")
    for size in tracked([int(each) for each in settings.sizes.split(",")], "sizes of the model"):
        off_s, added_s = shard_times(size, settings.blocks)
        pairs = [(rate(settings, size, "off"), rate(settings, size, "on")) for _ in range(settings.rounds)]
        off, on = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        print(
            f"{size:>10,} {1e6 * off_s:>8.2f} µs {1e6 * added_s:>6.2f} µs {off:>13,.0f}/s {on:>7,.0f}/s "
            f"{100 * added_s * off:>6.2f}%",
            flush=True,
        )
    return 0
