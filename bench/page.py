"""Makes one self-contained HTML file of the report of a benchmark: tables, plots, machine, command and raw data.

It reads the Markdown of reports: headings, paragraphs, lists, tables, code, links and pictures of the same folder.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = "report.html"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #0b6bcb; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h1 { border-bottom: 3px solid var(--accent); padding-bottom: .4rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } tr:hover td { background: var(--soft); }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px; padding: 0 .3rem; }
pre { padding: .8rem; overflow: auto; max-height: 32rem; } figure { margin: 1.5rem 0; }
figure svg, figure img { width: 100%; height: auto; background: #fff; border-radius: 6px; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; } dt { opacity: .7; } dd { margin: 0; }
"""


def write_page(folder: Path) -> Path | None:
    """Write `report.html` beside `report.md` and `results.json`, and return its path; None if there is no report."""
    report, results = folder / "report.md", folder / "results.json"
    if not report.exists():
        return None
    data = json.loads(results.read_text()) if results.exists() else {}
    text = report.read_text()
    title = text.partition("\n")[0].lstrip("# ") or "Benchmark"
    body = "\n".join(blocks(text, folder))
    page = folder / PAGE
    page.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>downpour: {html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>{body}\n{facts_of(data)}\n"
        f"<details><summary>Raw data</summary><pre>{html.escape(json.dumps(data, indent=1))}</pre></details>\n"
        "</body></html>\n"
    )
    return page


def facts_of(data: dict[str, Any]) -> str:
    """Return the machine and the command as a list."""
    rows = {"command": data.get("command"), **data.get("machine", {})}
    rows |= {name.replace("_", " "): data.get(name) for name in ("load_at_start", "load_at_end")}
    shown = [(name, value) for name, value in rows.items() if value is not None]
    items = "".join(
        f"<dt>{html.escape(str(name).replace('_', ' '))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in shown
    )
    return f"<h2>Machine and command</h2><dl>{items}</dl>" if items else ""


def blocks(text: str, folder: Path) -> Iterator[str]:
    """Yield the blocks of a Markdown text as HTML."""
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.strip("\n").splitlines()
        if heading := re.fullmatch(r"(#{1,4}) (.*)", lines[0]):
            yield f"<h{len(heading[1])}>{inline(heading[2], folder)}</h{len(heading[1])}>"
            lines = lines[1:]
        if not lines:
            continue
        if lines[0].startswith("|"):
            yield table(lines, folder)
        elif lines[0].startswith("- "):
            items = re.split(r"(?m)^- ", "\n".join(lines))[1:]
            yield "<ul>" + "".join(f"<li>{inline(item.strip(), folder)}</li>" for item in items) + "</ul>"
        elif all(line.startswith("    ") for line in lines):
            yield f"<pre>{html.escape(chr(10).join(line[4:] for line in lines))}</pre>"
        elif lines[0].startswith("```"):
            yield f"<pre>{html.escape(chr(10).join(line for line in lines if not line.startswith('```')))}</pre>"
        else:
            yield f"<p>{inline(' '.join(lines), folder)}</p>"


def table(lines: list[str], folder: Path) -> str:
    """Return a table of Markdown as HTML."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{inline(cell, folder)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{inline(cell, folder)}</td>" for cell in row) + "</tr>"
        for row in rows[1:]
        if not all(re.fullmatch(r":?-{3,}:?", cell) for cell in row)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def inline(text: str, folder: Path) -> str:
    """Return a text with code, emphasis, links and pictures as HTML."""
    parts = re.split(r"(`[^`]+`|!\[[^\]]*\]\([^)]+\))", text)
    return "".join(_part(part, folder) for part in parts)


def _part(part: str, folder: Path) -> str:
    if part.startswith("`"):
        return f"<code>{html.escape(part.strip('`'))}</code>"
    if picture := re.fullmatch(r"!\[([^\]]*)\]\(([^)]+)\)", part):
        return _picture(picture[1], folder / picture[2])
    escaped = html.escape(part, quote=False)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r'<a href="\2">\1</a>', escaped)


def _picture(name: str, path: Path) -> str:
    """Return a drawing that is part of the page."""
    if path.suffix != ".svg" or not path.exists():
        return f"<em>{html.escape(name)}</em>"
    drawing = path.read_text()
    return f'<figure aria-label="{html.escape(name)}">{drawing[drawing.index("<svg") :]}</figure>'
