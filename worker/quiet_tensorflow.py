"""Keeps what TensorFlow says of itself when it starts off a person's terminal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from downpour.protos.logs import OF_TENSORFLOW


@contextmanager
def hushed() -> Iterator[None]:
    """While it lasts, a terminal on standard error gets nothing; after it, all that is not TensorFlow's own log."""
    if not os.isatty(2):  # a log keeps everything
        yield
        return
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept.read().decode(errors="replace").splitlines():
                if line.strip() and not OF_TENSORFLOW.match(line):
                    os.write(2, f"{line}\n".encode())
