"""The documents name files, functions and classes that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
NAME_IN_FILE = re.compile(r"\]\(([^)]+\.py)\) `([A-Za-z_][\w.]*)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing, f"{document.name} links to what does not exist: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_in_the_files_they_are_said_to_be_in(document: Path) -> None:
    for link, name in NAME_IN_FILE.findall(document.read_text()):
        names = _names((document.parent / link).read_text())
        assert name in names, f"{document.name}: {link} has no {name}"


def test_every_guarantee_names_tests_that_exist() -> None:
    """In docs/guarantees.md a test is `test_file.py::test_name`, or `test_file.py` where all of it is meant."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text)
    assert named
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        names = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert not test or test in names, f"guarantees.md names {file}::{test}, which does not exist"
    tables = re.findall(r"^\| guarantee .*\n(?:\|.*\n?)+", text, re.M)
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 20
    untested = [row for row in rows if "`test_" not in row and "`downpour bench" not in row]
    assert not untested, f"guarantees without a test: {untested}"


def _names(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names.update(f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef))
            names.update(f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.AsyncFunctionDef))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


@pytest.mark.parametrize("package", ["protos", "ps", "worker", "deploy"])
def test_the_map_names_every_file(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    house = text[text.index("## The house") : text.index("## Five decisions")]
    named = set(re.findall(r"[\w-]+\.py\b", house))
    files = {path.name for path in (ROOT / package).glob("*.py") if "_pb2" not in path.name}
    missing = files - named - {"__init__.py"}
    assert not missing, f"docs/architecture.md must name every file of {package}/; it lacks {sorted(missing)}"
