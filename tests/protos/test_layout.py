"""Where tensors live in the flat vector, and the cut into shards."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.protos.layout import STATE, TRAINED, Layout
from tests.support.pure.messages import messages

SHAPES = st.lists(st.lists(st.integers(1, 5), max_size=3).map(tuple), min_size=1, max_size=5)


def layout_of(trained: list[tuple[int, ...]], state: list[tuple[int, ...]]) -> Layout:
    named = [(f"w{i}", shape, TRAINED) for i, shape in enumerate(trained)]
    return Layout.of(named + [(f"s{i}", shape, STATE) for i, shape in enumerate(state)])


@given(SHAPES, SHAPES | st.just([]), st.integers(1, 40))
def test_shards_cover_the_trained_part_once_and_are_even(
    trained: list[tuple[int, ...]], state: list[tuple[int, ...]], shards: int
) -> None:
    layout = layout_of(trained, state)
    if shards > layout.trained:
        with pytest.raises(InvalidRequest, match=f"{layout.trained}; received {shards}"):
            layout.cut(shards)
        return
    parts = layout.cut(shards)
    assert [parts[0].start, *(part.stop for part in parts)] == [*(part.start for part in parts), layout.trained]
    sizes = [part.trained for part in parts]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
    assert [part.state for part in parts] == [layout.state] + [0] * (shards - 1)
    assert sum(part.size for part in parts) == layout.size


@given(SHAPES, SHAPES | st.just([]))
def test_views_are_the_tensors_in_order(trained: list[tuple[int, ...]], state: list[tuple[int, ...]]) -> None:
    layout = layout_of(trained, state)
    flat = np.arange(layout.size, dtype=np.float32)
    views = layout.views(flat)
    assert [views[tensor.name].shape for tensor in layout.tensors] == [tensor.shape for tensor in layout.tensors]
    np.testing.assert_array_equal(np.concatenate([view.ravel() for view in views.values()]), flat)
    assert all(np.shares_memory(view, flat) for view in views.values())


@given(SHAPES, SHAPES | st.just([]))
def test_a_layout_survives_the_wire(trained: list[tuple[int, ...]], state: list[tuple[int, ...]]) -> None:
    layout = layout_of(trained, state)
    sent = pb.Layout.FromString(layout.to_proto().SerializeToString())
    assert Layout.from_proto(sent) == layout and layout.difference(layout) is None


@given(messages(pb.Layout.DESCRIPTOR, ["w", 1, 2**63]))
def test_any_message_is_a_layout_or_is_refused(message: pb.Layout) -> None:
    try:
        layout = Layout.from_proto(message)
        parts = layout.cut(2)
    except InvalidRequest:
        return
    assert parts[-1].stop == layout.trained and layout.size >= 2


def test_a_layout_that_would_take_long_to_look_at_is_refused_at_once() -> None:
    deep = pb.Layout(tensors=[pb.Tensor(name="w", shape=[2**63] * 400_000)])
    with pytest.raises(InvalidRequest, match="at most 32 dimensions; received 400000 of 'w'"):
        Layout.from_proto(deep)
    names = [pb.Tensor(name=str(each), shape=[1]) for each in range(100_000)]
    with pytest.raises(InvalidRequest, match="'99999' twice"):
        Layout.from_proto(pb.Layout(tensors=[*names, names[-1]]))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ([("a", (2,), TRAINED), ("a", (3,), TRAINED)], "'a' twice"),
        ([], "at least one trained"),
        ([("a", (2,), STATE)], "at least one trained"),
        ([("a", (0,), TRAINED)], "at least one trained"),
        ([("s", (2,), STATE), ("a", (2,), TRAINED)], "trained tensors first"),
        ([("a", (2,), TRAINED), ("s", (2,), 7)], "sections"),
    ],
)
def test_an_invalid_layout_is_refused(tensors: list[tuple[str, tuple[int, ...], int]], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Layout.of(tensors)


@pytest.mark.parametrize("shards", [0, -1])
def test_no_shards_is_refused(shards: int) -> None:
    with pytest.raises(InvalidRequest, match=f"received {shards}"):
        layout_of([(4,)], []).cut(shards)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ([("a", (2, 3), TRAINED), ("b", (4,), TRAINED)], r"tensor 1 must be 'b' \[3\]; received 'b' \[4\]"),
        ([("c", (2, 3), TRAINED), ("b", (4,), TRAINED)], r"tensor 0 must be 'a' \[2, 3\]; received 'c' \[2, 3\]"),
        ([("a", (2, 3), TRAINED), ("b", (3,), STATE)], "received 'b' .*not trained"),
        ([("a", (2, 3), TRAINED)], "has 2 tensors; received 1, which lacks 'b'"),
        ([("a", (2, 3), TRAINED), ("b", (3,), TRAINED), ("d", (), TRAINED)], "received 3, which has in addition 'd'"),
    ],
)
def test_the_first_tensor_that_differs_is_named(other: list[tuple[str, tuple[int, ...], int]], says: str) -> None:
    layout = Layout.of([("a", (2, 3), TRAINED), ("b", (3,), TRAINED)])
    difference = layout.difference(Layout.of(other))
    assert difference is not None
    assert re.search(says, difference), difference
