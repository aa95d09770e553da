"""A cluster with TLS for the transport benchmark: certificates in a temporary folder, and this process's identity."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from downpour.deploy.certs import CertsSettings, certs
from downpour.protos.credentials import AccessSettings, adopt


@contextmanager
def certificates() -> Iterator[list[str]]:
    """Create certificates and a token; yield the flags of a server that uses them."""
    with tempfile.TemporaryDirectory(prefix="downpour-bench-") as folder:
        path = Path(folder) / "certs"
        with redirect_stdout(StringIO()):
            certs(CertsSettings(folder=str(path)))
        yield [f"--tls-dir={path}"]


@contextmanager
def identity(flags: Sequence[str]) -> Iterator[None]:
    """Present the identity of a server's flags to servers that this process connects to within the block."""
    folder = flags[0].partition("=")[2] if flags else None
    adopt(AccessSettings(tls_dir=folder))
    try:
        yield
    finally:
        adopt(AccessSettings())
