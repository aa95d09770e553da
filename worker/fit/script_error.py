"""Shows the error of a script as Python shows it: without the frames of the program that runs the script."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import downpour

_PACKAGE = Path(downpour.__file__).parent
# Keras removes its own frames too, so that one of these may be the last, although the error was raised in Keras.
_PASS_THROUGH = tuple(f"{name}.py" for name in ("keras_hooks", "keras_patches", "fit", "epochs"))
_ROOTS = tuple({f"{folder.resolve()}/" for folder in (_PACKAGE, *_PACKAGE.iterdir()) if folder.is_dir()})


def show_error(error: BaseException) -> None:
    """Print an error with its traceback, or call the hook that the script has set for that."""
    seen: set[int] = set()
    _trim_all(error, seen)
    sys.excepthook(type(error), error, error.__traceback__)


def _trim_all(error: BaseException | None, seen: set[int]) -> None:
    """Remove the frames of this program from an error, from those that caused it, and from those in a group."""
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    own = type(error).__module__.startswith(f"{downpour.__name__}.")  # an error that is meant for the script
    error.__traceback__ = without_own_frames(error.__traceback__, foreign=own)
    _trim_all(error.__cause__, seen)
    _trim_all(error.__context__, seen)
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        _trim_all(each, seen)


def without_own_frames(trace: types.TracebackType | None, foreign: bool = False) -> types.TracebackType | None:
    """Return a traceback without the frames of this package and of what runs the script.

    The last frames remain if the error was raised in this package, as a fault of it must be found.

    Args:
        trace: The traceback.
        foreign: Whether the frames of this package are left out in any case, if there are others.
    """
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if foreign and not all(map(_is_own, frames)):
        frames = [each for each in frames if not _is_own(each)]
    last = len(frames)
    while last and _is_own(frames[last - 1]) and not _passes_through(frames[-1]):
        last -= 1
    kept = [each for number, each in enumerate(frames) if number >= last or not _is_own(each)] if last else frames
    result: types.TracebackType | None = None
    for each in reversed(kept):
        result = types.TracebackType(result, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return result


def _passes_through(trace: types.TracebackType) -> bool:
    return Path(trace.tb_frame.f_code.co_filename).name in _PASS_THROUGH


def _is_own(trace: types.TracebackType) -> bool:
    name = trace.tb_frame.f_code.co_filename
    return name.startswith(("<frozen runpy>", "<frozen importlib", *_ROOTS))
