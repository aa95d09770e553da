"""The report of a benchmark is one HTML file with its tables, drawings, machine and raw data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from downpour.bench import report
from downpour.bench.__main__ import folder_of
from downpour.bench.page import PAGE, write_page

UNCLOSED = {"meta", "br", "img", "path", "use", "rect", "line", "circle"}


class Checked(HTMLParser):
    """A parser that follows which elements are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in UNCLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in UNCLOSED:
            assert self.open.pop() == tag


def draw(figure: Any) -> None:
    figure.subplots().plot([1, 2, 3])


def test_the_page_contains_everything_and_loads_nothing(tmp_path: Path) -> None:
    results = {**report.results_header("codecs", ["--quick"]), "rate": {"1 < 2 & 3": [1.5]}}
    table = report.rows(["codec", "samples/s"], [["`topk:0.01`", "1,200"], ["<none>", "**3**"]])
    text = (
        f"{report.head(results, 'Codecs')}\n\n{table}\n\n- one\n- two, [paper](https://example.org/a)\n\n    code < x"
    )
    report.write(tmp_path, results, text, {"loss": draw}, "How it is *measured*.")
    page = write_page(tmp_path)
    assert page == tmp_path / PAGE
    found = page.read_text()
    parser = Checked()
    parser.feed(found)
    assert parser.open == []
    assert all(
        part in found for part in ("<code>topk:0.01</code>", "&lt;none&gt;", "<strong>3</strong>", "<svg", "Raw data")
    )
    assert "<li>one</li>" in found and "code &lt; x" in found and str(results["machine"]["cpu"]) in found
    assert not re.search(r'(src|href)="(?!https://example\.org|#)[^"]', re.sub(r"<svg.*?</svg>", "", found, flags=re.S))
    raw = found.split("Raw data</summary><pre>")[1].split("</pre>")[0]
    assert json.loads(raw.replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&"))["rate"] == results["rate"]


def test_a_benchmark_without_a_report_has_no_page(tmp_path: Path) -> None:
    assert write_page(tmp_path) is None and not (tmp_path / PAGE).exists()


def test_the_folder_of_a_report_is_that_of_the_flag() -> None:
    assert folder_of(["--quick", "--out", "a"]) == folder_of(["--out=a", "--quick"]) == "a"
    assert folder_of(["--quick"]) == folder_of(["--out"]) == ""
