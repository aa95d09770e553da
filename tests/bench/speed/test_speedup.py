"""`downpour bench speedup`: its prediction, and its flags."""

from __future__ import annotations

import argparse
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.bench.speed.speedup import closed_queue, straggler


@given(st.integers(1, 200), st.floats(1e-4, 1), st.floats(1e-5, 1))
def test_a_closed_queue_is_as_fast_as_its_slowest_part_at_most(workers: int, think_s: float, service_s: float) -> None:
    rate = closed_queue(workers, think_s, service_s)
    assert rate <= min(workers / (think_s + service_s), 1 / service_s) * (1 + 1e-9)
    assert rate >= closed_queue(max(1, workers - 1), think_s, service_s) * (1 - 1e-9)


def test_a_closed_queue_of_two_is_known() -> None:
    """Two workers, Z = S = 1, exponential: states 0..2 at the server weigh 1, 2, 2; rate = 4/5."""
    assert closed_queue(2, 1.0, 1.0) == pytest.approx(0.8)


def test_a_straggler_is_a_worker_and_a_factor() -> None:
    assert straggler("1:5x") == straggler("1:5") == (1, 5.0)
    for wrong in ("5x", "1:0.5x", "-1:2", "a:b"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"received '{wrong}'"):
            straggler(wrong)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--repeats=many", "--repeats must be a whole number; received 'many'"),
        ("--compute-s=x", "--compute-s must be a number; received 'x'"),
        ("--workers=a", "--workers must be of the form that --help shows; received 'a'"),
        ("--transport=x", "--transport must be one of auto, shm, tcp, grpc; received 'x'"),
        ("--out", "--out needs a value"),
        ("extra", "unexpected argument extra"),
    ],
)
def test_a_wrong_value_of_a_benchmark_is_explained_in_plain_words(
    argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("downpour.bench.speed.speedup").main([argument])
    assert ended.value.code == 2
    assert f"downpour bench speedup: {message}\n" in capsys.readouterr().err
