"""The lessons run from top to bottom, assert their claims, and are the same in both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from downpour.bench.lessons import LONGEST_S, code_of, execute
from downpour.deploy.playground.config import FIELDS, PRESETS, setup_of
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "lessons"
LESSONS = sorted(FOLDER.glob("en/*.ipynb"))
SETTINGS = {*FIELDS, "hidden", "preset", "speed", "from", "play", "lang"}


def texts_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def test_there_are_six_lessons_in_both_languages_with_the_same_code() -> None:
    assert len(LESSONS) == 6
    assert {path.name for path in LESSONS} == {path.name for path in FOLDER.glob("es/*.ipynb")}
    for lesson in LESSONS:
        spanish = FOLDER / "es" / lesson.name
        assert code_of(lesson) == code_of(spanish), lesson.name
        assert len(texts_of(lesson)) == len(texts_of(spanish))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_claims_that_are_asserted_an_exercise_and_a_solution(lesson: Path) -> None:
    english, spanish = texts_of(lesson), texts_of(FOLDER / "es" / lesson.name)
    assert any("## Exercise" in text for text in english) and any("## Ejercicio" in text for text in spanish)
    code = code_of(lesson)
    assert code[-1].startswith("# Solution: ") and sum("assert" in cell for cell in code) >= len(code) - 2


def test_links_open_the_playground_in_a_possible_state() -> None:
    fragments = [
        fragment
        for path in FOLDER.glob("*/*.ipynb")
        for text in texts_of(path)
        for fragment in re.findall(r"<http://127\.0\.0\.1:8765/#([^>]*)>", text)
    ]
    assert len(fragments) >= 8
    for fragment in fragments:
        given = dict(parse_qsl(fragment))
        assert given.keys() <= SETTINGS and given.get("preset", "ssp") in PRESETS
        setup_of({name: value for name, value in given.items() if name != "preset"})


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_cell_of_a_lesson_runs(lesson: Path) -> None:
    assert execute(lesson) < LONGEST_S
