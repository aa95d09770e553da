"""The process of a worker that runs a script: its random state and its view of the files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from downpour.worker.fit.process.library_patches import replace_functions_of_libraries
from downpour.worker.fit.process.randomness import Randomness
from downpour.worker.fit.process.script_clock import ScriptClock
from downpour.worker.fit.process.script_files import ScriptFiles


class ScriptProcess:
    """The replaced parts of Python and of the libraries in a worker's process.

    Attributes:
        files: The files of the script in this process.
    """

    def __init__(self, randomness: Randomness, files: ScriptFiles) -> None:
        """Build a process in which nothing is replaced yet.

        Args:
            randomness: The random state of this process.
            files: The files of the script in this process.
        """
        self._randomness, self.files = randomness, files
        self._clock: ScriptClock | None = None  # if the workers share a folder
        self._fitted: Any = None  # the model of the last call of `fit`

    def install(self) -> None:
        """Seed the process, and replace the functions that draw random numbers, read the clock and open files."""
        self._randomness.install()
        if folder := self.files.folder_of("clock"):
            self._clock = ScriptClock(folder)
            self._clock.install()
        if self.files.files is not None:
            self.files.install()
            replace_functions_of_libraries(self.files)

    def fitted(self, model: Any) -> None:
        """Record that a call of `fit` has trained a model."""
        self._fitted = model

    def save_fitted(self, path: str) -> None:
        """Save the model that was fitted last for plain Keras; print why if Keras cannot save it.

        Args:
            path: A path that ends in `.keras`, at which there is either the whole file or none.
        """
        if self._fitted is None:
            return
        partial = path.removesuffix(".keras") + ".partial.keras"
        try:
            self._fitted.save(partial)
            os.replace(partial, path)
        except Exception as error:  # of any code of the model that describes it
            print(f"downpour: the run has no model.keras: {type(error).__name__}: {error}", file=sys.stderr)
            with suppress(OSError):
                os.remove(partial)

    @contextmanager
    def of_fit(self, call: int) -> Iterator[None]:
        """Return a context in which random numbers differ between workers, and worker 0's files are published.

        Args:
            call: The number of the call of `fit`, from 1.
        """
        clock = nullcontext() if self._clock is None else self._clock.of_fit(call)
        with self._randomness.of_fit(call), self.files.of_fit(call), clock:
            yield
