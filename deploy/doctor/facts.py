"""The facts of this machine: packages, memory, GPUs, ports and shared memory. TensorFlow is not loaded.

Modules that need a package are imported when their fact is collected, so that the command works where one is missing.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tomllib
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from downpour.deploy.launch.environment import DISTRIBUTION, child_environment
from downpour.protos.logs import reason_of

TRIAL_TIMEOUT_S = 20.0  # a busy machine starts Python slowly
QUERY_TIMEOUT_S = 20.0
TRIAL_BYTES = 4096
CHANGED = b"changed"
_HOLDERS = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
_ALTERNATIVES = {"tensorflow-cpu": "tensorflow", "tensorflow-intel": "tensorflow", "tensorflow-macos": "tensorflow"}


def requirements() -> tuple[str, list[str]]:
    """Return the bounds of Python's version, and the requirements as the metadata of a distribution write them."""
    try:
        own = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return _requirements_of_source(Path(__file__).resolve().parents[2] / "pyproject.toml")
    return own.metadata["Requires-Python"] or "", own.requires or []


def _requirements_of_source(path: Path) -> tuple[str, list[str]]:
    try:
        project = tomllib.loads(path.read_text())["project"]
    except (OSError, KeyError, ValueError):
        return "", []
    extras = project.get("optional-dependencies", {}).items()
    optional = [f'{each}; extra == "{extra}"' for extra, names in extras for each in names]
    return project["requires-python"], [*project["dependencies"], *optional]


def installed_packages() -> dict[str, str]:
    """Return the versions of the installed packages, by the name that pip gives them."""
    found: dict[str, str] = {}
    for each in distributions():
        if name := each.metadata["Name"]:
            found.setdefault(name, each.version)
            found.setdefault(name.lower().replace("_", "-"), each.version)
    for name, stands_for in _ALTERNATIVES.items():
        if name in found:
            found.setdefault(stands_for, found[name])
    return found


def available_bytes(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the memory that processes can still take, within the limit of the control group; None if unknown."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    with suppress(OSError, ValueError):  # no limit, or none that can be read
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> tuple[list[str], list[str]]:
    """Return the GPUs of this machine, and a line for each process that computes on them.

    Raises:
        ImportError: A package that downpour needs is missing.
    """
    from downpour.deploy.launch.gpus import devices_here

    devices = devices_here(os.environ)
    if not devices:
        return [], []
    try:
        asked = subprocess.run(_HOLDERS, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return devices, []
    return devices, [line.strip() for line in asked.stdout.splitlines() if line.strip()] if not asked.returncode else []


def dev_shm_bytes() -> int | None:
    """Return the free space of `/dev/shm`; None if there is none."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return None


def descriptor_limit() -> int | None:
    """Return the soft limit of open files; None if there is no limit."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def installed_s() -> float:
    """Return the time at which this program was written to disk, in seconds since 1970."""
    return os.stat(__file__).st_mtime


def loopback_failure() -> str:
    """Return why no port can be bound on loopback and connected to; empty if that works."""
    try:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            server.settimeout(TRIAL_TIMEOUT_S)
            with closing(socket.create_connection(server.getsockname(), TRIAL_TIMEOUT_S)):
                server.accept()[0].close()
    except OSError as error:
        return reason_of(error)
    return ""


def memfd_available() -> bool:
    """Return whether this system has anonymous shared memory. Raises ImportError if a package is missing."""
    from downpour.protos.shared_memory import memfd

    return memfd.available()


def shared_memory_failure() -> str:
    """Return why a child process and this one cannot share memory; empty if they can.

    The child sends memory as a worker does. It changes it afterwards, which this process must see.

    Raises:
        ImportError: A package that downpour needs is missing.
    """
    from downpour.protos.shared_memory import doorbell_socket

    try:
        listener, name = doorbell_socket.listen(None)
    except (OSError, AttributeError) as error:
        return reason_of(error)
    content = secrets.token_bytes(TRIAL_BYTES // 2)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "downpour.deploy.doctor.sharing_child", name, content.hex()],
        env=child_environment(os.environ, {}, ()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        return _failure_with(listener, content, child)
    except (OSError, ValueError) as error:
        return reason_of(error)
    finally:
        child.kill()
        child.communicate()
        doorbell_socket.close(listener, name)


def _failure_with(listener: socket.socket, content: bytes, child: subprocess.Popen[bytes]) -> str:
    from downpour.protos.errors import DownpourError
    from downpour.protos.shared_memory import memfd

    assert child.stderr is not None
    ready, _, _ = select.select([listener.fileno(), child.stderr.fileno()], [], [], TRIAL_TIMEOUT_S)
    if listener.fileno() not in ready:
        output = os.read(child.stderr.fileno(), 65536).decode(errors="replace") if ready else ""
        return (output.strip().splitlines() or [f"the child process did not connect in {TRIAL_TIMEOUT_S:g} s"])[-1]
    line, _ = listener.accept()
    with line:
        line.settimeout(TRIAL_TIMEOUT_S)
        _, descriptors, _, _ = socket.recv_fds(line, 16, 1)
        if not descriptors:
            return "a descriptor could not be sent through a Unix socket"
        try:
            memory = memfd.map_readable(descriptors[0], TRIAL_BYTES, TRIAL_BYTES)
        except DownpourError as error:
            return str(error)
        finally:
            os.close(descriptors[0])
        with memory:
            if memory[: len(content)] != content:
                return "the memory did not have the content that the child wrote"
            line.send(b"go")
            line.recv(16)
            return "" if memory[: len(CHANGED)] == CHANGED else "a change of the child was not seen"
