"""Folders are small, say what is in them, and are laid out alike in the sources and in the tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.import_rules import MAY_IMPORT, NO_TENSORFLOW, PS_SETTINGS
from tests.support.paths import ROOT
from tests.support.sources import MODULES, PACKAGES, sources

MOST_MODULES = 15  # in a folder
FOLDERS = [module for module, path in MODULES.items() if path.name == "__init__.py"]
WITHOUT_PACKAGE = {"jobs", "keras", "scripts", "support"}  # folders of tests


def test_no_folder_is_crowded() -> None:
    """The scripts that tests run are data, one file per case, and are not counted."""
    count: dict[Path, int] = {}
    for path in (*MODULES.values(), *sources("tests")):
        if path.name not in ("__init__.py", "__main__.py") and "scripts" not in path.relative_to(ROOT).parts[1:2]:
            count[path.parent] = count.get(path.parent, 0) + 1
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in count.items() if n > MOST_MODULES}
    assert crowded == {}


def content(package: str) -> str:
    """The text of a package's docstring in one line."""
    return " ".join((ast.get_docstring(ast.parse(MODULES[package].read_text())) or "").split())


def stated_imports(text: str) -> set[str]:
    """The rules, as in a row of MAY_IMPORT, that the first sentence with `may import` states.

    The sentence lists names of rows, "all of `x`" for `x.*`, and "the settings of `ps`". It may end with "and what
    these may import", which stands for the rows of the names before, or consist of "nothing of the project".
    """
    sentence = re.search(r"\bmay import ((?:`[^`]+`|[^.;`])+)[.;]", text)
    assert sentence, f"the text must contain a sentence with `may import`: {text!r}"
    words = sentence[1].replace("nothing of the project", "")
    (rest, count) = re.subn(r"what (that|these) may import", "", words)
    whole = {f"{name}.*" for name in re.findall(r"all of `([\w.]+)`", rest)}
    rest, settings = re.subn("the settings of `ps`", "", re.sub(r"all of `[\w.]+`", "", rest))
    names = set(re.findall(r"`([\w.]+)`", rest))
    assert names <= set(MAY_IMPORT), f"these are no rows of the table: {names - set(MAY_IMPORT)}"
    unread = set(re.sub(r"`[\w.]+`", "", rest).replace(",", " ").split()) - {"and"}
    assert not unread, f"these words of the sentence have no meaning to this test: {unread}"
    behind = {rule for name in names for rule in MAY_IMPORT[name]} if count else set()
    return names | whole | behind | (PS_SETTINGS if settings else set())


@pytest.mark.parametrize("package", FOLDERS)
def test_every_folder_states_its_content_and_exactly_the_imports_of_the_table(package: str) -> None:
    assert len(content(package).split()) > 10
    assert stated_imports(content(package)) == MAY_IMPORT[package]


def imports_of_parts(package: str) -> set[str]:
    """What the rows of a package's modules and folders allow of the other packages, without `protos`."""
    rules = set().union(*(rules for plane, rules in MAY_IMPORT.items() if plane.startswith(package)))
    return {rule for rule in rules if not rule.startswith((package, "protos"))}


@pytest.mark.parametrize("package", ["worker", "deploy"])
def test_a_package_and_the_documentation_state_what_its_folders_also_import(package: str) -> None:
    page = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    section = page.split(f"### `{package}/`")[1].split("###")[0]
    for text in (content(package), section):
        sentence = re.search(r"folders also import ((?:`[^`]+`|[^.:;`])+)[.:;]", text)
        assert sentence and set(re.findall(r"`([\w.]+)`", sentence[1])) == imports_of_parts(package), text[:200]


def test_what_a_simulator_replaces_of_the_system_is_stated() -> None:
    replaced, others = re.findall(r"((?:`\w+`,? (?:and )?)+)(?:each hold|are not replaced)", content("protos.system"))
    modules = {path.stem: path.read_text() for path in sources("protos/system") if path.name != "__init__.py"}
    have_use = {name for name, text in modules.items() if "\ndef use(" in text}
    assert set(re.findall(r"\w+(?=`)", replaced)) == have_use
    assert set(re.findall(r"\w+(?=`)", others)) == set(modules) - have_use


def test_a_statement_of_other_words_or_names_is_refused() -> None:
    assert stated_imports("It may import `protos`, all of `ps` and `bench`. So.") == {"protos", "ps.*", "bench"}
    assert stated_imports("It may import `ps.storage` and what that may import.") == MAY_IMPORT["ps.data_plane"]
    assert stated_imports("It may import nothing of the project; it is small.") == set()
    for text in ("It imports `protos`.", "It may import `ps.unknown`.", "It may import most of `ps.core`."):
        with pytest.raises(AssertionError):
            stated_imports(text)


def test_a_folder_states_that_it_never_imports_tensorflow_if_a_test_proves_it() -> None:
    stating = {package for package in FOLDERS if re.search(r"never (imports? )?TensorFlow", content(package))}
    proved = {folder.replace("/", ".") for folder in NO_TENSORFLOW}
    assert proved <= stating
    assert {package for package in stating if not any(f"{package}.".startswith(f"{top}.") for top in proved)} == set()


def test_no_module_has_a_vague_name() -> None:
    names = {path.stem for folder in (*PACKAGES, "tests") for path in sources(folder)}
    assert names & {"utils", "util", "common", "helpers", "helper", "manager", "misc"} == set()


def test_every_folder_of_tests_has_a_folder_of_sources() -> None:
    """The folders `jobs` and `keras` have the tests of several packages together, in real processes."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in sources("tests")} - {Path(".")}
    wrong = {
        str(folder) for folder in folders if folder.parts[0] not in WITHOUT_PACKAGE and not (ROOT / folder).is_dir()
    }
    assert wrong == set()


def test_every_folder_of_sources_has_a_folder_of_tests() -> None:
    """Its tests are there, and not only in the folder above."""
    with_code = {path.parent.relative_to(ROOT) for path in MODULES.values() if path.name != "__init__.py"}
    without = {str(folder) for folder in with_code if not list((ROOT / "tests" / folder).glob("test_*.py"))}
    assert without == set(), f"each must have tests in a folder of its name: {sorted(without)}"


def test_shared_test_code_is_in_the_folder_support() -> None:
    """Every other file of tests is a test, a script that a test runs, or pytest's own."""
    wrong = {
        str(path.relative_to(ROOT)) for path in sources("tests")
        if path.relative_to(ROOT / "tests").parts[0] not in ("support", "scripts")
        and not path.name.startswith("test_") and path.name not in ("__init__.py", "conftest.py")
    }  # fmt: skip
    assert wrong == set()
