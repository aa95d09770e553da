"""The cluster and the task that `TF_CONFIG` describes, as flags of `downpour ps` and `downpour worker`.

Kubeflow's TFJob, Vertex AI and SageMaker set this variable in every container that they start:

    {"cluster": {"ps": ["a:2222"], "chief": ["b:2222"], "worker": ["c:2222"]}, "task": {"type": "ps", "index": 0}}

`ps` task 0 coordinates, the others follow it. A chief is a worker like the others. An evaluator takes evaluation
tasks only; Kubeflow leaves it out of the cluster. `master` is SageMaker's older word for the chief, and a TFJob
with dynamic workers says `sparseCluster`, in which a worker knows the servers and itself alone. Pure: opens nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from protos.settings import ENV_PREFIX, host_and_port

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
    """`TF_CONFIG` is not what it must be; the message says what must hold, what came and what to do."""


@dataclass(frozen=True)
class Task:
    """One process of a cluster.

    Attributes:
        kind: As `TF_CONFIG` names it: ps, chief, master, worker, evaluator.
        index: Among those of its kind.
        cluster: `HOST:PORT` by kind and index.
    """

    kind: str
    index: int
    cluster: Mapping[str, Mapping[int, str]]

    @property
    def command(self) -> Literal["ps", "worker"]:
        """The command that runs this task."""
        return COMMAND_OF[self.kind]

    @property
    def flags(self) -> dict[str, str]:
        """Settings of that command, by field: the server's or the worker's place in the cluster."""
        return self._of_server() if self.command == "ps" else self._of_worker()

    def _count(self, *kinds: str) -> int:
        return sum(len(self.cluster.get(kind, {})) for kind in kinds)

    def _of_server(self) -> dict[str, str]:
        address = self.cluster["ps"][self.index]
        bind = address if address.startswith(_LOOPBACK) else f"[::]:{address.rpartition(':')[2]}"
        own = {"bind": bind, "shard": str(self.index)}
        if not address.endswith(":0"):  # else the system chooses a port, and the server says which
            own["advertise"] = address
        if self.index:
            return {**own, "coordinator": self.cluster["ps"][0]}
        workers = self._count(*CHIEFS, "worker")
        return {**own, "shards": str(self._count("ps")), **({"workers": str(workers)} if workers else {})}

    def _of_worker(self) -> dict[str, str]:
        chiefs, workers = self._count(*CHIEFS), self._count("worker")
        first = {"chief": 0, "master": 0, "worker": chiefs, "evaluator": chiefs + workers}[self.kind]
        # Where a worker does not see all others, nobody can number it but the coordinator.
        number = {} if self.kind == "evaluator" and not workers else {"worker": str(first + self.index)}
        evaluator = {"evaluator": "true"} if self.kind == "evaluator" else {}
        return {"server": self.cluster["ps"][0], **number, **evaluator}


def read(text: str) -> Task:
    """The task that the variable's text describes.

    Raises:
        BadTFConfig: It is not JSON, or does not describe a task of a cluster with a parameter server.
    """
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _bad(f"must be JSON ({error})", text) from None
    if not isinstance(config, dict):
        raise _bad("must be a JSON object", text)
    cluster = _cluster(config.get("cluster") or config.get("sparseCluster"))
    kind, index = _task(config.get("task"))
    if index not in cluster.get(kind, {}) and kind != "evaluator":
        there = {name: len(members) for name, members in cluster.items()}
        raise _bad(f"must list its own task in its cluster, which has {there}", f"{kind} {index}")
    return Task(kind, index, cluster)


def arguments(command: str, environ: Mapping[str, str], given: Sequence[str]) -> list[str]:
    """The command line of `downpour ps` or `downpour worker` with what `TF_CONFIG` adds to it.

    Args:
        command: `ps` or `worker`.
        environ: The environment; a `DOWNPOUR_*` variable wins over `TF_CONFIG`.
        given: The arguments as they were typed; they win over both, for of two flags the last one counts.

    Raises:
        BadTFConfig: The variable is set and cannot be used, or is of the other command's task.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return list(given)
    task = read(text)
    if task.command != command:
        right = f"`downpour {task.command}`"
        raise _bad(f"must be of a task that `downpour {command}` runs; {right} runs this one", task.kind)
    said = {name.upper() for name, value in environ.items() if value}
    taken = {name: value for name, value in task.flags.items() if f"{ENV_PREFIX}{name.upper()}" not in said}
    return [*(_flag(name, value) for name, value in taken.items()), *given]


def _flag(name: str, value: str) -> str:
    typed = f"--{name.replace('_', '-')}"
    return typed if value == "true" else f"{typed}={value}"


def _cluster(value: Any) -> dict[str, dict[int, str]]:
    if not isinstance(value, dict):
        raise _bad('must have a "cluster", an object of lists of HOST:PORT', value)
    cluster = {str(kind): _members(str(kind), members) for kind, members in value.items() if kind in COMMAND_OF}
    if 0 not in cluster.get("ps", {}):
        must = "must have a ps in its cluster, for it holds the weights (add a replica of that type)"
        raise _bad(must, sorted(value))
    return cluster


def _members(kind: str, value: Any) -> dict[int, str]:
    """A list, or as TensorFlow allows it an object from index to address."""
    try:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {int(index): host_and_port(address) for index, address in pairs}
    except (TypeError, ValueError, AttributeError):
        raise _bad(f'must have a list of HOST:PORT for "{kind}"', value) from None


def _task(value: Any) -> tuple[str, int]:
    if not isinstance(value, dict):
        raise _bad('must have a "task", an object with "type" and "index"', value)
    kind, index = value.get("type"), value.get("index", 0)
    if kind not in COMMAND_OF:
        raise _bad(f'must have a task whose "type" is one of {", ".join(COMMAND_OF)}', kind)
    if isinstance(index, bool) or not str(index).isascii() or not str(index).isdigit():
        raise _bad('must have a task whose "index" is a whole number from 0', index)
    return kind, int(index)


def _bad(must: str, received: object) -> BadTFConfig:
    shown = received if isinstance(received, str) else json.dumps(received, default=str)
    short = shown if len(shown) <= 200 else f"{shown[:200]}…"
    return BadTFConfig(f"{VARIABLE} {must}; received {short}. Correct it, or unset it and use flags.")
