"""Measures the push-pulls per second and the memory of one server with many NumPy workers, each in its own process.

The workers compute nothing: they sleep for a given time and push the same gradient repeatedly.
`python -m downpour.bench.speed.many_workers ADDRESS COUNT FLOATS TRANSPORT COMPUTE_S SECONDS` runs the workers and
prints a JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from downpour.bench.module_process import module_command, module_environment
from downpour.bench.numpy_worker import NumpyWorker, running_server

START_S = 240.0


def push_pulls(
    count: int, floats: int, transport: str, compute_s: float, seconds: float, flags: list[str] | None = None
) -> dict[str, Any]:
    """Let `count` workers push `float32[floats]` for some seconds.

    Returns:
        The rate `per_s`; the server's CPU time per push-pull, `server_cpu_s`; and the maxima of its own resident
        memory, `resident_bytes`, and of its shared memory, `shared_bytes`.
    """
    with running_server(["--workers", str(count), "--learning-rate", "1e-6", *(flags or [])]) as (address, pid):
        arguments = [address, str(count), str(floats), transport, str(compute_s), str(seconds)]
        command = module_command("downpour.bench.speed.many_workers", *arguments)
        workers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=module_environment())
        before = cpu_s(pid)
        with _peak_memory(pid) as most:
            output, _ = workers.communicate(timeout=START_S + seconds + 60)
        found = json.loads(output)
        spent = (cpu_s(pid) - before) / max(1.0, found["per_s"] * seconds)
        return {"workers": count, "transport": transport, **found, "server_cpu_s": spent, **most}


@contextmanager
def idle(address: str, count: int, floats: int, transport: str) -> Iterator[None]:
    """Keep `count` idle workers connected to a server within the block."""
    if not count:
        yield
        return
    arguments = [address, str(count), str(floats), transport, "-1", "0"]
    command = module_command("downpour.bench.speed.many_workers", *arguments)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=module_environment()
    ) as workers:
        try:
            assert workers.stdout is not None
            workers.stdout.readline()
            yield
        finally:
            workers.kill()


def memory(pid: int) -> tuple[int, int]:
    """Return the resident memory of a process in bytes: its own, and shared memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(Rss\w+):\s+(\d+) kB", status, re.M)}
    return 1024 * (kib["RssAnon"] + kib["RssFile"]), 1024 * kib["RssShmem"]


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _peak_memory(pid: int) -> Iterator[dict[str, int]]:
    most = {"resident_bytes": 0, "shared_bytes": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            own, shared = memory(pid)
            most["resident_bytes"] = max(most["resident_bytes"], own)
            most["shared_bytes"] = max(most["shared_bytes"], shared)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def _work(
    address: str, floats: int, transport: str, compute_s: float, seconds: float, start: Barrier, out: Any
) -> None:
    worker = NumpyWorker(address, floats, transport)
    gradient = np.ones(floats, np.float32)
    worker.pull()
    start.wait(START_S)
    begin, done, durations_s = time.monotonic(), 0, []
    while time.monotonic() - begin < seconds:
        if compute_s:
            time.sleep(compute_s)
        sent = time.perf_counter()
        worker.push_pull(gradient)
        durations_s.append(time.perf_counter() - sent)
        done += 1
    out.put((done / (time.monotonic() - begin), float(np.median(durations_s))))
    worker.close()


def _stay(address: str, floats: int, transport: str, count: int) -> None:
    workers = [NumpyWorker(address, floats, transport) for _ in range(count)]
    for worker in workers:
        worker.pull()
    print(f"{len(workers)} workers have joined", flush=True)
    threading.Event().wait()


def main(argv: list[str]) -> None:
    """Fork the workers, before this process uses gRPC, and print their results."""
    address, transport = argv[0], argv[3]
    count, floats, compute_s, seconds = int(argv[1]), int(argv[2]), float(argv[4]), float(argv[5])
    if compute_s < 0:
        _stay(address, floats, transport, count)
    fork = multiprocessing.get_context("fork")
    start, out = fork.Barrier(count), fork.Queue()
    arguments = (address, floats, transport, compute_s, seconds, start, out)
    children = [fork.Process(target=_work, args=arguments) for _ in range(count)]
    for child in children:
        child.start()
    rates = [out.get(timeout=START_S + seconds) for _ in children]
    for child in children:
        child.join(10)
    print(json.dumps({"per_s": sum(rate for rate, _ in rates), "median_s": float(np.median([s for _, s in rates]))}))


if __name__ == "__main__":
    main(sys.argv[1:])
