"""The files of the page: separately for a server, and as one document."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
LANGUAGES = ("en", "es")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
FIRST_MODULE = "main.js"
LIBRARY = "vendor/uPlot.iife.min.js"  # a script, not a module
STYLES = ("vendor/uPlot.min.css", "style.css")
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class)\b)", re.M)


@cache
def files() -> dict[str, bytes]:
    """Return the content of every file of the page by its path below the page's folder."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}


def one_script() -> str:
    """Return all modules of the page as one, in an order in which every name exists before it is used.

    A document that is opened from a disk cannot import modules, so imports and exports are removed. The modules use
    only the form of import that is parsed here, and no two of them define the same name; a test checks both.
    """
    done: list[str] = []
    parts: list[str] = []

    def add(name: str) -> None:
        if name in done:
            return
        done.append(name)
        text = files()[name].decode()
        for needed in _IMPORT.findall(text):
            add(needed)
        parts.append(_EXPORT.sub("", _IMPORT.sub("", text)))

    add(FIRST_MODULE)
    return "".join(parts)


def one_document(title: str, data: bytes) -> str:
    """Return the page with a run in it as one HTML document, which loads nothing.

    Args:
        title: The title of the document, before its script sets another.
        data: The result of `page_data`.
    """
    library, script, style = files()[LIBRARY].decode(), one_script(), "".join(files()[each].decode() for each in STYLES)
    texts = {language: json.loads(files()[f"texts/{language}.json"]) for language in LANGUAGES}
    policy = (
        f"default-src 'none'; script-src {_digest(library)} {_digest(script)}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = files()["index.html"].decode()
    embedded = (
        f'<script type="application/json" id="texts">{_json(texts)}</script>\n'
        f'<script type="text/plain" id="run">{base64.b64encode(data).decode()}</script>\n'
    )
    replacements = {
        "<title>downpour</title>": f"<title>{html.escape(title)}</title>",
        f'<link rel="stylesheet" href="{STYLES[0]}">\n': "",
        f'<link rel="stylesheet" href="{STYLES[1]}">': (
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
        ),
        f'<script src="{LIBRARY}"></script>': f"<script>{library}</script>",
        '<script type="module" src="main.js"></script>': f'{embedded}<script type="module">{script}</script>',
    }
    for old, new in replacements.items():
        assert page.count(old) == 1, f"index.html must hold {old} once"
        page = page.replace(old, new)
    return page


def _digest(text: str) -> str:
    """Return a source of a Content-Security-Policy: the hash of an element's content in the document."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: object) -> str:
    """Return JSON that cannot end the HTML element that contains it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
