"""Collaborators are constructor arguments: no module sets an attribute of another module's object.

What may be set from outside are records of state without behaviour, which the modules of one folder share, and objects
of libraries that are made to be changed. They are listed here by the name under which they are used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RECORDS: dict[str, tuple[str, ...]] = {
    # The state of the job and its parts: dataclasses and state holders inside the pure package.
    "ps/coordinator": (
        "job",
        "self.job",
        "self._job",
        "job.deadlines",
        "self.job.deadlines",
        "self.deadlines",
        "member",
        "lease",
        "barrier",
    ),
    "ps/coordinator/fit": ("job", "job.deadlines", "member", "leader"),
    # A buffer's number of holders; a member's last sequence number; the step count of the weights' own optimizer.
    "ps/core": ("buffer", "self._members[push.worker]", "self._optimizer"),
    # One connection of shared memory; counters of the metrics.
    "ps/data_plane": ("connection", "address", "self.metrics", "runtime.metrics"),
    "ps/data_plane/tcp": ("address",),
    # The time that a worker's steps took; a step's graph; Keras's model and trainer, and the interpreter's arguments.
    "worker/train": ("self._spent",),
    "worker/compute": ("call",),
    "worker/catalog": ("keras.Model",),  # whose method is wrapped while a user's function builds a model
    "worker/loops": ("model",),
    "deploy/scripts": ("model", "model.optimizer"),  # of the program that calls `LocalCluster.fit`
    "worker/fit": ("model", "model.optimizer", "self.model", "self._keras", "self._keras.callbacks_module", "sys"),
    "worker/fit/data": ("options.threading", "options.experimental_optimization"),  # of a tf.data.Dataset
    "worker/fit/optimizer": ("self._member.spent", "self._model"),
    # Protobuf messages under construction.
    "worker/exchange": ("request", "header", "self._registration"),
    # Counts of one benchmark; the worker whose exchange a chaos script observes from outside the product.
    "bench/chaos": ("self._counts", "member"),
    "bench/simulation": ("worker", "self.statistics"),
    # Shards and simulations that are wrong on purpose, to see that the checks find them.
    "bench/conformance": ("self._rule", "worker"),
    "bench/peers": ("parameter", "self.form"),  # PyTorch's parameters, and the module of one thread
    # Parts of the simulated operating system, in one folder; classes and tasks of the standard library; a greenlet,
    # whose parent is what continues when it ends.
    "bench/world/system": (
        "connection", "client", "end", "executor", "disk", "self._inode", "self.world", "self._world", "task",
        "VirtualPath", "self._greenlet",
    ),
}  # fmt: skip
MESSAGES = ("request", "header", "reply", "state")  # protobuf messages, wherever they are


def constructed(function: ast.AST) -> set[str]:
    """Names that a function assigns the result of a call to: objects that it may have constructed itself."""
    found: set[str] = set()
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call | ast.Await):
            targets = node.targets
        elif isinstance(node, ast.With | ast.AsyncWith):
            targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
        found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def assigned_outside(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, object and attribute of every assignment to an object that is neither `self` nor local."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = constructed(function) | {"self", "cls"}
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                owner = ast.unparse(node.value)
                if owner not in own and owner not in MESSAGES:
                    yield node.lineno, owner, node.attr


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy", "bench"])
def test_no_attribute_of_a_collaborator_is_assigned_after_its_construction(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        allowed = RECORDS.get(str(path.parent.relative_to(ROOT)), ())
        if "_pb2" not in path.name:
            wrong += [
                f"{path.relative_to(ROOT)}:{line}: {owner}.{attribute}"
                for line, owner, attribute in assigned_outside(path)
                if owner not in allowed
            ]
    assert wrong == []


def test_an_assignment_from_outside_is_found(tmp_path: Path) -> None:
    source = "def f(host):\n    host.took = 1\n    mine = Host()\n    mine.took = 2\n    self.parts.took, x = 3, 4\n"
    (tmp_path / "module.py").write_text(source)
    assert [(line, owner) for line, owner, _ in assigned_outside(tmp_path / "module.py")] == [
        (2, "host"), (5, "self.parts"),
    ]  # fmt: skip
