"""The tokens of jobs: their own user finds them, nobody else can, and they are sent to this machine only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from downpour.protos.access import job_tokens
from downpour.protos.access.job_tokens import draw_token, find_token, publish, withdraw


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a folder of the test's own, as another process of the same user would find it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(job_tokens, "_published", {})
    return tmp_path / "downpour"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as a process that has published nothing."""
    monkeypatch.setattr(job_tokens, "_published", {})


def test_drawn_tokens_differ_and_are_long_and_printable() -> None:
    tokens = {draw_token() for _ in range(100)}
    assert len(tokens) == 100 and all(len(token) >= 40 and token.isascii() and token.isprintable() for token in tokens)


def test_another_process_of_the_same_user_finds_the_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("127.0.0.1:5000", "first")
    publish("127.0.0.1:5000", "second")
    forget(monkeypatch)
    assert [find_token(f"{host}:5000") for host in ("127.0.0.1", "localhost", "[::1]")] == ["second"] * 3
    assert find_token("127.0.0.1:5001") == "" == find_token("no address")


def test_only_the_user_can_read_it(folder: Path) -> None:
    publish("127.0.0.1:5000", "secret")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("address", ["10.0.0.1:5000", "example.org:5000", "0.0.0.0:5000", ":5000", "5000"])
def test_it_is_never_sent_to_another_machine(folder: Path, address: str) -> None:
    publish("127.0.0.1:5000", "secret")
    assert find_token(address) == ""


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o705])
def test_a_folder_that_others_can_enter_is_not_used(folder: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "5000").write_text("planted")
    folder.chmod(mode)
    assert find_token("127.0.0.1:5000") == ""
    publish("127.0.0.1:5000", "own")
    assert (folder / "5000").read_text() == "planted"
    assert find_token("127.0.0.1:5000") == "own"  # this process knows it all the same


def test_a_link_is_not_used_as_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    os.symlink(tmp_path / "elsewhere", folder)
    publish("127.0.0.1:5000", "secret")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_token_is_withdrawn_unless_another_job_has_replaced_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("127.0.0.1:5000", "mine")
    publish("127.0.0.1:5001", "mine too")
    (folder / "5001").write_text("of another launcher")
    withdraw("127.0.0.1:5000")
    withdraw("127.0.0.1:5001")
    withdraw("127.0.0.1:5002")
    assert [path.name for path in folder.iterdir()] == ["5001"]
    assert find_token("127.0.0.1:5000") == "" and find_token("127.0.0.1:5001") == "of another launcher"


def test_no_folder_is_left_when_the_last_token_is_withdrawn(folder: Path) -> None:
    publish("127.0.0.1:5000", "one")
    publish("127.0.0.1:5001", "two")
    withdraw("127.0.0.1:5000")
    assert folder.is_dir()
    withdraw("127.0.0.1:5001")
    assert not folder.exists()
