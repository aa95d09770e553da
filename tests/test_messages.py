"""What a user reads has no error numbers, names of Python's classes, or plurals of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from downpour.deploy.config import TrainSettings
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import problems_of
from tests.support.paths import ROOT
from tests.support.sources import PACKAGES, sources

OF_THE_SYSTEM = {"OSError", "FileNotFoundError", "PermissionError", "ValidationError"}
# The first raises it again; the second may import nothing of the project.
WITH_PLACE = {"ps/storage/atomic_file.py", "protos/job_file/toml_settings.py"}


def caught(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
    return {ast.unparse(kind) for kind in kinds}


def shown_raw(path: Path) -> Iterator[int]:
    """Yield the lines on which an error of the system, or of pydantic, becomes text as Python prints it."""
    for handler in ast.walk(ast.parse(path.read_text())):
        if not isinstance(handler, ast.ExceptHandler) or not handler.name or not caught(handler) & OF_THE_SYSTEM:
            continue
        for node in ast.walk(handler):
            formatted = isinstance(node, ast.FormattedValue) and ast.unparse(node.value) == handler.name
            if formatted or (isinstance(node, ast.Call) and ast.unparse(node) == f"str({handler.name})"):
                yield getattr(node, "lineno", 0)


def test_no_message_contains_an_error_as_python_prints_it() -> None:
    """`[Errno 2]` and several lines of pydantic inform nobody; `reason_of` says the same in words."""
    raw = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in sources(package)
        if str(path.relative_to(ROOT)) not in WITH_PLACE
        for line in shown_raw(path)
    ]
    assert raw == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "No such file or directory: a/b"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("the network is gone"), "the network is gone"),
        (
            Exception("no page: None -- [Errno -2] Name or service not known"),
            "no page: None -- Name or service not known",
        ),
        (KeyError("settings"), "settings is missing"),
        (ValueError("must be 1"), "must be 1"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_the_reason_of_an_error_is_said_in_words(error: Exception, text: str) -> None:
    assert reason_of(error) == text


def test_problems_of_a_file_are_those_of_flags() -> None:
    with pytest.raises(ValidationError) as failure:
        TrainSettings(epochs=0, mode="bspp")
    found = problems_of(failure.value, TrainSettings)
    assert found[0] == "--epochs must be a whole number, at least 1; received 0"
    assert found[1].startswith("--mode must be") and "pydantic" not in "".join(found)


def test_one_is_no_plural() -> None:
    assert [counted(number, "worker") for number in (0, 1, 1200)] == ["0 workers", "1 worker", "1,200 workers"]
    assert counted(1, "push", "pushes") == "1 push" and counted(2, "push", "pushes") == "2 pushes"
