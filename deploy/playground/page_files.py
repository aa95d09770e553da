"""The files of the page of the playground, some of which are the dashboard's."""

from __future__ import annotations

from pathlib import Path

from downpour.deploy.dashboard import page_files

FOLDER = Path(__file__).with_name("page")
SHARED = ("dom.js", "texts.js", "colors.js")  # files of the dashboard's page


def files() -> dict[str, bytes]:
    """Return the content of every file of the page, by its path."""
    own = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in page_files.TYPES}
    return {**{name: page_files.files()[name] for name in SHARED}, **{k: p.read_bytes() for k, p in own.items()}}
