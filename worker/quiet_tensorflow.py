"""A filter that removes TensorFlow's own log from a terminal while TensorFlow is loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from downpour.protos.logs import OF_TENSORFLOW


@contextmanager
def tensorflow_log_filtered() -> Iterator[None]:
    """Buffer the standard error of a block if it is a terminal, and print it afterwards without TensorFlow's log."""
    if not os.isatty(2):  # a log file keeps all messages
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
