"""The model of a script's run is a whole file or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from downpour.worker.fit.process.script_process import ScriptProcess


class Model:
    """A model that Keras can save, or that raises in the middle of its file."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def save(self, path: str) -> None:
        Path(path).write_text("half")
        if self._error is not None:
            raise self._error
        Path(path).write_text("whole")


def process() -> ScriptProcess:
    parts: Any = object()
    return ScriptProcess(parts, parts)


def test_the_model_that_was_fitted_last_is_saved(tmp_path: Path) -> None:
    here = process()
    here.save_fitted(str(tmp_path / "model.keras"))
    assert not list(tmp_path.iterdir()), "no model was fitted"
    here.fitted(Model(ValueError("another")))
    here.fitted(Model())
    here.save_fitted(str(tmp_path / "model.keras"))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


def test_a_model_that_cannot_be_saved_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = process()
    here.fitted(Model(NotImplementedError("no get_config")))
    here.save_fitted(str(tmp_path / "model.keras"))
    assert not list(tmp_path.iterdir()) and "no get_config" in capsys.readouterr().err
