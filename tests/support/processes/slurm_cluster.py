"""A Slurm cluster of three nodes on this machine: real munged, slurmctld and slurmd in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

NODES = 3
CPUS = 4
START_S = 30.0

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=600
KillWait=20
JobRequeue=1
RequeueExit=99
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus}
PartitionName=all Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    """Return numbers of consecutive ports that are free now: Slurm's configuration cannot name port 0."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first = probe.getsockname()[1]
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except (OSError, OverflowError):
            continue
        return list(range(first, first + count))


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run a cluster, and yield the variables with which Slurm's commands find it. It needs root."""
    ports = free_ports(NODES + 1)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=host, ctld=ports[0], first=ports[1], last=ports[-1], folder=folder, user="root", nodes=NODES, cpus=CPUS
        )
    )
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)
    names = [f"n{number}" for number in range(1, NODES + 1)]
    daemons = [
        [program("munged"), "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
         f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"],
        [program("slurmctld"), "-D", "-f", str(conf)],
        *([program("slurmd"), "-D", "-f", str(conf), "-N", name] for name in names),
    ]  # fmt: skip
    variables = {"SLURM_CONF": str(conf)}
    with ExitStack() as stack:
        for command in daemons:
            log = stack.enter_context((folder / f"{Path(command[0]).name}-output.log").open("ab"))
            process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            stack.callback(stop, process)
            if command[0].endswith("munged"):
                wait_for(lambda: (folder / "munge.socket").exists(), "munged listens", folder)
        wait_for(lambda: idle_nodes(variables) == NODES, "all nodes are idle", folder)
        yield variables


def program(name: str) -> str:
    """Return the path of a daemon, which may be in a folder of the system's programs."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found is not None, f"{name} must be installed: apt-get install slurm-wlm munge"
    return found


def idle_nodes(variables: Mapping[str, str]) -> int:
    """Return the number of nodes that wait for jobs."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    return done.stdout.split().count("idle")


def wait_for(holds: Callable[[], bool], what: str, folder: Path) -> None:
    """Wait until a function returns True."""
    deadline = time.monotonic() + START_S
    while not holds():
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{what} within {START_S} s\n{logs}"
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a daemon."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
