"""The learning rates of a script: a table by updates that is interpolated, and what is refused as one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.core.schedules import RateTable, check_rates

RATES = st.floats(0.0, 10.0, width=32)


def table_of(points: dict[int, float]) -> pb.LearningRates:
    return pb.LearningRates(updates=sorted(points), rates=[points[updates] for updates in sorted(points)])


@given(st.dictionaries(st.integers(0, 10**6), RATES, min_size=1, max_size=20))
def test_a_valid_table_gives_its_rates_at_its_versions_and_the_outer_ones_beyond(points: dict[int, float]) -> None:
    rates = table_of(points)
    check_rates(rates)
    table = RateTable(rates)
    for updates, rate in points.items():
        assert table(updates) == pytest.approx(rate)
    assert table(max(points) + 1000) == table(max(points))
    assert table(min(points) - 1) == table(min(points))


@given(st.integers(1, 1000), RATES, RATES, st.data())
def test_between_two_numbers_the_rate_is_linear(width: int, first: float, last: float, data: st.DataObject) -> None:
    rate = RateTable(table_of({10: first, 10 + width: last}))
    at = data.draw(st.integers(0, width))
    assert rate(10 + at) == pytest.approx(first + (last - first) * at / width, abs=1e-6)


@pytest.mark.parametrize(
    ("versions", "rates", "message"),
    [
        ([], [], "0 numbers and 0 rates"),
        ([0, 1], [0.1], "2 numbers and 1 rates"),
        ([1, 1], [0.1, 0.1], "ascending numbers"),
        ([2, 1], [0.1, 0.1], "ascending numbers"),
        ([0], [-0.1], "at least 0"),
        ([0], [math.nan], "must be finite"),
        ([0], [math.inf], "must be finite"),
    ],
)
def test_an_invalid_table_is_refused(versions: list[int], rates: list[float], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        check_rates(pb.LearningRates(updates=versions, rates=rates))
