"""The documentation names files, functions, flags and commands that exist; its layout and glossary are complete."""

from __future__ import annotations

import ast
import builtins
import re
from functools import cache
from pathlib import Path

import pytest

from downpour.bench.__main__ import BENCHES
from downpour.deploy.cli import commands
from downpour.ps.core.rules.hyperparameters import flag_of, known_hyperparameters
from tests.support.paths import ROOT

PACKAGES = ("protos", "ps", "worker", "deploy", "bench")
DOCUMENTS = sorted([*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
NAME_IN_FILE = re.compile(r"\]\(([^)]+\.py)\) `([A-Za-z_][\w.]*)`")
MOST_STEPS = 20  # functions on the path of a gradient
# Classes of Keras and TensorFlow that the documentation mentions.
FOREIGN_CLASSES = set(
    "Adadelta Adafactor Adagrad Adam AdamW Adamax BackupAndRestore CSVLogger EarlyStopping Ftrl GradientTape Lamb "
    "LearningRateScheduler Lion LossScaleOptimizer MaxNorm MinMaxNorm ModelCheckpoint Muon Nadam ProgbarLogger "
    "PyDataset RMSprop ReduceLROnPlateau RemoteMonitor SwapEMAWeights TensorBoard NonNeg UnitNorm".split()
)
# Files and folders that users or runs create.
CREATED = {"train.py", "worker.py", "ps.py", "runs/", "logs/", "checkpoints/", "tensorboard/", "bench-results/"}
FOREIGN_COMMANDS = re.compile(r"docker|pip |ruff |tensorboard --|kubectl|ray job submit|sbatch")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def spans(document: Path) -> set[str]:
    """Return what a document sets in backticks, without its code blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)
    return set(re.findall(r"`([^`\n]+)`", text))


def section(text: str, heading: str) -> str:
    """Return the part of a page below a heading of the second level."""
    assert f"\n## {heading}\n" in text, f"the page must have a section {heading!r}"
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def names_in(source: str) -> set[str]:
    """Return the names that a module defines, and those of the methods of its classes as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            names.update(f"{node.name}.{method.name}" for method in methods)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


@cache
def sources() -> dict[Path, str]:
    """Return the source of every module of the packages and of the tests."""
    files = [path for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py")]
    return {path: path.read_text() for path in [*files, *(ROOT / "downpour").glob("*.py")]}


@cache
def known_names() -> set[str]:
    return set().union(*(names_in(source) for source in sources().values()))


@cache
def known_flags() -> set[str]:
    """Return every field of a class as a flag, every hyperparameter, and every flag that is a string in the code."""
    flags = set(map(flag_of, known_hyperparameters()))
    for source in sources().values():
        flags.update(re.findall(r"[\"'](--[a-z][a-z0-9-]*)", source))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                flags.add("--" + node.target.id.replace("_", "-"))
    return flags | {flag.replace("--", "--no-", 1) for flag in flags}


@each_document
def test_relative_links_lead_somewhere(document: Path) -> None:
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert not missing, f"{document.name} links to what does not exist: {missing}"


@each_document
def test_links_to_a_section_name_one_that_exists(document: Path) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", document.read_text()):
        page = document.parent / link if link else document
        titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in anchors, f"{document.name}: {page.name} has no section #{anchor}"


@each_document
def test_names_are_in_the_files_they_are_said_to_be_in(document: Path) -> None:
    for link, name in NAME_IN_FILE.findall(document.read_text()):
        names = names_in((document.parent / link).read_text())
        assert name in names, f"{document.name}: {link} has no {name}"


@each_document
def test_files_and_folders_exist(document: Path) -> None:
    """A path is relative to the repository or to the document; a bare file name may be that of any file."""
    for span in spans(document) - CREATED:
        if re.fullmatch(r"[\w.-]+\.(py|proto|sh|yml)", span):
            folders = [ROOT / folder for folder in (*PACKAGES, "tests", "downpour")]
            assert any(next(folder.rglob(span), None) for folder in folders), (
                f"{document.name}: no file is called {span}"
            )
        elif re.fullmatch(r"[\w-]+(/[\w-]+)*/", span):
            homes = [ROOT, *(ROOT / package for package in (*PACKAGES, "tests"))]
            assert any((home / span).is_dir() for home in homes), f"{document.name}: there is no folder {span}"
        elif re.match(rf"({'|'.join((*PACKAGES, 'tests', 'docs', 'downpour'))})/[\w./-]+$", span):
            assert (ROOT / span).exists(), f"{document.name}: there is no {span}"


@each_document
def test_dotted_names_exist(document: Path) -> None:
    """`downpour.package.module` and `downpour.package.module.name` lead to a file and to a name in it."""
    for span in spans(document):
        if not re.fullmatch(r"downpour(\.\w+)+(\(\))?", span):
            continue
        parts = span.removesuffix("()").split(".")[1:]
        steps = 0
        while steps < len(parts) and (ROOT.joinpath(*parts[: steps + 1])).is_dir():
            steps += 1
        module = ROOT.joinpath(*parts[: steps + 1]).with_suffix(".py")
        if steps == len(parts):
            continue  # a package
        if not module.exists():
            module, name = ROOT.joinpath(*(parts[:steps] or ["downpour"]), "__init__.py"), ".".join(parts[steps:])
            assert name in names_in(module.read_text()) or f'"{name}"' in module.read_text(), f"{document.name}: {span}"
        elif name := ".".join(parts[steps + 1 :]):
            assert name in names_in(module.read_text()), f"{document.name}: {span}"


@each_document
def test_classes_and_methods_exist(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(r"[A-Z]\w*[a-z]\w*(\.\w+)?", span):
            known = span in known_names() or span in FOREIGN_CLASSES or hasattr(builtins, span)
            assert known, f"{document.name} names {span}, which nothing in the project defines"


@each_document
def test_flags_exist(document: Path) -> None:
    text = "\n".join(line for line in document.read_text().splitlines() if not FOREIGN_COMMANDS.search(line))
    unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text)) - known_flags()
    assert not unknown, f"{document.name} names flags that do not exist: {sorted(unknown)}"


@each_document
def test_commands_exist(document: Path) -> None:
    text = document.read_text()
    in_code = [*spans(document), *re.findall(r"^ {4}(?:[a-z]?\$ )?(.*)$", text, re.M)]
    for line in in_code:
        for command, bench in re.findall(r"(?:^|[ /])downpour (\w+)(?: ([a-z]+))?", line):
            assert command in commands(), f"{document.name}: there is no command: {line}"
            assert command != "bench" or not bench or bench in BENCHES, (
                f"{document.name}: there is no benchmark: {line}"
            )
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), f"{document.name}: there is no target: {line}"


def test_every_guarantee_names_tests_that_exist() -> None:
    """In docs/guarantees.md a test is `test_file.py::test_name`, or `test_file.py` where all of it is meant."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text)
    assert named
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert not test or test in names_in(path.read_text()), (
            f"guarantees.md names {file}::{test}, which does not exist"
        )
    tables = re.findall(r"^\| guarantee .*\n(?:\|.*\n?)+", text, re.M)
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 20
    untested = [row for row in rows if "`test_" not in row and "`downpour bench" not in row]
    assert not untested, f"guarantees without a test: {untested}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layout_names_every_folder_and_every_file_beside_them(package: str) -> None:
    layout = section(ARCHITECTURE.read_text(), "Repository layout")
    (part,) = re.findall(rf"^### `{package}/`.*?(?=^### |\Z)", layout, re.S | re.M)
    named = set(re.findall(r"`([\w.-]+/?)`", "".join(re.findall(r"^\| ([^|]*) \|", part, re.M))))
    folder = ROOT / package
    files = {path.name for path in folder.glob("*.py") if "_pb2" not in path.name} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    assert named >= files | folders, f"docs/architecture.md lacks {sorted((files | folders) - named)} of {package}/"
    for row in re.findall(r"^\| .*\|$", part, re.M):
        cells = re.findall(r"[^|]+", row)
        places = [folder / name for name in re.findall(r"`([\w-]+/)`", cells[0])] or [folder]
        for name in re.findall(r"`([\w.-]+\.py)`", cells[-1] if places != [folder] else cells[0]):
            assert any((place / name).exists() for place in places), f"docs/architecture.md: {row} names no file {name}"


def test_the_glossary_has_each_term_once_and_in_order() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section(ARCHITECTURE.read_text(), "Glossary"), re.M)[1:]
    terms = [term for term, _ in rows if not term.startswith("-")]
    assert len(terms) > 40
    assert len(set(terms)) == len(terms), "a term must have one meaning"
    assert terms == sorted(terms)
    assert all(meaning.endswith(".") for term, meaning in rows if not term.startswith("-"))


@pytest.mark.parametrize("transport", ["shared memory", "TCP", "gRPC"])
def test_the_path_of_a_gradient_is_short_and_names_functions(transport: str) -> None:
    """That the functions exist is checked with all names beside links to files."""
    text = section(ARCHITECTURE.read_text(), "The path of a gradient")
    path = text.split(f"### Over {transport}\n")[1].strip().split("\n\n")[0]
    steps = re.findall(r"^(\d+)\. (\S+ \S+)", path, re.M)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert 10 < len(steps) <= MOST_STEPS
    assert all(NAME_IN_FILE.search(step) for _, step in steps), f"each step must name a file and a function: {steps}"
    files = [NAME_IN_FILE.findall(step)[0][0] for _, step in steps]
    assert files[0] == "../worker/train/loop.py" and "../ps/core/optimizer.py" in files


def test_both_languages_of_the_readme_show_the_same_script_output_figures_and_pages() -> None:
    english, spanish = ((ROOT / name).read_text() for name in ("README.md", "README.es.md"))
    for pattern in (r"^```\w*\n(?s:.*?)^```", r"^ {4,}\S.*$"):
        assert re.findall(pattern, english, re.M) == re.findall(pattern, spanish, re.M)
    speed, velocidad = (
        re.findall(r"\d+[.,]\d{3}\b", section(text, name).replace(",", "."))
        for text, name in ((english, "Speed"), (spanish, "Velocidad"))
    )
    assert len(speed) > 6 and speed == velocidad
    addresses = [set(re.findall(r"https://[^)\s]+", text)) for text in (english, spanish)]
    assert addresses[0] == addresses[1]
    own = {"README.md", "README.es.md"}  # each page links to the other one
    pages = [
        [page.replace("lessons/es", "lessons/README.md") for page in LINK.findall(text) if page not in own]
        for text in (english, spanish)
    ]
    assert set(pages[0]) == set(pages[1])
    for pattern in (r"^#+", r"^\|", r"^- ", r"^!\["):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, spanish, re.M))


def test_the_script_of_the_readme_has_fifteen_lines_and_can_be_compiled() -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len([line for line in script.splitlines() if line]) <= 15
    compile(script, "train.py", "exec")
