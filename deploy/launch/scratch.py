"""A folder for temporary files that is gone when the processes using it are, kill -9 of all of them included.

A process that is killed cleans up nothing, so a shell that does nothing else waits for the end of file on a pipe:
its other end is held by this process and by whoever is given it. When the last of them is gone, however it ended, the
shell removes the folder. It is started before the folder is made, so that there is no moment without it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

# It is in a session of its own, where no Ctrl-C comes, but a service manager signals all processes of a service. What
# a process that is just being killed still writes may be in the way once.
_SWEEP = 'trap "" HUP INT TERM; read -r _; for try in 1 2 3; do rm -rf -- "$1" && exit; sleep 1; done'
SWEEP_S = 5.0  # for the shell to end; then this process removes the folder itself


class Scratch:
    """A folder for temporary files of this process and its children.

    Attributes:
        path: The folder.
        holding: Descriptor that keeps it: children that use the folder inherit it.
    """

    def __init__(self) -> None:
        """Makes the folder.

        Raises:
            OSError: There is no room for one, or nothing to sweep it.
        """
        self.path = Path(tempfile.gettempdir()) / f"downpour-{secrets.token_hex(8)}"
        reading, self.holding = os.pipe()
        try:
            self._sweeper = subprocess.Popen(
                ["/bin/sh", "-c", _SWEEP, "sh", str(self.path)], stdin=reading,
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
        """Removes the folder; call it when all children that use it have ended."""
        os.close(self.holding)
        with suppress(subprocess.TimeoutExpired):
            self._sweeper.wait(SWEEP_S)
        shutil.rmtree(self.path, ignore_errors=True)  # where somebody has killed the shell

    def __enter__(self) -> Path:
        """The folder."""
        return self.path

    def __exit__(self, *_: object) -> None:
        """Removes it."""
        self.close()
