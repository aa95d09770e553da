"""The advice at the end of a job names what the command that was run has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.launch.outcome import TOO_LARGE, advice, conclude, explain
from downpour.deploy.launch.reasons import Reasons
from downpour.deploy.scripts.script_settings import RunSettings
from downpour.protos.settings import flag
from downpour.ps.monitoring import divergence


@pytest.mark.parametrize(("dataset", "kind"), [("mnist", TrainSettings), ("script", RunSettings)])
@pytest.mark.parametrize("rates", [{}, {"learning_rate": 0.5}])
def test_advice_names_flags_of_the_command(dataset: str, kind: Any, rates: dict[str, float]) -> None:
    text = advice({"dataset": dataset, **rates})
    assert set(re.findall(r"--[a-z-]+", text)) <= {flag(name) for name in kind.model_fields}
    assert "a tenth" in text and ("0.05" in text) == bool(rates)


@pytest.mark.parametrize(
    ("role", "code", "lines", "repeated"),
    [
        ("worker", 1, ["joined", "downpour worker: why"], False),
        ("worker", 1, ["downpour worker: why"], False),
        ("worker", 1, ["joined", "downpour worker: another reason"], True),
        ("worker", 1, ["Traceback (most recent call last):", "  File", "ValueError: why"], True),
        ("ps", 3, ["12:29:10 why", "12:29:10 the job has failed: 0 updates; see runs"], False),
        ("ps", 3, ['{"message": "why"}', '{"message": "the job has failed: 0 updates; see runs"}'], False),
        ("ps", 3, ["12:29:10 another reason", "12:29:10 the job has failed: 0 updates; see runs"], True),
        ("ps", 1, ["12:29:10 why", "MemoryError"], True),
        ("ps", 3, ["12:29:10 why", "{", "Traceback (most recent call last):", "ValueError: why"], True),
    ],
)
def test_the_end_of_a_log_is_shown_unless_it_repeats_a_reason(
    role: str, code: int, lines: list[str], repeated: bool, tmp_path: Path
) -> None:
    notes: list[str] = []
    screen = SimpleNamespace(note=notes.append, has_shown=lambda log: False)
    spec = SimpleNamespace(role=role, shown=False)
    process = SimpleNamespace(code=code, spec=spec, log=tmp_path / "log", tail=lambda: lines)
    reasons = Reasons()
    assert reasons.in_note("why") == "why"
    explain(screen, tmp_path, "no worker is left", [process], reasons.has)  # type: ignore[list-item]
    assert any(lines[-1] in note for note in notes) is repeated


@pytest.mark.parametrize("warned", [False, True])
def test_the_advice_for_a_job_that_diverged_is_shown_once(warned: bool, tmp_path: Path) -> None:
    """While it runs, the server warns of a loss that rises; that note is on the screen already."""
    notes: list[str] = []
    screen = SimpleNamespace(note=notes.append, table=lambda summary, run: None)
    summary = {"diverged": "the loss is 8", "learning_rate": 1.0, "updates": 9, "dataset": "mnist"}
    summary["notes"] = [f"the training loss has risen from 2 to 8: {TOO_LARGE}; try a tenth of it"] if warned else []
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    conclude(screen, tmp_path, drained=False)
    assert TOO_LARGE in Path(divergence.__file__).read_text()
    (text,) = notes
    assert text.startswith("training diverged: the loss is 8") and ("--learning-rate 0.1" in text) is not warned
