"""Converts the error that ends `fit` on all workers to a message, and back to an exception.

Every worker raises the error of the worker that failed first, so that the script handles it in the same way everywhere.
"""

from __future__ import annotations

import builtins
import sys

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.exchange.errors import WorkerFailed

MAX_TEXT = 500  # limit for a reason, in characters, of which the servers read no more
HEAD = 150  # of these, which begin a text that is longer


def text_of(error: BaseException) -> str:
    """Return the text of an error; the beginning and the end of a long one, where TensorFlow states the reason."""
    text = str(error) or type(error).__name__
    if len(text) <= MAX_TEXT:
        return text
    gap = "\n…\n"
    return text[:HEAD] + gap + text[HEAD + len(gap) - MAX_TEXT :]


def error_type_of(error: BaseException) -> str:
    """Return the class of an error as `MODULE:NAME`."""
    return f"{type(error).__module__}:{type(error).__qualname__}"


def exception_of(failure: pb.FitFailure) -> BaseException:
    """Return the error of another worker as an exception with the same message.

    Its class is that of the error if this process has already imported the class and it takes a message alone, or is
    one of TensorFlow's, and `WorkerFailed` otherwise. Nothing is imported, evaluated or unpickled for it.
    """
    module, _, name = failure.error_type.partition(":")
    kind: object = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    error: BaseException = WorkerFailed(failure.text)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        error = _instance(kind, failure.text) or error
    error.add_note(f"downpour: worker {failure.worker} raised this error, which ended fit on all workers")
    return error


def _instance(kind: type[BaseException], text: str) -> BaseException | None:
    """Return an exception of a class whose text is `text`; None if the class cannot be built with that text."""
    candidates: list[tuple[str | int | None, ...]] = [(text,)]
    candidates.append((text[1:-1],))  # KeyError shows the representation of its argument
    candidates.append((None, None, text))  # TensorFlow's errors have an operation and its definition
    if text.isdecimal():
        candidates.insert(0, (int(text),))  # the exit status of SystemExit
    for arguments in candidates:
        try:
            error = kind(*arguments)
        except Exception:
            continue
        if str(error) == text:
            return error
    return None
