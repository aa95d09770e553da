"""What a measurement was made on: the machine by its kind, and the versions. No host name, no path."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The name in a report -> the distribution whose version it states.
PACKAGES = {"downpour": "downpour-ps"} | {name: name for name in ("tensorflow", "keras", "numpy", "grpcio", "protobuf")}


def facts() -> dict[str, int | float | str]:
    """Cores that may be used, processor, memory, system, and versions; imports none of the packages."""
    return {
        "cores": cores(),
        "cpu": processor(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in PACKAGES.items()},
    }


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float:
    """Memory of the machine in GiB, rounded to one decimal."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def load() -> float:
    """Processes that were ready to run, mean over the last minute: other work disturbs a measurement."""
    return round(os.getloadavg()[0], 2)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
