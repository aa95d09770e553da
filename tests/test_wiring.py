"""Collaborators are constructor arguments: no module sets an attribute of another module's object.

What may be set from outside are records of state without behaviour, which the modules of one folder share, and objects
of libraries and of users' scripts. They are listed here by the name under which they are used. A function may set the
attributes of objects that it has constructed itself: by a call of a class, which is known by its capital letter.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RECORDS: dict[str, tuple[str, ...]] = {
    # The interpreter's streams; a text with its values, in its own `__new__`.
    "protos": ("sys",),
    "protos/sentences": ("made",),
    # The state of the job and its parts: dataclasses and state holders inside the pure package.
    "ps/coordinator": (
        "job", "self.job", "self._job", "job.deadlines", "self.job.deadlines", "self.deadlines", "member", "lease",
        "task",  # a protobuf message
    ),
    "ps/coordinator/fit": ("job", "job.deadlines", "member", "leader"),
    # Counters of the metrics, which a checkpoint restores; the number of a member's polls; a protobuf message.
    "ps/control_plane": ("metrics", "member", "progress"),
    # A buffer's number of holders; a member's last sequence number.
    "ps/core": ("buffer", "self._members[push.worker]"),
    # One connection of shared memory; counters of the metrics.
    "ps/data_plane": ("connection", "address", "self.metrics", "runtime.metrics"),
    "ps/data_plane/tcp": ("address",),
    # Keras's model; one of its methods is replaced while a user's function builds a model, or once it is built.
    "worker": ("model",),
    "worker/catalog": ("keras.Model", "model"),
    "worker/loops": ("model", "first"),  # `first`: an optimizer of the user's, whose traced functions refer to the op
    # The time that a worker's steps took; protobuf messages under construction; a step's graph.
    "worker/train": ("self._spent", "registration"),
    "worker/exchange": ("self._registration", "shard"),
    "worker/compute": ("call",),
    # Keras's model, trainer, callbacks and modules; an error of the script.
    "worker/fit": (
        "model", "model.optimizer", "self.model", "self._keras", "self._keras.callbacks_module", "callback", "module",
        "owner", "error",
    ),
    "worker/fit/data": ("options.threading", "options.experimental_optimization"),  # of a tf.data.Dataset
    # The optimizers of the script, of which Keras may hold copies and wrappers. The script has constructed them, and
    # their class is replaced afterwards: what the class needs (`gradient_op`, `slot_source`, `kept_counts`) cannot be
    # an argument of their constructor. `object.__setattr__` passes by Keras, which would track or refuse the attribute.
    "worker/fit/optimizer": (
        "self._member.spent", "self._model", "optimizer", "inner", "shown", "whole", "owner",
        "BaseOptimizer",
    ),
    "worker/fit/local": ("self.optimizer",),
    # Modules, classes and errors of Python and of libraries, whose functions are replaced so that each worker of a
    # script has its own view of files, randomness and time.
    "worker/fit/process": (
        "os", "sys", "shutil", "tarfile", "tokenize", "SourceFileLoader", "spec.loader", "dataset", "gfile",
        "gfile.GFile", "h5py.File", "wandb", "client", "external", "module", "owner", "error",
    ),
    "deploy": ("threading", "action", "of_command.add_argument('script', nargs='*')"),  # argparse's, for the completion
    "deploy/ray": ("process",),  # the remote call of a process that is awaited, a field of its record
    "deploy/scripts": (
        "model", "model.optimizer",  # of the program that calls `LocalCluster.fit`
        "found",  # a copy of the description of a setting
    ),
    "deploy/view": ("own",),  # a protobuf message
    # Counts of one benchmark; the worker whose exchange a chaos script observes from outside the product.
    "bench/chaos": ("self._counts", "member"),
    "bench/simulation": ("worker", "self.statistics"),
    # Shards and simulations that are wrong on purpose, to see that the checks find them; the last of their pushes.
    "bench/conformance": ("self._rule", "worker", "buffer"),
    "bench/replay": ("replay",),
    "bench/peers": ("parameter", "self.form"),  # PyTorch's parameters, and the module of one thread
    # Flags of a command, which `--quick` and its like reduce.
    "bench/competitors": ("flags",),
    "bench/speed": ("flags",),
    "bench/training": ("flags",),
    # Parts of the simulated operating system, in one folder; classes and tasks of the standard library; a greenlet,
    # whose parent is what continues when it ends. A fault is injected into a disk or a process, a digest into a world.
    "bench/world/system": (
        "connection", "client", "end", "executor", "disk", "inode", "self._inode", "self.world", "self._world", "task",
        "VirtualPath", "self._greenlet", "call",
    ),
    "bench/world": ("disk", "inode", "process"),
    "bench/world/checks": ("world",),
}  # fmt: skip
SETTERS = ("setattr", "object.__setattr__", "super().__setattr__")
MESSAGES = ("request", "header", "reply", "state")  # protobuf messages, wherever they are


def is_construction(value: ast.expr | None) -> bool:
    """Return whether an expression is a call of a class."""
    if not isinstance(value, ast.Call):
        return False
    name = ast.unparse(value.func).rpartition(".")[2].lstrip("_")
    return name[:1].isupper() or name == "cls"


def constructed(function: ast.AST) -> set[str]:
    """Names that a function assigns an object to which it has constructed itself."""
    found: set[str] = set()
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and is_construction(node.value):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and is_construction(node.value):
            targets = [node.target]
        elif isinstance(node, ast.With | ast.AsyncWith):
            built = [item for item in node.items if is_construction(item.context_expr)]
            targets = [item.optional_vars for item in built if item.optional_vars is not None]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def assigned(node: ast.AST) -> tuple[str, str] | None:
    """Return the object and the attribute that a node assigns, by a statement or by `setattr`."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return ast.unparse(node.value), node.attr
    if isinstance(node, ast.Call) and ast.unparse(node.func) in SETTERS:
        return ast.unparse(node.args[0]), ast.unparse(node.args[1])
    return None


def assigned_outside(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, object and attribute of every assignment to an object that is neither `self` nor built by the function."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = constructed(function) | {"self", "cls"}
        for node in ast.walk(function):
            found = assigned(node)
            if found is not None and found[0] not in own and found[0] not in MESSAGES:
                yield getattr(node, "lineno", 0), *found


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
    source = (
        "def f(host):\n    host.took = 1\n    mine = Host()\n    mine.took = 2\n    self.parts.took, x = 3, 4\n"
        "    other = get()\n    other.took = 5\n    setattr(host, 'took', 6)\n"
        "    object.__setattr__(other, 'took', 7)\n    owner.part = Host()\n    setattr(mine, 'took', 8)\n"
    )
    (tmp_path / "module.py").write_text(source)
    assert sorted((line, owner) for line, owner, _ in assigned_outside(tmp_path / "module.py")) == [
        (2, "host"), (5, "self.parts"), (7, "other"), (8, "host"), (9, "other"), (10, "owner"),
    ]  # fmt: skip
