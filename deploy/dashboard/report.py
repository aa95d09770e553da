"""`downpour report RUN_DIR`: writes a finished run as one HTML file."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from downpour.deploy.dashboard.config import ReportSettings
from downpour.deploy.dashboard.page_data import page_data
from downpour.deploy.dashboard.page_files import one_document
from downpour.deploy.dashboard.recorded_run import NoRun, load_run

EXIT_USAGE = 2


def report(settings: ReportSettings) -> int:
    """Write the report, print its path, and return the exit status."""
    folder = Path(settings.run)
    try:
        run = load_run(folder)
    except NoRun as error:
        print(f"downpour report: {error}", file=sys.stderr)
        return EXIT_USAGE
    to = Path(settings.to) if settings.to else folder / "report.html"
    try:
        _write(to, one_document(f"downpour: {run.name}", page_data(run, settings.first)))
    except OSError as error:
        print(
            f"downpour report: --to must be a file that can be written; received {to} ({error.strerror or error})",
            file=sys.stderr,
        )
        return EXIT_USAGE
    print(f"{to} ({to.stat().st_size / 1e6:.2f} MB) opens in a browser, without a network")
    return 0


def _write(path: Path, text: str) -> None:
    """Write a file atomically, so that a reader never sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
