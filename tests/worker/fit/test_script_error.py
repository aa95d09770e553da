"""The error of a script is shown as Python shows it: without the frames of the program that runs it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from downpour.worker.fit.script_error import show_error
from tests.support.paths import ROOT

SCRIPTS = {
    "an error": "1 / 0\n",
    "an error in a function": "def f():\n    g()\ndef g():\n    {}['x']\nf()\n",
    "one that another caused": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e\n",
    "one while another is handled": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    int('x')\n",
    "a group": "def f():\n    int('y')\ntry:\n    f()\nexcept ValueError as e:\n    raise ExceptionGroup('g', [e])\n",
    "a package that is missing": "import no_such_package\n",
    "a message of several lines": "raise RuntimeError('first\\nsecond')\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_error_is_shown_as_python_shows_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[name])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        # This file takes the part of worker/fit/__main__.py.
        monkeypatch.setattr("downpour.worker.fit.script_error._ROOTS", (f"{ROOT}/",))
        show_error(error)
    plain = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert capsys.readouterr().err == plain.stderr


def test_the_hook_of_a_script_receives_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *given: seen.append(given))
    error = ValueError("x")
    show_error(error)
    assert seen == [(ValueError, error, None)]


def test_a_fault_of_this_package_keeps_its_frames() -> None:
    from downpour.protos.layout import Layout
    from downpour.worker.fit.script_error import without_own_frames

    try:
        Layout.of(3)  # type: ignore[arg-type]
    except TypeError as error:
        trace = without_own_frames(error.__traceback__)
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        assert trace is not None and "layout" in trace.tb_frame.f_code.co_filename


def test_an_error_that_is_meant_for_the_script_is_shown_where_the_script_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from downpour.protos.codecs import codec
    from downpour.protos.errors import InvalidRequest

    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    try:
        codec.codec_named("nothing")
    except InvalidRequest as error:
        show_error(error)
    shown = capsys.readouterr().err
    assert "test_script_error.py" in shown and "codec.py" not in shown and "InvalidRequest: " in shown
