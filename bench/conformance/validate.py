"""`downpour validate`: compares the behaviour of the server with predictions from the literature."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, field_validator

from downpour.bench.conformance import rows_exact, rows_real, rows_stability, rows_timing
from downpour.bench.conformance.row import Case, ConformanceRow, Parts
from downpour.bench.report import writable
from downpour.protos.sentences.choices import did_you_mean
from downpour.protos.settings import Settings, parse
from downpour.protos.system.progress import tracked

ROWS: list[ConformanceRow] = sorted(
    [*rows_timing.ROWS, *rows_stability.ROWS, *rows_exact.ROWS, *rows_real.ROWS],
    key=lambda row: (int(row.name[1:]), row.where == "real processes"),
)


class ValidateSettings(Settings):
    """Compare the server with predictions from theory; the exit status is 1 if a row fails."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {"rows": ("quick", "rows"), "output": ("json_",)}

    quick: bool = Field(False, description="Use shorter runs, which save a few minutes.")
    rows: str = Field("", description="Rows to check, such as C1,C14 (default: all).")
    json_: Annotated[str | None, AfterValidator(writable)] = Field(
        None, description="File for the result as JSON; - for standard output."
    )

    @field_validator("rows")
    @classmethod
    def _known(cls, value: str) -> str:
        names = {row.name for row in ROWS}
        for name in filter(None, value.split(",")):
            if name not in names:
                raise ValueError(f"must be rows of docs/theory.md{did_you_mean(name, names)}")
        return value


def measured(row: ConformanceRow, parts: Parts, quick: bool) -> dict[str, Any]:
    """Measure a row and return its result as a dict for JSON. An exception of the row counts as its failure."""
    began_s, error = time.perf_counter(), ""
    cases: list[Case] = []
    try:
        cases = row.measure(parts, quick)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    return {
        "row": row.name,
        "where": row.where,
        "claim": row.claim,
        "passed": bool(cases) and all(case.passed for case in cases),
        "error": error,
        "wall_s": time.perf_counter() - began_s,
        "cases": [
            {
                "what": case.what,
                "predicted": float(case.predicted),
                "measured": float(case.measured),
                "tolerance": case.tolerance,
                "rule": case.rule,
                "passed": case.passed,
            }
            for case in cases
        ],
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """Return the result of a row as lines of text."""
    verdict = "pass" if result["passed"] else "FAIL"
    lines = [f"{result['row']:<4}{verdict}  {result['claim']}  ({result['where']}, {result['wall_s']:.1f} s)"]
    if result["error"]:
        lines.append(f"      {result['error']}")
    for case in result["cases"]:
        tolerance = {
            "relative": f"±{100 * case['tolerance']:g} %", "absolute": f"±{case['tolerance']:g}", "at most": "or less",
            "equal": "exactly",
        }[case["rule"]]  # fmt: skip
        mark = "" if case["passed"] else "   <-- FAIL"
        lines.append(
            f"      {case['what']:<46} predicted {case['predicted']:<10.6g} {tolerance:<9} "
            f"measured {case['measured']:.6g}{mark}"
        )
    return lines


def main(argv: list[str]) -> int:
    """Run `downpour validate` and return its exit status."""
    settings = parse(ValidateSettings, argv, "downpour validate")
    wanted = set(filter(None, settings.rows.split(",")))
    results = []
    for row in tracked([row for row in ROWS if not wanted or row.name in wanted], "rows of docs/theory.md"):
        results.append(measured(row, Parts(), settings.quick))
        if settings.json_ != "-":
            print("\n".join(lines_of(results[-1])), flush=True)
    failed = [result for result in results if not result["passed"]]
    text = json.dumps({"passed": not failed, "quick": settings.quick, "rows": results}, indent=2)
    if settings.json_ == "-":
        print(text)
    else:
        if settings.json_:
            Path(settings.json_).write_text(text + "\n")
        print(f"{len(results) - len(failed)} of {len(results)} rows pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
