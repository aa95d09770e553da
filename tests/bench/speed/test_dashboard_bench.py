"""The load of `downpour bench dashboard` is what it says: one job whose pushes do not depend on how they are cut."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np

from downpour.bench.speed import dashboard_page
from downpour.bench.speed.dashboard import table
from downpour.deploy.dashboard import live
from downpour.deploy.dashboard.page_data import page_data

PUSHES = 2000


def test_the_pushes_of_the_load_continue_where_the_last_ones_ended() -> None:
    parts = [dashboard_page.synthetic_trace(500, begin) for begin in range(0, PUSHES, 500)]
    trace = np.concatenate(parts)
    assert trace["version"].tolist() == list(range(1, PUSHES + 1))
    assert (np.diff(trace["time_s"]) > 0).all()
    assert trace["time_s"][-1] <= PUSHES / dashboard_page.PUSHES_PER_S
    for worker in range(dashboard_page.WORKERS):
        own = trace[trace["worker"] == worker]
        assert own["seq"].tolist() == list(range(1, len(own) + 1))
        step_s = np.diff(own["time_s"])
        assert (own["compute_s"][1:] < step_s).mean() > 0.9
    assert (trace["base_version"] + trace["staleness"] + 1 == trace["version"]).all()


def test_the_page_can_be_given_the_load_as_a_run_and_as_a_job() -> None:
    assert page_data(dashboard_page.synthetic_run(PUSHES))

    async def first() -> live.Event:
        async with aclosing(dashboard_page.synthetic_events()) as events:
            return await anext(events)

    name, content = asyncio.run(first())
    assert name == "progress" and content["block"]
    assert len(content["progress"]["workers"]) == dashboard_page.WORKERS


def test_the_report_has_a_row_for_each_measurement_with_its_limit() -> None:
    machine: dict[str, Any] = {
        "cores": 2,
        **dict.fromkeys(("cpu", "system", "python", "numpy", "tensorflow", "grpcio"), "x"),
    }
    job: dict[str, Any] = {
        "lost": 0.001, "quartiles": [-0.01, 0.01], "standard_error": 0.002, "pushes_per_s": 1500.0, "cpu_share": 0.004,
        "dashboard_bytes": [80_000_000, 81_000_000],
    }  # fmt: skip
    results: dict[str, Any] = {
        "command": "c",
        "machine": machine,
        "load_at_start": 0,
        "job": job,
        "page": {"frames": ("60.0", "60")},
    }
    text = table(results)
    assert "| throughput that a viewer costs | 0.10% (quartiles -1.00% to 1.00%, standard error 0.20%) | 1 % |" in text
    assert "| processor time that a viewer adds, of all processors | 0.40% | 1 % |" in text
    assert "| frames | 60.0 | 60 |" in text and "| 80 MB, 81 MB | bounded |" in text
