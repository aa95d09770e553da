"""Run directories have names of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from downpour.deploy.launch.run_dir import make_run_dir


def test_run_directories_of_one_second_differ(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC)
    made = [make_run_dir(tmp_path / "runs", "pkg.mod:build", now) for _ in range(3)]
    assert [path.name for path in made] == [f"20261121T010203Z-pkg.mod-build{end}" for end in ("", "-2", "-3")]
    assert all((path / "logs").is_dir() for path in made)
