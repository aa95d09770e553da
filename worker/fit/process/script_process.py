"""The process of a worker that runs a script: its random state and its files, which change with each call of `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from downpour.worker.fit.process.library_patches import replace_functions_of_libraries
from downpour.worker.fit.process.randomness import Randomness
from downpour.worker.fit.process.script_files import ScriptFiles


class ScriptProcess:
    """The parts of Python and of the libraries that are replaced in a worker's process.

    Attributes:
        files: The functions on files.
    """

    def __init__(self, randomness: Randomness, files: ScriptFiles) -> None:
        """Build a process in which nothing is replaced yet.

        Args:
            randomness: The random state.
            files: The functions on files.
        """
        self._randomness, self.files = randomness, files

    def install(self) -> None:
        """Seed the process, and replace the functions."""
        self._randomness.install()
        if self.files.files is not None:
            self.files.install()
            replace_functions_of_libraries(self.files)

    @contextmanager
    def of_fit(self, call: int) -> Iterator[None]:
        """Within this context, workers draw numbers of their own, and the files that worker 0 writes are published.

        Args:
            call: The number of the call of `fit`, from 1.
        """
        with self._randomness.of_fit(call), self.files.of_fit(call):
            yield
