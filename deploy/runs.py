"""Finds runs: `latest` and the other names of directories in the folder `runs`, and the jobs that run now."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from downpour.protos.settings import ENV_PREFIX, host_and_port

RUNS = "runs"
LATEST = "latest"
TRACE = "trace.npy"  # begins with the first update
ADDRESS = "address"  # the file with the address of a coordinator, as long as it runs


def runs_folder() -> Path:
    """Return the folder of the runs, as the environment sets it for all commands."""
    return Path(os.environ.get(f"{ENV_PREFIX}RUNS_DIR") or RUNS)


def run_path(name: str) -> str:
    """Return the path of a run that is named by its path, or by its name in the folder of the runs.

    `latest` is the link in this folder also if there is none yet, so that a message says where it was looked for.
    """
    inside = runs_folder() / name
    return str(inside) if name and not Path(name).exists() and (inside.is_dir() or name == LATEST) else name


def running(folder: Path) -> list[Path]:
    """Return the directories of the runs in a folder whose coordinator runs, the newest first."""
    found = [path.parent for path in folder.glob(f"*/{ADDRESS}") if path.parent.name != LATEST]
    return sorted(filter(is_locked, found), key=lambda path: path.name, reverse=True)


def withdraw_latest(run: Path) -> None:
    """Remove the link `latest` if it names a run that has ended and has trained nothing."""
    link = run.parent / LATEST
    with suppress(OSError):
        if link.is_symlink() and link.resolve() == run.resolve() and not (run / TRACE).exists():
            link.unlink()


def is_locked(run: Path) -> bool:
    """Return whether a coordinator holds the lock of its run directory, or there is no lock to tell."""
    try:
        with (run / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is held, or there is none
        return True
    return False


def address_of(name: str) -> str:
    """Return the address of the coordinator of a job that is named by its address or by its run.

    `latest` is the newest job that runs; it may not have trained yet.

    Raises:
        LookupError: There is no such run, or its coordinator has ended.
    """
    try:
        return host_and_port(name)
    except ValueError:
        pass  # the name is not an address, but that of a run
    if name == LATEST and not Path(name).exists() and (newest := running(runs_folder())):
        return (newest[0] / ADDRESS).read_text().strip()
    path = Path(run_path(name))
    if not path.is_dir():
        raise LookupError(f"ADDRESS must be HOST:PORT of a coordinator, or a run; there is no run {name}")
    try:
        return (path / ADDRESS).read_text().strip()
    except OSError:
        raise LookupError(f"the coordinator of {path} has ended") from None


RunPath = Annotated[str, AfterValidator(run_path)]
