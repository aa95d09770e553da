"""The files of worker 0 in a replay: the real ones stay as they are, and the other workers find what it publishes."""

from __future__ import annotations

from pathlib import Path

from downpour.worker.fit.process.file_journal import JournalReader, JournalWriter
from downpour.worker.fit.process.file_view import FileView
from downpour.worker.fit.process.script_files import FollowerFiles, PrivateLeaderFiles


def test_what_worker_0_writes_within_fit_is_found_by_the_others_and_the_real_files_stay(tmp_path: Path) -> None:
    shared, real = tmp_path / "shared", tmp_path / "real"
    for folder in (shared / "worker-0", shared / "worker-1", real):
        folder.mkdir(parents=True)
    (real / "best").write_text("before")
    leader = PrivateLeaderFiles(FileView(str(shared / "worker-0")), JournalWriter(str(shared)))
    other = FollowerFiles(FileView(str(shared / "worker-1"), JournalReader(str(shared)), str(shared / "worker-0")))
    outside = str(real / "outside")
    Path(leader.to_write(outside)).write_text("of worker 0 alone")
    leader.begin_stage(0, in_fit=True)
    for name in ("best", "new"):
        Path(leader.to_write(str(real / name))).write_text("within fit")
    assert Path(other.to_read(str(real / "best"))).read_text() == "before"
    leader.begin_stage(1, in_fit=False)
    other.begin_stage(1, in_fit=False)
    for files in (leader, other):
        assert Path(files.to_read(str(real / "best"))).read_text() == "within fit"
        assert set(files.listed(str(real)) or ()) >= {"best", "new"}
    assert not Path(other.to_read(outside)).exists() and Path(leader.to_read(outside)).exists()
    assert sorted(path.name for path in real.iterdir()) == ["best"] and (real / "best").read_text() == "before"
