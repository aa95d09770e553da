"""Hypothesis strategies for messages of the protocol: fields are absent, at their limits, or have meaningful values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_RANGES = {
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 9),
}
MOST = 4  # elements of a repeated field


def messages(kind: Any, meaningful: Sequence[Any] = (), depth: int = 4) -> st.SearchStrategy[Message]:
    """Return a strategy for the messages of one type.

    Args:
        kind: Descriptor of the type.
        meaningful: Values of any type that the receiver knows, such as the number of a session.
        depth: How deeply messages are nested.
    """
    fields = {field.name: st.none() | _values(field, meaningful, depth) for field in kind.fields}
    return st.fixed_dictionaries(fields).map(lambda given: _message(kind, given))


def _message(kind: Any, given: dict[str, Any]) -> Message:
    made = message_factory.GetMessageClass(kind)()
    for name, value in given.items():
        if value is None:
            continue
        field = kind.fields_by_name[name]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                getattr(made, name).update({entry.key: entry.value for entry in value})
        elif field.is_repeated:
            getattr(made, name).extend(value)
        elif field.message_type is not None:
            getattr(made, name).CopyFrom(value)
        else:
            setattr(made, name, value)
    return made


def _values(field: FieldDescriptor, meaningful: Sequence[Any], depth: int) -> st.SearchStrategy[Any]:
    one = _one(field, meaningful, depth)
    return st.lists(one, max_size=MOST) if field.is_repeated else one


def _one(field: FieldDescriptor, meaningful: Sequence[Any], depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, meaningful, depth - 1) if depth else st.nothing()
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=300) | _of(meaningful, bytes)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return (
            st.text(max_size=40)
            | st.sampled_from(["../../etc/passwd", "os:system", "x" * 70_000])
            | _of(meaningful, str)
        )
    low, high = _RANGES[field.cpp_type]
    near = [each for each in meaningful if isinstance(each, int) and low <= each <= high]
    return st.integers(low, min(high, 8)) | st.integers(low, high) | (st.sampled_from(near) if near else st.nothing())


def _of(meaningful: Sequence[Any], kind: type) -> st.SearchStrategy[Any]:
    found = [each for each in meaningful if isinstance(each, kind)]
    return st.sampled_from(found) if found else st.nothing()
