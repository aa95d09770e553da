"""What the facts of a machine mean for training: one finding for each, with advice. This module is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from downpour.protos.sentences.sentence import counted
from downpour.protos.system.command import install_command

GIB = 2**30
WORKER_BYTES = GIB  # TensorFlow alone takes about half of it
LEAST_DESCRIPTORS = 1024  # a server has a few for each worker
LACKING = {
    "worker": "no worker can train here; servers can run",
    "certs": "`downpour certs` cannot create certificates",
    "dashboard": "`downpour dashboard`, `playground` and `--dashboard` serve no page",
    "ray": "`downpour ray` does not work",
    "bench": "some benchmarks do not run or draw no plot",
}
_REQUIREMENT = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?\s*([^;]*)(?:;\s*extra\s*==\s*['\"]([^'\"]+)['\"])?"
)
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([0-9.]+)")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was examined.
        level: `ok`; `warning` if something works less well; `error` if a requirement is not met.
        found: What was found, as a phrase.
        advice: What to do about it; empty if nothing.
    """

    subject: str
    level: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""


def satisfies(version: str, bounds: str) -> bool:
    """Return whether a version such as `2.21.0rc1` is within bounds such as `>=2.20,<2.22`."""
    return all(_holds(_numbers(version), sign, _numbers(bound)) for sign, bound in _BOUND.findall(bounds))


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in leading[0].split(".")] if leading else [0]
    return tuple(numbers + [0] * (6 - len(numbers)))


def _holds(version: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": version >= bound,
        "<=": version <= bound,
        "==": version == bound,
        "<": version < bound,
        ">": version > bound,
    }[sign]


def of_python(version: str, bounds: str) -> Finding:
    """Return the finding about the version of Python, which must be within the bounds of the distribution."""
    if satisfies(version, bounds):
        return Finding("Python", "ok", version)
    return Finding("Python", "error", f"{version}, and downpour needs {bounds}", f"Install Python {bounds}.")


def of_packages(requirements: Sequence[str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each package that downpour needs, and for each of the extras in `LACKING`.

    Args:
        requirements: The requirements of the distribution, as its metadata write them.
        installed: The versions of the installed packages by name.
    """
    for text in requirements:
        if (parsed := _REQUIREMENT.match(text)) is None or parsed[2]:
            continue
        name, bounds, extra = parsed[1], parsed[3].strip(), parsed[4]
        if extra is not None and extra not in LACKING:
            continue
        subject = f"{name} ({extra})" if extra else name
        loss = f": {LACKING[extra]}" if extra else ""
        version = installed.get(name)
        if version is not None and satisfies(version, bounds):
            yield Finding(subject, "ok", version)
        else:
            state = "not installed" if version is None else f"{version}, and downpour needs {bounds}"
            yield Finding(
                subject, "warning" if extra else "error", state + loss, f"Run {install_command(extra or '')}."
            )


def of_cores(count: int) -> Finding:
    """Return the finding about the CPU cores that this process may use."""
    if count > 1:
        return Finding("cores", "ok", str(count))
    return Finding("cores", "warning", "1", "Servers and workers take turns on one core: use a machine with more.")


def of_memory(available_bytes: int | None) -> Finding:
    """Return the finding about the memory that processes can still take; None if it is unknown."""
    if available_bytes is None:
        return Finding("memory", "warning", "unknown on this system", "Check that each worker can have 1 GiB.")
    workers = counted(available_bytes // WORKER_BYTES, "worker")
    text = f"{available_bytes / GIB:.1f} GiB available, enough for {workers} of 1 GiB"
    if available_bytes >= 2 * WORKER_BYTES:
        return Finding("memory", "ok", text)
    return Finding("memory", "warning", text, "Close other programs, or train with fewer workers (--workers).")


def of_gpus(devices: Sequence[str], holders: Sequence[str]) -> Finding:
    """Return the finding about the GPUs, and about the processes that compute on them."""
    if not devices:
        return Finding("GPUs", "ok", "none: workers compute on CPU cores")
    listed = f"{len(devices)} ({', '.join(devices)})"
    if not holders:
        return Finding("GPUs", "ok", listed)
    taken = f"{listed}; processes on them: {'; '.join(holders)}"
    return Finding("GPUs", "warning", taken, "End these processes, or choose other GPUs with CUDA_VISIBLE_DEVICES.")


def of_dev_shm(free_bytes: int | None) -> Finding:
    """Return the finding about `/dev/shm`, which the transport does not use: its memory has no file."""
    free = "not there" if free_bytes is None else f"{free_bytes / GIB:.2f} GiB free"
    return Finding("/dev/shm", "ok", f"{free} (downpour does not use it)")


def of_memfd(available: bool) -> Finding:
    """Return the finding about anonymous shared memory."""
    if available:
        return Finding("memfd", "ok", "available")
    advice = "Use Linux, in a container that permits memfd_create, for the fastest transport."
    return Finding("memfd", "warning", "not available: no transport through shared memory", advice)


def of_shared_memory(failure: str) -> Finding:
    """Return the finding about memory that two processes shared for a trial; `failure` is empty if that worked."""
    if not failure:
        return Finding("shared memory", "ok", "two processes exchanged data")
    advice = "Permit Unix sockets and descriptors between processes of one user; until then --transport tcp works."
    return Finding("shared memory", "warning", f"two processes could not share memory: {failure}", advice)


def of_loopback(failure: str) -> Finding:
    """Return the finding about a port on the loopback interface; `failure` is empty if one could be used."""
    if not failure:
        return Finding("loopback", "ok", "a port could be bound on 127.0.0.1 and connected to")
    advice = "Bring the interface lo up, and permit programs to listen on 127.0.0.1."
    return Finding("loopback", "error", f"no port of 127.0.0.1 can be used: {failure}", advice)


def of_clock(wall_s: float, installed_s: float) -> Finding:
    """Return the finding about the clock, which must be later than the program's own files.

    Args:
        wall_s: The time in seconds since 1970.
        installed_s: The time at which the program's files were written.
    """
    if wall_s + 1 >= installed_s:
        return Finding("clock", "ok", "later than the installation")
    behind = f"{installed_s - wall_s:,.0f} s before the installation of downpour"
    return Finding("clock", "warning", behind, "Set the clock: certificates of TLS and the order of runs depend on it.")


def of_descriptors(soft_limit: int | None) -> Finding:
    """Return the finding about the soft limit of open files; None if there is no limit."""
    if soft_limit is None or soft_limit >= LEAST_DESCRIPTORS:
        return Finding("open files", "ok", "no limit" if soft_limit is None else f"at most {soft_limit:,}")
    advice = f"Run ulimit -n {LEAST_DESCRIPTORS} or more before a job with many workers."
    return Finding("open files", "warning", f"at most {soft_limit:,}", advice)


def of_transport(memfd: bool, shared_memory_failure: str, loopback_failure: str) -> Finding:
    """Return the finding about what `--transport auto` would choose on this machine, and why."""
    if memfd and not shared_memory_failure:
        found = "shm for workers on this machine, as shared memory works; tcp for those on others"
        return Finding("--transport auto", "ok", found)
    reason = shared_memory_failure if memfd else "there is no memfd"
    if not loopback_failure:
        return Finding("--transport auto", "ok", f"tcp, as shared memory does not work here ({reason})")
    found = f"none on this machine: neither shared memory ({reason}) nor loopback ({loopback_failure}) works"
    return Finding("--transport auto", "error", found, "Make one of them work first; the lines above say how.")
