"""Modules, functions and constructors have the sizes that CONTRIBUTING.md states, with few exceptions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from tests.support.sources import MODULES

Function = ast.FunctionDef | ast.AsyncFunctionDef

MODULE_LINES, FUNCTION_LINES, CONSTRUCTOR_ARGUMENTS = 250, 40, 6
LONG_MODULES, LONG_FUNCTIONS, LARGE_CONSTRUCTORS = 65, 10, 5  # that may exceed these sizes
MOST_MODULE_LINES, MOST_FUNCTION_LINES, MOST_CONSTRUCTOR_ARGUMENTS = 620, 60, 10  # of an exception


def functions() -> Iterator[tuple[str, Function]]:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield f"{module}.{node.name}", node


def lines(function: Function) -> int:
    """The lines of a function from its first statement on: without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1


def arguments(function: Function) -> int:
    """The number of arguments of a constructor, without `self`."""
    return len(function.args.posonlyargs) + len(function.args.args) - 1 + len(function.args.kwonlyargs)


def sizes(kind: str) -> dict[str, int]:
    if kind == "modules":
        return {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    if kind == "functions":
        return {f"{name}:{node.lineno}": lines(node) for name, node in functions()}
    return {f"{name}:{node.lineno}": arguments(node) for name, node in functions() if node.name == "__init__"}


@pytest.mark.parametrize(
    "kind, usual, exceptions, most",
    [
        ("modules", MODULE_LINES, LONG_MODULES, MOST_MODULE_LINES),
        ("functions", FUNCTION_LINES, LONG_FUNCTIONS, MOST_FUNCTION_LINES),
        ("constructors", CONSTRUCTOR_ARGUMENTS, LARGE_CONSTRUCTORS, MOST_CONSTRUCTOR_ARGUMENTS),
    ],
)
def test_few_are_larger_than_the_usual_size_and_none_is_much_larger(
    kind: str, usual: int, exceptions: int, most: int
) -> None:
    larger = {name: size for name, size in sizes(kind).items() if size > usual}
    assert len(larger) <= exceptions, f"divide one of these {kind}, or write a smaller one: {larger}"
    assert max(larger.values(), default=0) <= most, f"divide what is larger than {most}: {larger}"


def test_the_sizes_are_those_of_the_page() -> None:
    (rule,) = re.findall(r"^2\. .*?(?=^3\. )", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M)
    assert [int(number) for number in re.findall(r"\b\d+\b", rule)[1:]] == [
        MODULE_LINES, LONG_MODULES, MOST_MODULE_LINES, FUNCTION_LINES, LONG_FUNCTIONS, MOST_FUNCTION_LINES,
        CONSTRUCTOR_ARGUMENTS, LARGE_CONSTRUCTORS, MOST_CONSTRUCTOR_ARGUMENTS,
    ]  # fmt: skip
