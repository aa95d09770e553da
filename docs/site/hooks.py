"""Hooks of MkDocs: the site contains every file of the repository that a page links to, so that no link leaves it.

A Markdown file becomes a page, another text a page with its source, and a folder a list of its files. README.md is the
first page, and the API reference is made from the docstrings of the public names.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^```.*?^```|^ {4,}[^\n]*$|`[^`\n]+`", re.M | re.S)
LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".json": "json", ".sh": "sh", ".proto": "proto"}
PICTURES = {".png", ".svg", ".webp", ".ipynb", ".npz"}
FIRST_PAGE = "README.md"
# The search of a page that was opened as a file needs this script, which the theme loads from the network.
WORKER, OF_THE_THEME = "assets/iframe-worker.js", "https://unpkg.com/iframe-worker/shim"


def place_of(path: str) -> str:
    """Return where a file or folder of the repository is in the site, as the path of its source."""
    if path == FIRST_PAGE:
        return "index.md"
    if path == "README.es.md":
        return path
    if (ROOT / path).is_dir():
        return posixpath.normpath(f"repository/{path}/index.md")
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".md") or posixpath.splitext(path)[1] in PICTURES:
        return f"repository/{path}"
    return f"repository/{path}.md"


def linked(text: str, path: str) -> list[str]:
    """Return the paths of the repository that a page links to, outside of code."""
    found = (match.group(2) for match in LINK.finditer(FENCE.sub("", text)))
    return [posixpath.normpath(posixpath.join(posixpath.dirname(path), each)) for each in found]


def with_links(text: str, path: str) -> str:
    """Return a page whose links lead to the places in the site."""
    here = posixpath.dirname(place_of(path)) or "."

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match.group(2)))
        if not (ROOT / target).exists():
            return match.group(0)
        return f"{match.group(1)}{posixpath.relpath(place_of(target), here)}{match.group(3) or ''}{match.group(4)}"

    return LINK.sub(replaced, text)


def content_of(path: str) -> str:
    """Return the page of a file or folder of the repository."""
    place = ROOT / path
    if place.is_dir():
        names = sorted(each.name for each in place.iterdir() if not each.name.startswith((".", "__pycache__")))
        lines = [f"- [{name}]({name})" if (place / name).is_file() else f"- {name}/" for name in names]
        return with_links(f"# {path}/\n\n" + "\n".join(lines) + "\n", f"{path}/index.md")
    if path.endswith(".md"):
        return with_links(place.read_text(), path)
    language = LANGUAGES.get(place.suffix, "text")
    return f"# {path}\n\n````{language}\n{place.read_text().rstrip()}\n````\n"


def reference() -> str:
    """Return the page of the API reference: every public name, from its docstring."""
    source = ast.parse((ROOT / "downpour" / "__init__.py").read_text())
    (modules,) = (
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES"
    )
    blocks = "\n\n".join(f"::: {modules[name]}.{name}" for name in sorted(modules))
    about = "The names of `downpour`, from their docstrings. [Public API](api.md) is shorter."
    return f"# API reference\n\n{about}\n\n{blocks}\n"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of all files of the repository that pages link to."""
    files.append(File.generated(config, "reference.md", content=reference()))
    files.append(File.generated(config, WORKER, content=(ROOT / "docs" / "site" / "iframe-worker.js").read_text()))
    pages = {
        f"docs/{each.src_uri}" for each in files if each.src_uri.endswith(".md") and each.src_uri != "reference.md"
    }
    waiting = [FIRST_PAGE, "README.es.md", "CHANGELOG.md", *sorted(pages)]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        place = ROOT / path
        if path in seen or not place.exists():
            continue
        seen.add(path)
        if path not in pages and not (path.startswith("docs/") and place.is_file()):
            if place.suffix in PICTURES:
                files.append(File.generated(config, place_of(path), abs_src_path=os.fspath(place)))
                continue
            files.append(File.generated(config, place_of(path), content=content_of(path)))
        if place.is_dir():
            waiting += [f"{path}/{each.name}" for each in place.iterdir() if each.is_file()]
        elif path.endswith(".md"):
            waiting += linked(place.read_text(), path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Return a page of the documentation with links to the places in the site."""
    path = f"docs/{page.file.src_uri}"
    return with_links(markdown, path) if (ROOT / path).is_file() else markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Return a page that loads nothing from the network."""
    return output.replace(OF_THE_THEME, posixpath.relpath(WORKER, posixpath.dirname(page.file.dest_uri) or "."))


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """Return a page of the theme, such as that of an error, that loads nothing from the network."""
    return output.replace(OF_THE_THEME, WORKER)
