"""The dashboard of Grafana asks for metrics and labels that the servers have."""

from __future__ import annotations

import json
import re

from tests.support.paths import ROOT

BOARD = json.loads((ROOT / "deploy" / "grafana" / "downpour.json").read_text())
SOURCE = (ROOT / "ps" / "monitoring" / "prometheus.py").read_text()
SUFFIXES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"job", "instance", "le"}  # labels that it adds, or that every histogram has


def expressions() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def test_every_metric_that_the_dashboard_shows_exists() -> None:
    kinds = re.findall(r'(Counter|Gauge|Histogram)MetricFamily\(\s*"(downpour_\w+)"', SOURCE)
    kinds += [("Histogram", name) for name in re.findall(r'_histogram\("(downpour_\w+)"', SOURCE)]
    known = {name + suffix for kind, name in kinds for suffix in SUFFIXES[kind]}
    queries = [variable.get("definition", "") for variable in BOARD["templating"]["list"]]
    shown = set(re.findall(r"downpour_\w+", "\n".join([*expressions(), *queries])))
    assert len(shown) > 12 and shown <= known


def test_every_label_exists() -> None:
    labels = set(re.findall(r'labels=\["(\w+)"\]', SOURCE)) | OF_PROMETHEUS
    text = "\n".join(expressions())
    used = set(re.findall(r'(\w+)=~"', text)) | set(re.findall(r"by \((\w+)\)", text))
    assert {"job", "worker"} <= used <= labels


def test_it_has_variables_for_the_job_and_the_worker() -> None:
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["datasource", "job", "worker"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24 and not taken & cells, panel["title"]
        taken |= cells
