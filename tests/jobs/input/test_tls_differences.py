"""Processes that differ in TLS end at once with the reason: one has none, another authority, an expired certificate."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from downpour.deploy.certs import CertsSettings, certs
from downpour.protos.access.tls_check import difference_in_tls
from downpour.protos.credentials import AUTHORITY, AccessSettings, NotSecured, identity_of
from tests.support.cluster import Cluster, running


def test_a_client_that_differs_in_tls_receives_advice_and_fills_no_log(tmp_path: Path) -> None:
    """Its reason is named at once, and not when the time for the first connection is over."""
    for name in ("ours", "other"):
        assert certs(CertsSettings(folder=str(tmp_path / name))) == 0
    other = f"--tls-dir={tmp_path / 'other'}"
    with running(tmp_path, tls_dir=tmp_path / "ours") as cluster:
        for flags, words in (([], "give --tls-dir"), ([other], "of the authority in")):
            error = refused(cluster, "worker", *flags, f"--server={cluster.address}", "--connect-timeout-s=600")
            assert words in error and len(error.splitlines()) == 1
            shard = ["--shard=1", "--shards=2", f"--coordinator={cluster.address}", "--bind=127.0.0.1:0"]
            assert words in refused(cluster, "ps", *flags, *shard, "--start-timeout-s=600")
        lines = [line for line in cluster.servers[0].errors.splitlines() if "waiting for workers" not in line]
        assert lines == []


def test_a_client_with_tls_is_refused_at_once_by_a_server_without(tmp_path: Path) -> None:
    assert certs(CertsSettings(folder=str(tmp_path / "other"))) == 0
    flags = [f"--tls-dir={tmp_path / 'other'}", "--connect-timeout-s=600"]
    with running(tmp_path) as cluster:
        assert "start both with --tls-dir, or neither" in refused(
            cluster, "worker", f"--server={cluster.address}", *flags
        )


def refused(cluster: Cluster, command: str, *flags: str) -> str:
    """Return what a process that is refused writes on standard error."""
    module = {"worker": "downpour.worker", "ps": "downpour.ps"}[command]
    process = cluster.start(command, "-m", module, *flags)
    assert process.wait() != 0
    return process.errors


@pytest.mark.parametrize(("days", "words"), [(-10, "it expired"), (10, "is not valid before")])
def test_certificates_that_are_not_valid_now_are_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, words: str
) -> None:
    class OtherClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr("downpour.deploy.certs.datetime", OtherClock)
    assert certs(CertsSettings(folder=str(tmp_path / "certs"), days=1)) == 0
    with pytest.raises(NotSecured, match=words):
        identity_of(AccessSettings(tls_dir=str(tmp_path / "certs")))


def test_an_authority_that_is_no_certificate_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / AUTHORITY).write_text("no certificate")
    with pytest.raises(NotSecured, match="must hold a certificate in PEM format"):
        identity_of(AccessSettings(tls_dir=str(tmp_path)))


def test_a_port_where_nothing_answers_says_nothing_about_tls() -> None:
    with socket.socket() as bound:  # but does not listen
        bound.bind(("127.0.0.1", 0))
        for authority in (None, b""):
            assert difference_in_tls(f"127.0.0.1:{bound.getsockname()[1]}", authority) == ""
