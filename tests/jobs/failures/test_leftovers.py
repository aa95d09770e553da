"""However a job ends, it leaves no process, port, socket, shared memory or temporary file."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import Process, wait_until

pytestmark = pytest.mark.slow

ENDING_S = 10.0  # as is promised


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes that have a variable in their environment: those of the job, however they were started."""
    found = []
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(variable) == value and process.pid != os.getpid():
            found.append(process)
    return found


def running(process: psutil.Process) -> bool:
    """Return whether a process has not ended; a zombie counts as ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def doorbells(process: psutil.Process) -> set[str]:
    """Return the names of the abstract sockets of a server."""
    names = {str(each.laddr) for each in process.net_connections("unix")}
    return {name for name in names if name.startswith("@downpour-")}


def shared_files(process: psutil.Process) -> set[str]:
    """Return the paths of named shared memory, which would remain when the process ends."""
    return {each.path for each in process.memory_maps() if each.path.startswith("/dev/shm/")}


SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")  # to the launcher

# What ends the job -> exit status of the launcher, and what the summary says.
ENDS = {
    "end": (0, "ended"), "SIGINT": (0, "interrupted"), "SIGTERM": (0, "interrupted"), "SIGKILL": (-9, "failed"),
    "ps-0": (1, None), "ps-1": (1, "failed"), "workers": (1, "failed"),
    "launcher ps-0": (-9, None), "launcher ps-0 ps-1 worker-0 worker-1": (-9, None),
}  # fmt: skip


def victims(how: str, launcher: psutil.Process) -> list[psutil.Process]:
    """Return the processes to kill: those that are named, all workers, or none."""
    wanted = how.replace("workers", "worker-0 worker-1").split()
    found = [launcher] if "launcher" in wanted else []
    for child in launcher.children():
        command = child.cmdline()
        if "-m" not in command:
            continue  # it sweeps
        number = next((word.partition("=")[2] for word in command if word.startswith(("--shard=", "--worker="))), "0")
        module = command[command.index("-m") + 1].removeprefix("downpour.")
        if f"{module}-{number}" in wanted:
            found.append(child)
    assert how in ("end", *SIGNALS) or len(found) == len(wanted), f"{wanted} must run; found {found}"
    return found


@pytest.mark.parametrize("how", ENDS)
def test_an_ended_job_leaves_no_process_and_no_file(tmp_path: Path, how: str) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    mark = {"TMPDIR": str(scratch), "LEFTOVERS_OF": str(tmp_path)}
    epochs = 1 if how == "end" else 50
    flags = ["--workers=2", "--shards=2", f"--epochs={epochs}", "--xla=off", f"--runs-dir={tmp_path / 'runs'}"]
    flags += ["--server-restarts=0", "--worker-restarts=0", "--log-format=json", "--drain-timeout-s=60"]
    launcher = Process(tmp_path / "launcher.log", "-m", "downpour.deploy.cli", "train", *flags, env=mark)
    latest = tmp_path / "runs" / "latest"
    try:
        trace = latest / "trace.npy"
        wait_until(lambda: trace.exists() and trace.stat().st_size > 20_000, "training has begun", 120.0)
        children = [each for each in processes_with("LEFTOVERS_OF", str(tmp_path)) if each.pid != launcher.child.pid]
        addresses = {each.laddr for child in children for each in child.net_connections() if each.status == "LISTEN"}
        found_doorbells = set().union(*map(doorbells, children))
        assert len(children) == 5, "two servers, two workers, and the one that sweeps the folder"
        assert len(addresses) == 4 and len(found_doorbells) == 2, "each server listens for gRPC, TCP and shared memory"
        assert not set().union(*map(shared_files, children))
        assert list(scratch.iterdir()), "the launcher has given its processes a folder for temporary files"
        killed = victims(how, psutil.Process(launcher.child.pid))
        if how in SIGNALS:
            launcher.child.send_signal(getattr(signal, how))
        for victim in killed:
            victim.suspend()  # so that none sees another's death
        for victim in killed:
            victim.kill()
        code = launcher.wait(120.0)
        _, alive = psutil.wait_procs(children, timeout=ENDING_S)
        assert not [each for each in alive if running(each)], "all processes are gone"
        expected, says = ENDS[how]
        assert code == expected, launcher.errors
        listening = {each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
        assert not addresses & listening
        assert not [each for each in found_doorbells if each in Path("/proc/net/unix").read_text()]
        assert list(scratch.iterdir()) == []
        assert not [path for path in latest.rglob(".*") if path.name != ".lock"], "no unfinished file"
        assert says is None or json.loads((latest / "summary.json").read_text())["status"] == says
        for log in (latest / "logs").glob("*.log"):
            lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"time"')]
            assert all((line["job"], line["process"]) == (latest.resolve().name, log.stem) for line in lines), log
            assert all(line["worker"] == int(log.stem[-1]) for line in lines if log.stem.startswith("worker")), log
    finally:
        launcher.kill()
