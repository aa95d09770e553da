"""Checks that the source of `module:function` can give a model, without running it or loading TensorFlow.

A launcher checks so what a worker would find only after it has loaded TensorFlow. What cannot be known from the source,
such as a name that `exec` binds, is left to the worker.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from downpour.worker.catalog.user_models import ModelError
from downpour.worker.python_source import syntax_error

OFFERED = ("input_shape", "classes")  # the arguments that a model's function may require
# A module that uses one of these may bind names, or find modules, in ways that its source does not show.
DYNAMIC = frozenset({"exec", "eval", "globals", "locals", "vars", "setattr", "__getattr__", "sys"})
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
VALUES = (ast.Constant, ast.List, ast.Dict, ast.Tuple, ast.Set, ast.JoinedStr)


def check_source(spec: str) -> None:
    """Check that the module of `module:function` exists, parses, and binds a function that may build a model.

    Raises:
        ModelError: It does not; the message names what is missing, or the line that Python cannot parse.
    """
    module, _, function = spec.partition(":")
    found = find_module(module)
    if found is None:
        raise ModelError(f"must name a module that can be found in {os.getcwd()} or on the Python path")
    if found.origin is None or not found.origin.endswith(".py"):
        return
    tree = _parsed(Path(found.origin))
    if DYNAMIC & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        return
    for name in _imported(tree):
        if find_module(name) is None and importlib.util.find_spec(name) is None:
            raise ModelError(f"must name a module whose imports are installed; {module} imports {name}, which is not")
    _check_function(tree, module, function)


def find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return the spec of a module in the current folder or on the Python path, without importing its packages."""
    places: Sequence[str] | None = [os.getcwd(), *sys.path]
    found = None
    for part in name.split("."):
        if places is None:  # the part before is a module
            return None
        found = importlib.machinery.PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = found.submodule_search_locations
    return found


def _parsed(path: Path) -> ast.Module:
    source = path.read_bytes()
    if failure := syntax_error(path, source):
        raise ModelError(f"must name a module that Python can parse; {path}: {type(failure).__name__}: {failure}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _check_function(tree: ast.Module, module: str, function: str) -> None:
    bound = list(_bindings(tree))
    functions = sorted({name for name, node in bound if isinstance(node, SCOPES)})
    mine = [node for name, node in bound if name == function]
    if not mine and "*" not in {name for name, _ in bound}:
        has = ", ".join(functions) or "none"
        raise ModelError(f"must name a function that {module} defines; its functions are: {has}")
    if mine and all(isinstance(node, VALUES) for node in mine):
        raise ModelError(f"must name a function; {function} in {module} is a value")
    if len(mine) == 1 and isinstance(mine[0], ast.FunctionDef) and not mine[0].decorator_list:
        if unknown := [name for name in _required(mine[0].args) if name not in OFFERED]:
            raise ModelError(
                f"must name a function that requires no parameters other than {' and '.join(OFFERED)}; {function} "
                f"requires {', '.join(unknown)} too. Give these parameters a default"
            )


def _required(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [each.arg for each in (*required, *(name for name, default in keyword if default is None))]


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope without those of the functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from _own_nodes(child)


def _bindings(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that a module binds, each with the definition, the value or the statement; `*` for a star."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from ((name, node) for name in node.names)
    assigned = set()
    for node in _own_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            assigned.add(node.targets[0])
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in assigned:
            yield node.id, node


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level packages that a module imports unconditionally."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
