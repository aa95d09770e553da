"""Translates `TF_CONFIG` into flags of `downpour ps` and `downpour worker`. Pure: opens nothing.

Kubeflow's TFJob and Vertex AI set this variable in every container, and SageMaker sets it for every script:

    {"cluster": {"ps": ["a:2222"], "chief": ["b:2222"], "worker": ["c:2222"]}, "task": {"type": "ps", "index": 0}}

`ps` task 0 is the coordinator. A chief is a worker like the others. An evaluator only evaluates; Kubeflow does not list
it in the cluster. `master` is SageMaker's older name for the chief. A TFJob with dynamic workers uses `sparseCluster`,
in which a worker is given the servers and itself, a server only itself, and a chief or an evaluator nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from downpour.protos.settings import ENV_PREFIX, host_and_port

VARIABLE = "TF_CONFIG"
COMMAND_OF: dict[str, Literal["ps", "worker"]] = {
    "ps": "ps",
    "chief": "worker",
    "master": "worker",
    "worker": "worker",
    "evaluator": "worker",
}
CHIEFS = ("chief", "master")
_LOOPBACK = ("127.", "localhost:", "[::1]:")


class BadTFConfig(ValueError):
    """`TF_CONFIG` is invalid; the message says what must hold, what was received and what to do."""


@dataclass(frozen=True)
class Task:
    """One process of a cluster.

    Attributes:
        kind: The type in `TF_CONFIG`: ps, chief, master, worker or evaluator.
        index: The index among the tasks of this kind.
        cluster: `HOST:PORT` by kind and index.
        alone: Whether the cluster lists only this task.
    """

    kind: str
    index: int
    cluster: Mapping[str, Mapping[int, str]]
    alone: bool = False

    @property
    def command(self) -> Literal["ps", "worker"]:
        """The command of `downpour` that runs this task."""
        return COMMAND_OF[self.kind]

    @property
    def flags(self) -> dict[str, str]:
        """The settings of that command that place the process in the cluster, by field."""
        return self._of_server() if self.command == "ps" else self._of_worker()

    def _count(self, *kinds: str) -> int:
        return sum(len(self.cluster.get(kind, {})) for kind in kinds)

    def _of_server(self) -> dict[str, str]:
        address = self.cluster["ps"][self.index]
        bind = address if address.startswith(_LOOPBACK) else f"[::]:{address.rpartition(':')[2]}"
        own = {"bind": bind, "shard": str(self.index)}
        if not address.endswith(":0"):  # port 0: the system chooses a port, which the server announces
            own["advertise"] = address
        if self.alone:  # Kubeflow's host names differ only in the index; the number of servers must be a setting
            first = address.replace(f"-ps-{self.index}.", "-ps-0.", 1)
            return {**own, "coordinator": first} if first != address else own
        if self.index:
            return {**own, "coordinator": self.cluster["ps"][0]}
        workers = self._count(*CHIEFS, "worker")
        return {**own, "shards": str(self._count("ps")), **({"workers": str(workers)} if workers else {})}

    def _of_worker(self) -> dict[str, str]:
        chiefs, workers = self._count(*CHIEFS), self._count("worker")
        first = {"chief": 0, "master": 0, "worker": chiefs, "evaluator": chiefs + workers}[self.kind]
        # A worker that is not given all others must be numbered by the coordinator.
        number = {} if self.kind == "evaluator" and not workers else {"worker": str(first + self.index)}
        evaluator = {"evaluator": "true"} if self.kind == "evaluator" else {}
        return {"server": self.cluster["ps"][0], **number, **evaluator}


def read(text: str) -> Task:
    """Parse the value of the variable.

    Raises:
        BadTFConfig: It is not JSON, or does not describe a task of a cluster with a parameter server.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"must be JSON ({error})", text) from None
    if not isinstance(config, dict):
        raise _bad("must be a JSON object", text)
    sparse = config.get("cluster") is None and "sparseCluster" in config
    cluster = _cluster(config["sparseCluster"] if sparse else config.get("cluster"))
    kind, index = _task(config.get("task"))
    alone = sparse and kind == "ps" and len(cluster["ps"]) == 1
    if alone:
        cluster["ps"] = dict.fromkeys([index], *cluster["ps"].values())
    else:
        _check_servers(cluster, sparse)
    if index not in cluster.get(kind, {}) and kind != "evaluator":
        there = ", ".join(f"{len(members)} {name}" for name, members in cluster.items())
        raise _bad(f"must list its own task in its cluster, which has {there}", f"{kind} {index}")
    if (kind, index) != ("ps", 0) and cluster.get("ps", {}).get(0, "").endswith(":0"):
        raise _bad("must give the port of ps 0", cluster["ps"][0])
    return Task(kind, index, cluster, alone)


def arguments(command: str, environ: Mapping[str, str], given: Sequence[str]) -> list[str]:
    """Return the arguments of `downpour ps` or `downpour worker` with the flags that follow from `TF_CONFIG`.

    Args:
        command: `ps` or `worker`.
        environ: The environment, in which a `DOWNPOUR_*` variable takes precedence over `TF_CONFIG`.
        given: The arguments of the command line, which take precedence over both.

    Raises:
        BadTFConfig: The variable is set and invalid, or describes a task of the other command.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return list(given)
    task = read(text)
    if task.command != command:
        right = f"`downpour {task.command}`"
        raise _bad(f"must describe a task of `downpour {command}`; {right} runs this one", task.kind)
    variables = {name.upper() for name, value in environ.items() if value}
    flags = {name: value for name, value in task.flags.items() if f"{ENV_PREFIX}{name.upper()}" not in variables}
    return [*(_flag(name, value) for name, value in flags.items()), *given]


def _flag(name: str, value: str) -> str:
    typed = f"--{name.replace('_', '-')}"
    return typed if value == "true" else f"{typed}={value}"


def _cluster(value: Any) -> dict[str, dict[int, str]]:
    if not isinstance(value, dict):
        raise _bad('must have a "cluster", an object of lists of HOST:PORT', value)
    cluster = {str(kind): _members(str(kind), members) for kind, members in value.items() if kind in COMMAND_OF}
    if all(cluster.get(kind) for kind in CHIEFS):
        raise _bad("must have a chief or a master in its cluster, not both", value)
    return {"ps": {}, **cluster}


def _members(kind: str, value: Any) -> dict[int, str]:
    """Parse a list of addresses, or an object from index to address, which TensorFlow also accepts."""
    try:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {_whole(index): host_and_port(address) for index, address in pairs}
    except (TypeError, ValueError, AttributeError):
        raise _bad(f'must have a list of HOST:PORT for "{kind}"', value) from None


def _check_servers(cluster: Mapping[str, Mapping[int, str]], sparse: bool) -> None:
    """Raise BadTFConfig unless the servers are numbered from 0 and have different addresses."""
    servers = cluster["ps"]
    if not servers:
        must = "must have a ps in its cluster, which holds the weights"
        add = "a TFJob with dynamic workers gives its address only to workers" if sparse else "add a ps replica"
        raise _bad(f"{must} ({add})", sorted(kind for kind, members in cluster.items() if members))
    fixed = [address for address in servers.values() if not address.endswith(":0")]
    if sorted(servers) != list(range(len(servers))) or len(set(fixed)) < len(fixed):
        raise _bad('must number its "ps" from 0 without gaps, each with a different address', servers)


def _task(value: Any) -> tuple[str, int]:
    if not isinstance(value, dict):
        raise _bad('must have a "task", an object with "type" and "index"', value)
    kind, index = value.get("type"), value.get("index", 0)
    if not isinstance(kind, str) or kind not in COMMAND_OF:
        raise _bad(f'must have a task whose "type" is one of {", ".join(COMMAND_OF)}', kind)
    try:
        return kind, _whole(index)
    except ValueError:
        raise _bad('must have a task whose "index" is an integer of at least 0', index) from None


def _whole(value: Any) -> int:
    """Return an integer of at least 0, given as a number or as digits; raise ValueError otherwise."""
    digits = "" if isinstance(value, bool) else str(value)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("must be an integer of at least 0")
    return int(digits)


def _bad(must: str, received: object) -> BadTFConfig:
    shown = received if isinstance(received, str) else json.dumps(received, default=str)
    short = shown if len(shown) <= 200 else f"{shown[:200]}…"
    return BadTFConfig(f"{VARIABLE} {must}; received {short}. Correct it, or unset it and use flags instead.")
