"""The GPUs of this machine, and which of them each worker sees.

A process sees the devices that `CUDA_VISIBLE_DEVICES` lists; it is set before the process starts, because TensorFlow
reads it once. Servers see none. This module loads neither TensorFlow nor CUDA: either would create a context on a GPU.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from downpour.deploy.launch.plan import VISIBLE_DEVICES

QUERY_TIMEOUT_S = 20.0  # the driver may have to be loaded first
_MIG = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")
_GPU = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
_ENTRY = re.compile(r"\d+|(GPU|MIG)-\S+")  # not, for example, Slurm's NoDevFiles
_DEVICE_FILE = re.compile(r"nvidia(\d+)")


def devices_here(environ: Mapping[str, str], files: Path = Path("/dev")) -> list[str]:
    """Return the names of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` writes them.

    Args:
        environ: The environment, in which `CUDA_VISIBLE_DEVICES` may already restrict the devices.
        files: The folder of the driver's device files, which are counted if there is no `nvidia-smi`.
    """
    given = environ.get(VISIBLE_DEVICES)
    if given is not None:
        return listed_in(given)
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        found = None
    if found is not None and found.returncode == 0:
        return listed_by_driver(found.stdout)
    try:
        count = sum(_DEVICE_FILE.fullmatch(path.name) is not None for path in files.iterdir())
    except OSError:
        return []
    return [str(index) for index in range(count)]


def listed_in(variable: str) -> list[str]:
    """Return the devices of a value of `CUDA_VISIBLE_DEVICES`; as in CUDA, an invalid entry ends the list."""
    devices: list[str] = []
    for entry in (part.strip() for part in variable.split(",")):
        if not _ENTRY.fullmatch(entry) or entry in devices:
            break
        devices.append(entry)
    return devices


def listed_by_driver(listing: str) -> list[str]:
    """Return the devices in the output of `nvidia-smi -L`: indices, or UUIDs if a GPU is divided by MIG."""
    gpus: list[tuple[str, str, list[str]]] = []
    for line in listing.splitlines():
        if gpu := _GPU.match(line):
            gpus.append((gpu[1], gpu[2], []))
        elif (part := _MIG.match(line)) and gpus:
            gpus[-1][2].append(part[1])
    if any(parts for _, _, parts in gpus):
        return [name for _, uuid, parts in gpus for name in (parts or [uuid])]
    return [index for index, _, _ in gpus]
