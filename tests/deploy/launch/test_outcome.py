"""The advice at the end of a job names what the command that was run has."""

from __future__ import annotations

import re
from typing import Any

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.outcome import advice
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import flag


@pytest.mark.parametrize(("dataset", "kind"), [("mnist", TrainSettings), ("script", RunSettings)])
@pytest.mark.parametrize("rates", [{}, {"learning_rate": 0.5}])
def test_advice_names_flags_of_the_command(dataset: str, kind: Any, rates: dict[str, float]) -> None:
    text = advice({"dataset": dataset, **rates})
    assert set(re.findall(r"--[a-z-]+", text)) <= {flag(name) for name in kind.model_fields}
    assert "a tenth" in text and ("0.05" in text) == bool(rates)
