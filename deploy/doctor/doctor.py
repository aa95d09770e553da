"""`downpour doctor`: examines the machine, prints one line for each finding, and returns the exit status."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pydantic import Field

from downpour.deploy.doctor import facts, findings
from downpour.deploy.doctor.findings import Finding
from downpour.deploy.launch.environment import DISTRIBUTION
from downpour.protos.logs import print_line
from downpour.protos.settings import Settings
from downpour.protos.system import clock

NEEDS_PACKAGES = "not examined, as {} cannot be imported"


class DoctorSettings(Settings):
    """Examine whether this machine can train, and say what to do where it cannot."""

    json_: bool = Field(False, description="Print one JSON object.")


def doctor(settings: DoctorSettings) -> int:
    """Print the findings; return 1 if a requirement is not met, else 0."""
    found = list(examine())
    failed = any(each.level == "error" for each in found)
    if settings.json_:
        print_line(json.dumps({"ok": not failed, "findings": [asdict(each) for each in found]}))
    else:
        for line in lines(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None):
            print_line(line)
    return 1 if failed else 0


def lines(found: Sequence[Finding], columns: int | None = None) -> Iterator[str]:
    """Yield the text of the findings and a summary.

    Args:
        found: The findings.
        columns: The columns of the terminal, at which lines are broken between words; None if there is none.
    """
    width = max(len(each.subject) for each in found)
    beside = " " * (width + 11)
    for each in found:
        texts = [(f"{each.level:<8} {each.subject:<{width}}  ", each.found)]
        texts += [(beside, f"→ {each.advice}")] if each.advice else []
        for first, text in texts:
            if columns is None:
                yield first + text
            else:
                yield from textwrap.wrap(text, columns, initial_indent=first, subsequent_indent=beside)
    errors, warnings = (sum(each.level == level for each in found) for level in ("error", "warning"))
    if errors:
        yield f"This machine cannot train yet. Errors: {errors}, warnings: {warnings}."
    else:
        yield f"This machine can train. Warnings: {warnings}."


def examine() -> Iterator[Finding]:
    """Yield the findings about this machine."""
    python_bounds, requirements = facts.requirements()
    installed = facts.installed_packages()
    yield findings.of_python(platform.python_version(), python_bounds)
    yield Finding("downpour", "ok", installed.get(DISTRIBUTION, "not installed: runs from its source"))
    yield from findings.of_packages(requirements, installed)
    if "keras" in installed:
        yield Finding("keras", "ok", installed["keras"])
    yield findings.of_cores(facts.cores())
    yield findings.of_memory(facts.available_bytes())
    yield _gpus()
    yield findings.of_dev_shm(facts.dev_shm_bytes())
    yield from _transports()
    yield findings.of_clock(clock.wall(), facts.installed_s())
    yield findings.of_descriptors(facts.descriptor_limit())


def _gpus() -> Finding:
    try:
        return findings.of_gpus(*facts.gpus())
    except ImportError as error:
        return Finding("GPUs", "warning", NEEDS_PACKAGES.format(error.name), "Install the packages above first.")


def _transports() -> Iterator[Finding]:
    loopback = facts.loopback_failure()
    yield findings.of_loopback(loopback)
    try:
        memfd = facts.memfd_available()
        failure = facts.shared_memory_failure() if memfd else "there is no memfd"
    except ImportError as error:
        lacks = NEEDS_PACKAGES.format(error.name)
        yield Finding("shared memory", "warning", lacks, "Install the packages above first.")
        return
    yield findings.of_memfd(memfd)
    yield findings.of_shared_memory(failure)
    yield findings.of_transport(memfd, failure, loopback)
