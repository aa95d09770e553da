"""JSON for other programs contains no number that JSON does not have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.system.json_text import json_text
from downpour.ps.storage.run_directory import RunDirectory

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each))


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


@given(VALUES, st.sampled_from([None, 2]))
def test_numbers_that_are_not_finite_are_null_and_everything_else_is_kept(value: Any, indent: int | None) -> None:
    def expected(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: expected(each) for key, each in part.items()}
        if isinstance(part, list):
            return [expected(each) for each in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    assert json.loads(json_text(value, indent), parse_constant=refuse) == expected(value)


def test_the_summary_of_a_run_that_has_diverged_can_be_read_by_any_program(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").write_json("summary.json", {"train_loss": math.nan, "metrics": {"mse": math.inf}})
    found = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=refuse)
    assert found == {"train_loss": None, "metrics": {"mse": None}}
