"""The machine and the versions of a measurement, without host names and paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The name in a report -> the distribution whose version it states.
PACKAGES = {"downpour": "downpour-ps"} | {name: name for name in ("tensorflow", "keras", "numpy", "grpcio", "protobuf")}


def facts(*packages: str) -> dict[str, int | float | str]:
    """Return cores, processor, memory, operating system and versions, without importing the packages.

    Args:
        packages: Names of further distributions whose versions are stated.
    """
    return {
        "cores": cores(),
        "cpu": processor(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in PACKAGES.items()},
        **{name: _version(name) for name in packages},
    }


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Return the name of the processor that the kernel reports."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float:
    """Return the memory of the machine in GiB, rounded to one decimal."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def load() -> float:
    """Return the load average of the last minute, which shows whether other work disturbs a measurement."""
    return round(os.getloadavg()[0], 2)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
