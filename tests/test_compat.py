"""The rows of `make compat` use interpreters that work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.compat import interpreter_of


def executable(path: Path, status: int) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)


def test_a_placeholder_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    executable(tmp_path / "shims" / "python3.13", 127)
    assert interpreter_of("3.13", tmp_path) is None
    installed = tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3.13"
    executable(installed, 0)
    assert interpreter_of("3.13", tmp_path) == str(installed)
    assert interpreter_of("3.12", tmp_path) is None
