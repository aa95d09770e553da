"""The actor that runs one process of a job on a node of a Ray cluster.

The process is a child of the actor and ends with it (see launch/child.py), so that a lost node or a killed actor
leaves nothing behind. This module does not import `ray`: the actor is an instance of a plain class.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.launch.processes import ParentPipe, Process, end
from downpour.deploy.launch.scratch import Scratch

BIND, TLS_DIR = "--bind=", "--tls-dir="
GRACE_S = 1.0


@dataclass(frozen=True)
class StartRequest:
    """What an actor runs.

    Attributes:
        spec: The process of the plan.
        addresses: `HOST:PORT` of the running servers, by name.
        variables: Variables of the driver that its processes inherit.
        access: The files with the credentials of the job, by name; they never lie in a shared folder.
        shared: A folder that servers must see on every node; None for a worker.
        bound_on: The id of the node on which the address in the flags was bound; empty at the first start.
    """

    spec: ProcessSpec
    addresses: Mapping[str, str]
    variables: Mapping[str, str]
    access: Mapping[str, bytes]
    shared: str | None = None
    bound_on: str = ""


@dataclass(frozen=True)
class ProcessState:
    """What the driver learns of a process.

    Attributes:
        pid: Its id on its node.
        node: The id of the node.
        code: Its exit status; None while it runs.
        output: What it has printed since the last request.
    """

    pid: int
    node: str
    code: int | None
    output: bytes = b""


class NodeProcess:
    """An actor that runs one process."""

    def __init__(self, node: str, address: str) -> None:
        """Create the folder of its files.

        Args:
            node: The id of this node; empty if the actor is to find out.
            address: The address of this node; empty if the actor is to find out.
        """
        self._node, self._address = node or _node_id(), address or _node_address()
        self._scratch, self._parent_pipe = Scratch(), ParentPipe()
        self._process: Process | None = None
        self._offset = 0

    def start(self, request: StartRequest) -> ProcessState:
        """Start the process.

        Raises:
            FileNotFoundError: A server does not see the run directory.
        """
        if request.shared is not None and not os.path.isdir(request.shared):
            raise FileNotFoundError(
                f"--runs-dir must be on a file system that all nodes share, as a server continues there from its "
                f"checkpoint on another node; node {self._address} does not see {request.shared}"
            )
        access = self._scratch.path / "access"
        access.mkdir(0o700)
        for name, content in request.access.items():
            with os.fdopen(os.open(access / name, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(content)
        spec = placed(request, self._node, self._address, str(access))
        own = {"TMPDIR": str(self._scratch.path)} if not spec.foreign else {}
        spec = replace(spec, env={**spec.env, **request.variables, **own})
        (self._scratch.path / "logs").mkdir()
        kept = (self._scratch.holding,)
        self._process = Process(spec, request.addresses, self._scratch.path / "logs", self._parent_pipe, kept)
        return self.poll()

    def poll(self) -> ProcessState:
        """Return the state of the process and its new output."""
        assert self._process is not None
        code = self._process.code  # first: what is printed before the end is part of the output then
        with self._process.log.open("rb") as log:
            log.seek(self._offset)
            output = log.read(1 << 20)
        self._offset += len(output)
        complete = code if len(output) < 1 << 20 else None
        return ProcessState(self._process.pid, self._node, complete, output)

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            self._process.send(signal.Signals(number))

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process is not None:
            end([self._process], GRACE_S)
        self._scratch.close()


def placed(request: StartRequest, node: str, address: str, access: str) -> ProcessSpec:
    """Return the process as it runs on a node: a server binds the node's address, and keeps its port there. Pure."""
    args = list(request.spec.args)
    if request.spec.role == "ps" and request.bound_on != node:
        args = [f"{BIND}{_with_port(address)}" if arg.startswith(BIND) else arg for arg in args]
    if request.access:
        args = [arg for arg in args if not arg.startswith(TLS_DIR)]
        args.insert(0, f"{TLS_DIR}{access}")
    return replace(request.spec, args=tuple(args))


def _with_port(host: str) -> str:
    return f"[{host}]:0" if ":" in host else f"{host}:0"


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _node_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
