"""Folders are small, say what is in them, and are laid out alike in the sources and in the tests."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.sources import MODULES, PACKAGES, sources

MOST_MODULES = 15  # in a folder
WITHOUT_PACKAGE = {"jobs", "keras", "scripts", "support"}  # folders of tests


def test_no_folder_is_crowded() -> None:
    """The scripts that tests run are data, one file per case, and are not counted."""
    count: dict[Path, int] = {}
    for path in (*MODULES.values(), *sources("tests")):
        if path.name not in ("__init__.py", "__main__.py") and "scripts" not in path.relative_to(ROOT).parts[1:2]:
            count[path.parent] = count.get(path.parent, 0) + 1
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in count.items() if n > MOST_MODULES}
    assert crowded == {}


def test_every_folder_states_its_content_and_its_imports() -> None:
    for path in MODULES.values():
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert "import" in text and len(text.split()) > 10, f"{path}: {text!r}"


def test_no_module_has_a_vague_name() -> None:
    names = {path.stem for folder in (*PACKAGES, "tests") for path in sources(folder)}
    assert names & {"utils", "util", "common", "helpers", "helper", "manager", "misc"} == set()


def test_tests_lie_in_folders_like_those_of_the_sources() -> None:
    """The folders `jobs` and `keras` have the tests of several packages together, in real processes."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in sources("tests")} - {Path(".")}
    wrong = {
        str(folder) for folder in folders if folder.parts[0] not in WITHOUT_PACKAGE and not (ROOT / folder).is_dir()
    }
    assert wrong == set()


def test_shared_test_code_is_in_the_folder_support() -> None:
    """Every other file of tests is a test, a script that a test runs, or pytest's own."""
    wrong = {
        str(path.relative_to(ROOT)) for path in sources("tests")
        if path.relative_to(ROOT / "tests").parts[0] not in ("support", "scripts")
        and not path.name.startswith("test_") and path.name not in ("__init__.py", "conftest.py")
    }  # fmt: skip
    assert wrong == set()
