"""The files of the page of the playground, some of which are the dashboard's."""

from __future__ import annotations

import json
from pathlib import Path

from downpour.deploy.dashboard import page_files

FOLDER = Path(__file__).with_name("page")
SHARED = ("dom.js", "texts.js", "colors.js")  # files of the dashboard's page


def files() -> dict[str, bytes]:
    """Return the content of every file of the page, by its path."""
    own = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in page_files.TYPES}
    content = {**{name: page_files.files()[name] for name in SHARED}, **{k: p.read_bytes() for k, p in own.items()}}
    for language in page_files.LANGUAGES:
        name = f"texts/{language}.json"
        content[name] = json.dumps({**_sentences(name), **json.loads(content[name])}).encode()
    return content


def _sentences(name: str) -> dict[str, str]:
    """Return the sentences of the servers from a catalogue of the dashboard, which the playground shows as well."""
    texts: dict[str, str] = json.loads(page_files.files()[name])
    return {key: text for key, text in texts.items() if key.startswith("sentence_")}
