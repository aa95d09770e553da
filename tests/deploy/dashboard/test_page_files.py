"""The page's own files: small, complete in both languages, without a request to anywhere, without a way in for text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.page_files import (
    FIRST_MODULE,
    FOLDER,
    LANGUAGES,
    LIBRARY,
    files,
    one_document,
    one_script,
)
from downpour.deploy.dashboard.recorded_run import load_run
from downpour.protos.sentences.sentence import SENTENCES
from downpour.ps.coordinator.job import EventKind
from tests.support.paths import ROOT
from tests.support.pure.recorded_trace import write_run

LARGEST_PAGE_BYTES = 300_000
SCRIPTS = {name: content.decode() for name, content in files().items() if name.endswith(".js") and name != LIBRARY}
PAGE = files()["index.html"].decode()
CATALOGUES = {language: json.loads(files()[f"texts/{language}.json"]) for language in LANGUAGES}
# Keys that are put together from a part that is fixed and values of these.
FAMILIES = {
    "state_": "absent joining computing step waiting slow resting left dead".split(),
    "": "kill stall slow job_pause job_resume".split(),
    "event_": (
        "join rejoin leave lost rest resume epoch note end phase validation change checkpoint recovery "
        "paused continued".split()
    ),
    "sentence_": list(SENTENCES),
    "legend_": "push pull drop states".split(),
    "one_": "worker shard".split(),
    "several_": "workers shards".split(),
    "predicted_": "own slack zero group".split(),
    "status_": (
        "ended interrupted failed paused waiting initialising warming training draining finishing recovering".split()
    ),
}


def test_the_page_is_small() -> None:
    assert sum(map(len, files().values())) <= LARGEST_PAGE_BYTES


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    english, spanish = CATALOGUES["en"], CATALOGUES["es"]
    assert set(english) == set(spanish)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", spanish[key])), key
        assert text.strip() and spanish[key].strip(), key


def test_every_sentence_of_the_server_is_in_the_catalogue_of_its_language() -> None:
    """`sentenceText` looks them up by their codes; the English ones are those that the server writes."""
    assert {key: text for key, text in CATALOGUES["en"].items() if key.startswith("sentence_")} == {
        f"sentence_{code}": text for code, text in SENTENCES.items()
    }
    untranslated = {code for code, text in SENTENCES.items() if CATALOGUES["es"][f"sentence_{code}"] == text}
    assert untranslated <= {"flag", "several_problems", "several_settings", "other_choice"}  # only places


def test_every_event_of_a_job_has_a_text() -> None:
    assert {f"event_{kind}" for kind in EventKind} <= set(CATALOGUES["en"])


def used_keys() -> set[str]:
    """Every key that the page's files name."""
    every = "\n".join(SCRIPTS.values())
    keys = set(re.findall(r'data-(?:text|label|title)="(\w+)"', PAGE))
    keys |= set(re.findall(r'\bt\("(\w+)"', every))
    keys |= {key for pair in re.findall(r'\? "(\w+)" : "(\w+)"[,)]', every) for key in pair}
    keys |= {name + value for name, values in FAMILIES.items() for value in values}
    (columns,) = re.findall(r"^const COLUMNS = \[(.*?)\]", every, re.M)
    keys |= {f"column_{name}" for name in re.findall(r'"(\w+)"', columns)}
    keys |= {f"fact_{name}" for name in re.findall(r'(?:^ +|push\()\["(\w+)", ', SCRIPTS["panels.js"], re.M)}
    keys |= set(re.findall(r'"(key_\w+)"', every)) | {"predicted_none", "predicted_changed"}
    return keys


def test_every_text_that_is_used_exists_and_every_text_is_used() -> None:
    used, there = used_keys(), set(CATALOGUES["en"])
    assert there - used == set(), "texts that nothing shows"
    assert {key for key in used if key not in there and key.split("_")[0] in {"state", "event", "fact", "key"}} == set()
    literal = set(re.findall(r'\bt\("(\w+)"', "\n".join(SCRIPTS.values()))) | set(
        re.findall(r'data-(?:text|label|title)="(\w+)"', PAGE)
    )
    assert literal - there == set(), "texts that are missing"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed; the browser tests cover the same")
def test_every_module_can_be_parsed(tmp_path: Path) -> None:
    (tmp_path / "all.mjs").write_text(one_script())
    done = subprocess.run(["node", "--check", str(tmp_path / "all.mjs")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, content in files().items():
        addresses = set(
            re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"'`)]*", re.sub(r"(?m)^\s*//.*$", "", content.decode()))
        )
        allowed = {"https://github.com/leeoniya/uPlot"} if name == LIBRARY else {"http://www.w3.org/2000/svg"}
        assert addresses <= allowed, name  # the library names its home in its first comment


def test_text_from_a_job_can_only_become_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]|srcdoc"
    )
    for name, content in {**SCRIPTS, LIBRARY: files()[LIBRARY].decode()}.items():
        assert re.findall(forbidden, content) == [], name
    assert re.findall(r"\son\w+=|javascript:|\sstyle=", PAGE) == []


def test_all_modules_become_one() -> None:
    script = one_script()
    assert re.findall(r"^(?:import|export)\b", script, re.M) == []
    names = re.findall(r"^(?:async )?(?:function\*?|const|let|class) (\w+)", script, re.M)
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
    for name, content in SCRIPTS.items():
        first = next(line for line in content.splitlines() if line)
        assert first in script, f"{name} is not reached from {FIRST_MODULE}"


def test_no_name_of_a_run_can_leave_its_place_in_a_report(tmp_path: Path) -> None:
    wild = "</script><script>alert(1)</script><!-- \" ' &"
    write_run(tmp_path / "run", model=wild, mode="async")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary | {"notes": [wild], "status": wild}))
    document = one_document(wild, page_data(load_run(tmp_path / "run")))
    assert "alert(1)" not in document.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")
    assert document.count("</script>") == 4  # the texts, the run, the library, the page's own


def test_a_report_allows_itself_nothing_but_its_own_script_and_style(tmp_path: Path) -> None:
    write_run(tmp_path)
    document = one_document("run", page_data(load_run(tmp_path)))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', document)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "connect-src" not in policy


def test_the_library_is_delivered_with_its_licence_and_named_in_the_package() -> None:
    assert (
        "MIT" in (FOLDER / "vendor" / "LICENSE").read_text()
        and "Leon Sorokin" in (FOLDER / "vendor" / "LICENSE").read_text()
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "page/vendor/*" in project["tool"]["setuptools"]["package-data"]["downpour.deploy.dashboard"]
    assert "deploy/dashboard/page/vendor/LICENSE" in project["project"]["license-files"]
