"""The error of one worker is raised on the others, with its class and its text."""

from __future__ import annotations

import pytest
import tensorflow as tf

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.worker.exchange.errors import WorkerFailed
from downpour.worker.fit.cluster.fit_failure import MAX_TEXT, error_type_of, exception_of, text_of


class TwoArguments(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Outer:
    class Pruned(ValueError):
        pass


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyError("b"), KeyError("it's"), SystemExit(3), Unsupported("c"), RuntimeError("'d'")]
)
def test_an_error_has_its_class_and_its_text_on_the_others(error: BaseException) -> None:
    found = exception_of(pb.FitFailure(worker=1, error_type=error_type_of(error), text=str(error)))
    assert type(found) is type(error) and str(found) == str(error)
    assert "worker 1 raised this error" in found.__notes__[0]


@pytest.mark.parametrize(
    "error_type",
    ["a_module_that_is_not_imported:Error", "builtins:print", "os:system", f"{__name__}:TwoArguments", "", "builtins:"],
)
def test_an_error_whose_class_is_not_known_keeps_its_text(error_type: str) -> None:
    found = exception_of(pb.FitFailure(worker=1, error_type=error_type, text="1 and 2"))
    assert type(found) is WorkerFailed and str(found) == "1 and 2"


def test_a_class_of_the_script_is_found_where_it_is_defined() -> None:
    error = Outer.Pruned("e")
    found = exception_of(pb.FitFailure(error_type=error_type_of(error), text="e"))
    assert type(found) is Outer.Pruned


def test_an_error_of_tensorflow_has_its_class_on_the_others() -> None:
    error = tf.errors.InvalidArgumentError(None, None, "assertion failed: [a sample]")
    found = exception_of(pb.FitFailure(error_type=error_type_of(error), text=text_of(error)))
    assert type(found) is tf.errors.InvalidArgumentError and str(found) == str(error)


@pytest.mark.parametrize("length", [0, 1, MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 10 * MAX_TEXT])
def test_of_a_long_text_the_beginning_and_the_end_are_sent(length: int) -> None:
    text = text_of(ValueError("x" * length)) if length < 2 else text_of(ValueError("a" + "x" * (length - 2) + "z"))
    assert len(text) == min(length, MAX_TEXT) or text == "ValueError"
    assert length < 2 or (text.startswith("a") and text.endswith("z") and ("…" in text) == (length > MAX_TEXT))
