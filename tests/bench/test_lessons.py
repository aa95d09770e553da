"""The lessons run from top to bottom, assert their claims, and are the same in both languages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from downpour.bench.lessons import LONGEST_S, code_of, execute
from downpour.deploy.dashboard.page_files import FOLDER as PAGE
from downpour.deploy.playground.config import FIELDS, PRESETS, setup_of
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "lessons"
LESSONS = sorted(FOLDER.glob("en/*.ipynb"))
NODE = shutil.which("node")
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
    assert sum("plt.show()" in cell for cell in code) >= 1


def test_every_lesson_trains_with_the_engine_or_on_processes_and_lesson_3_and_another_on_processes() -> None:
    code = {path.stem: "\n".join(code_of(path)) for path in LESSONS}
    assert all("playground.engine import" in each or "LocalCluster(workers=2" in each for each in code.values())
    on_processes = [name for name, each in code.items() if "LocalCluster(workers=2" in each]
    assert "3-mnist" in on_processes and set(on_processes) & {"4-staleness", "5-stragglers", "6-failure"}


def links_of(notebook: Path) -> list[tuple[str, str]]:
    """Return the pages, `playground` or `dashboard`, that a lesson links to, each with the fragment of the address."""
    pages = {"8765": "playground", "8766": "dashboard"}
    found = re.findall(r"<http://127\.0\.0\.1:(\d+)/#([^>]*)>", "\n".join(texts_of(notebook)))
    return [(pages[port], fragment) for port, fragment in found]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_links_which_are_those_of_the_other_language_in_that_language(lesson: Path) -> None:
    english, spanish = links_of(lesson), links_of(FOLDER / "es" / lesson.name)
    assert english and [(page, f"{fragment}&lang=es") for page, fragment in english] == spanish
    for text in (*texts_of(lesson), *texts_of(FOLDER / "es" / lesson.name)):
        for page, port in (("playground", "8765"), ("dashboard runs/latest", "8766")):
            assert (f"127.0.0.1:{port}" in text) == (f"`downpour {page} --port {port}`" in text)


def test_links_open_the_playground_in_a_possible_state() -> None:
    links = [link for path in FOLDER.glob("*/*.ipynb") for link in links_of(path)]
    fragments = [fragment for page, fragment in links if page == "playground"]
    assert len(fragments) >= 8
    for fragment in fragments:
        given = dict(parse_qsl(fragment, keep_blank_values=True))
        assert given.keys() <= SETTINGS and given.get("preset", "ssp") in PRESETS
        setup_of({name: value for name, value in given.items() if name != "preset"})


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed, which runs the page's own code")
def test_links_open_the_dashboard_in_a_state_that_the_page_keeps(tmp_path: Path) -> None:
    fragments = [
        fragment for path in FOLDER.glob("*/*.ipynb") for page, fragment in links_of(path) if page == "dashboard"
    ]
    assert len(fragments) >= 6
    shutil.copy(PAGE / "view.js", tmp_path / "view.mjs")
    code = 'import { readView } from "./view.mjs"; console.log(JSON.stringify(process.argv.slice(2).map(readView)));'
    (tmp_path / "views.mjs").write_text(code)
    line = [str(NODE), "views.mjs", *fragments]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    for fragment, view in zip(fragments, json.loads(done.stdout), strict=True):
        for name, value in parse_qsl(fragment, keep_blank_values=True):
            read = type(view[name]) if isinstance(view[name], str) else float
            assert read(view[name]) == read(value), fragment


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_every_cell_of_a_lesson_runs(lesson: Path) -> None:
    assert execute(lesson) < LONGEST_S
