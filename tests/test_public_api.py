"""The public API is what `downpour.__all__` lists: it imports, it is described, and docs/api.md lists the same."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from typing import Any

import pytest

import downpour
from tests.support.paths import ROOT

HEADING = re.compile(r"^## `(\w+)`$", re.M)
ROW = re.compile(r"^\| \[?`(\w+)`", re.M)
EXAMPLE = re.compile(r"^ {4,}\S", re.M)
API = (ROOT / "docs" / "api.md").read_text()


def test_the_documentation_lists_what_the_package_exports() -> None:
    assert sorted(HEADING.findall(API)) == sorted(downpour.__all__)
    overview = API[: API.index("\n## ")]
    assert sorted(ROW.findall(overview)) == sorted(downpour.__all__)


@pytest.mark.parametrize("name", HEADING.findall(API))
def test_a_section_shows_the_signature_of_what_it_describes(name: str) -> None:
    section = API[API.index(f"## `{name}`") :]
    signature = section[section.index("```python") : section.index("```", section.index("```python") + 3)]
    public = getattr(downpour, name)
    no_call = isinstance(public, type) and issubclass(public, Exception)
    parameters = [] if no_call else list(inspect.signature(public).parameters)
    assert all(parameter in signature for parameter in parameters), signature


def test_every_public_name_is_imported_from_the_package() -> None:
    lines = [f"from downpour import {name}; assert {name}.__name__ == '{name}'" for name in downpour.__all__]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", downpour.__all__)
def test_a_public_name_has_a_docstring_with_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(downpour, name)) or ""
    first = text.splitlines()[0]
    assert len(first.split()) > 5 and first.endswith("."), first
    assert EXAMPLE.search(text), f"{name} must show how it is used"


def functions_of(public: Any) -> list[Any]:
    if not isinstance(public, type):
        return [public]
    named = {name: value for name, value in vars(public).items() if inspect.isfunction(value)}
    return [value for name, value in named.items() if name == "__init__" or not name.startswith("_")]


@pytest.mark.parametrize("name", downpour.__all__)
def test_public_functions_describe_their_parameters(name: str) -> None:
    public = getattr(downpour, name)
    for function in functions_of(public):
        text = (inspect.getdoc(function) or "") + (inspect.getdoc(public) or "")
        described = set(re.findall(r"^\s+(\w+):", text, re.M))
        parameters = set(inspect.signature(function).parameters) - {"self"}
        assert parameters <= described, f"{function.__qualname__}: {parameters - described}"


def test_all_public_names_are_listed_and_no_other_is_found() -> None:
    assert set(downpour.__all__) <= set(dir(downpour))
    with pytest.raises(AttributeError, match="has no attribute 'Server'"):
        downpour.Server  # noqa: B018


WITHOUT_KERAS = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("keras", "tensorflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from downpour import DistributedOptimizer
"""


def test_a_name_that_needs_keras_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_KERAS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "downpour.DistributedOptimizer needs Keras" in done.stderr
    assert f"-m pip install -e '{ROOT}[worker]'" in done.stderr
