"""Whatever ends a job, nothing of it is left: no process, port, socket, shared memory or temporary file."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster import Process, wait_until

pytestmark = pytest.mark.slow

ENDING_S = 10.0  # as is promised


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Those that have a variable in their environment: the job's, however they were started."""
    found = []
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(variable) == value and process.pid != os.getpid():
            found.append(process)
    return found


def doorbells() -> set[str]:
    """Abstract sockets of servers on this machine."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1] for line in lines if "@downpour-" in line}


@pytest.mark.parametrize("how", ["end", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left(tmp_path: Path, how: str) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    mark = {"TMPDIR": str(scratch), "LEFTOVERS_OF": str(tmp_path)}
    shared, bells = set(Path("/dev/shm").iterdir()), doorbells()
    epochs = 1 if how == "end" else 50
    flags = ["--workers=2", "--shards=2", f"--epochs={epochs}", "--xla=off", f"--runs-dir={tmp_path / 'runs'}"]
    launcher = Process(tmp_path / "launcher.log", "-m", "deploy.cli", "train", *flags, env=mark)
    latest = tmp_path / "runs" / "latest"
    try:
        trace = latest / "trace.npy"
        wait_until(lambda: trace.exists() and trace.stat().st_size > 20_000, "training has begun", 120.0)
        children = [each for each in processes_with("LEFTOVERS_OF", str(tmp_path)) if each.pid != launcher.child.pid]
        addresses = {each.laddr for child in children for each in child.net_connections() if each.status == "LISTEN"}
        assert len(children) == 4 and len(addresses) == 2 and len(doorbells() - bells) == 2
        assert list(scratch.iterdir()), "the launcher has given its processes a folder for temporary files"
        if how != "end":
            launcher.child.send_signal(getattr(signal, how))
        code = launcher.wait(120.0)
        _, alive = psutil.wait_procs(children, timeout=ENDING_S)
        assert not alive, "all processes are gone"
        assert code == {"SIGKILL": -9}.get(how, 0)
        listening = {each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
        assert not addresses & listening
        assert doorbells() - bells == set()
        assert set(Path("/dev/shm").iterdir()) - shared == set()
        assert list(scratch.iterdir()) == []
        assert not [path for path in latest.rglob("*") if ".part" in path.name or path.suffix == ".tmp"]
        status = json.loads((latest / "summary.json").read_text())["status"]
        assert status == {"end": "ended", "SIGKILL": "failed"}.get(how, "interrupted")
    finally:
        launcher.kill()
