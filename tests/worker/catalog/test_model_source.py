"""What the source of `module:function` shows is checked without running it, and what it cannot show is left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from downpour.worker.catalog.model_source import check_source
from downpour.worker.catalog.user_models import ModelError

REFUSED = {
    "no such function": ("def build(): ...", "its functions are: build"),
    "no function at all": ("import os", "its functions are: none"),
    "a value": ("f = 3", "f in .* is a value"),
    "a list": ("f = []", "is a value"),
    "too many parameters": ("def f(input_shape, width): ...", "requires width too"),
    "a keyword parameter": ("def f(*, depth): ...", "requires depth too"),
    "not Python": ("def f(:", "can parse; .*SyntaxError.*line 1"),
    "not Python that compiles": ("return 3", "outside function"),
    "a null byte": ("f = 1\0", "null bytes"),
    "an import that is missing": ("import no_such_package\ndef f(): ...", "imports no_such_package, which is not"),
    "a name in a function": ("def g():\n    f = 3", "its functions are: g"),
}
ACCEPTED = {
    "a function": "def f(input_shape, classes): ...",
    "one with defaults": "def f(width=3, *, depth=2, **more): ...",
    "one that is decorated": "import functools\n@functools.partial\ndef f(width): ...",
    "a class": "class f: ...",
    "a lambda": "f = lambda: None",
    "a name of another module": "from os import path as f",
    "a star": "from os import *",
    "a call": "f = make()",
    "under a condition": "try:\n    f = g\nexcept NameError:\n    f = None",
    "a global name": "def g():\n    global f\n    f = 3",
    "a loop": "for f in (): ...",
    "a dynamic name": "globals()['f'] = 3",
    "a path that is added": "import sys\nsys.path.append('x')\nimport nowhere_else\ndef f(): ...",
    "an import under a condition": "try:\n    import no_such_package\nexcept ImportError: ...\ndef f(): ...",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_that_cannot_give_a_model_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, words = REFUSED[name]
    (tmp_path / "refused.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=words):
        check_source("refused:f")


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_source_that_may_give_a_model_is_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "accepted.py").write_text(ACCEPTED[name])
    monkeypatch.chdir(tmp_path)
    check_source("accepted:f")


def test_a_module_in_a_package_is_found_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "small"
    folder.mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError")
    (folder / "dense.py").write_text("def f(): ...")
    monkeypatch.chdir(tmp_path)
    check_source("models.small.dense:f")
    for missing in ("models.large.dense:f", "models.small.dense.deeper:f", "nowhere_to_be_found:f"):
        with pytest.raises(ModelError, match="can be found"):
            check_source(missing)
