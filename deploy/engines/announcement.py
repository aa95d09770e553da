"""The address of the first server, in a file of the run directory that all nodes see."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from downpour.protos.settings import ANY_HOST

FOLDER = "places"
POLL_S = 0.2
TIMEOUT_S = 300.0  # nodes may start minutes apart


class NoAnnouncement(Exception):
    """The first server has not announced its address in time."""


def announce(run_dir: Path, attempt: int, address: str, host: str) -> None:
    """Write the address of the first server.

    Args:
        run_dir: The run directory.
        attempt: The number of times that the engine has started the job again; an earlier address is not valid.
        address: `HOST:PORT` as the server has announced it; the host may be that of every interface.
        host: The name under which other nodes reach this one.
    """
    bound, _, port = address.rpartition(":")
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    written = folder / f"{attempt}.tmp"
    written.write_text(json.dumps({"address": f"{host}:{port}" if bound in ANY_HOST else address}))
    os.replace(written, folder / f"{attempt}.json")


def announce_failure(run_dir: Path, attempt: int, reason: str) -> None:
    """Write that the first server has failed, so that no task waits for its address."""
    with suppress(OSError):
        (run_dir / FOLDER).mkdir(exist_ok=True)
        (run_dir / FOLDER / f"{attempt}.json").write_text(json.dumps({"failed": reason}))


def await_announcement(run_dir: Path, attempt: int, stopped: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> str:
    """Return the address of the first server, once it is announced.

    Raises:
        NoAnnouncement: It is not announced in time, or this process is asked to stop.
    """
    deadline, name = time.monotonic() + timeout_s, f"{attempt}.json"
    while not stopped():
        with suppress(OSError, ValueError, KeyError):
            if name in os.listdir(run_dir / FOLDER):  # a network file system remembers that a path did not exist
                found = json.loads((run_dir / FOLDER / name).read_text())
                if "failed" in found:
                    raise NoAnnouncement(f"the first server has failed: {found['failed']}")
                return str(found["address"])
        if time.monotonic() > deadline:
            raise NoAnnouncement(
                f"the first server must announce its address in {run_dir / FOLDER} within {timeout_s:.0f} s; it has "
                "not. The folder --runs-dir must be on a file system that all nodes share; see the output of task 0"
            )
        time.sleep(POLL_S)
    raise NoAnnouncement("the task was asked to stop before the first server had announced its address")


def host_of_node(node_name: str) -> str:
    """Return a name under which other nodes reach this one: the engine's if it can be resolved, else its own."""
    with suppress(OSError):
        if node_name:
            socket.getaddrinfo(node_name, None)
            return node_name
    return socket.gethostname()
