"""A folder for temporary files that is removed when all processes that use it have ended, even by SIGKILL.

A process that is killed cannot clean up, so a shell waits for the end of file on a pipe whose other end is held by this
process and by its children. When the last of them has ended, the shell removes the folder. The shell is started before
the folder is created, so that the folder never exists without it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

# Ctrl-C does not reach the shell, which has a session of its own, but a service manager signals all processes of a
# service. A process that is being killed may still write a file, so the removal is repeated.
_REMOVAL = 'trap "" HUP INT TERM; read -r _; for try in 1 2 3; do rm -rf -- "$1" && exit; sleep 1; done'
REMOVAL_S = 5.0  # for the shell to end; after that this process removes the folder itself


class Scratch:
    """A folder for temporary files of this process and its children.

    Attributes:
        path: The folder.
        holding: The file descriptor that keeps the folder; children that use the folder must inherit it.
    """

    def __init__(self) -> None:
        """Create the folder, whose name no other job has.

        Raises:
            OSError: The folder cannot be created, or the shell that removes it cannot be started.
        """
        self.path = Path(tempfile.gettempdir()) / f"downpour-{secrets.token_hex(8)}"
        reading, self.holding = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _REMOVAL, "sh", str(self.path)], stdin=reading,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError:
            os.close(self.holding)
            raise
        finally:
            os.close(reading)
        try:
            self.path.mkdir(0o700)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Remove the folder. Call this when all children that use it have ended."""
        os.close(self.holding)
        with suppress(subprocess.TimeoutExpired):
            self._shell.wait(REMOVAL_S)
        shutil.rmtree(self.path, ignore_errors=True)  # in case the shell was killed

    def __enter__(self) -> Path:
        """Return the path of the folder, which exists already."""
        return self.path

    def __exit__(self, *_: object) -> None:
        """Remove the folder and all files in it."""
        self.close()
