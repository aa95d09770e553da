"""The source files of the project, by the names of their modules."""

from __future__ import annotations

from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("protos", "ps", "worker", "deploy", "bench")


def sources(folder: str) -> list[Path]:
    """Return the Python files below a folder, without the generated stubs."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name)


def module_of(path: Path) -> str:
    """Return the dotted name of a file without `downpour.`, as `ps.core.shard`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for package in PACKAGES for path in sources(package)}
