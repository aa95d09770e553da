"""Settings of the form `name` or `name:value,value`, which name a row of a registry and its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import AfterValidator

from downpour.protos.sentences.choices import not_one_of
from downpour.protos.sentences.sentence import sentence


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value after the colon.

    Attributes:
        name: The name in help texts.
        must: The condition that the value must satisfy, in words.
        read: Parses the value; raises ValueError if it is invalid.
        default: The text of the default value; None if the value is required.
    """

    name: str
    must: str
    read: Callable[[str], Any]
    default: str | None = None


class RegistryRow(Protocol):
    """The interface that the rows of all registries share."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The names of the parameters, in the order of their declaration."""


R = TypeVar("R", bound=RegistryRow)


def whole_number(name: str, least: int, default: str | None = None) -> Parameter:
    """Return a parameter that is a whole number of at least `least`."""

    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    return Parameter(name, sentence("whole_number", least=least), read, default)


def positive(name: str, default: str | None = None, or_zero: bool = False) -> Parameter:
    """Return a parameter that is a finite number above 0, or also 0 if `or_zero`."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
            raise ValueError
        return value

    return Parameter(name, sentence("number_or_zero" if or_zero else "number_above_zero"), read, default)


def form(name: str, row: RegistryRow) -> str:
    """Return the form of a row, such as `easgd:RHO,K`. Optional parameters are in brackets."""
    text = ""
    for parameter in reversed(row.parameters):
        text = f"{parameter.name},{text}" if text and parameter.default is None else (
            f"{parameter.name}{text}" if parameter.default is None else f"[,{parameter.name}{text}]"
        )  # fmt: skip
    if not text:
        return name
    return f"{name}[:{text[2:]}" if text.startswith("[,") else f"{name}:{text.replace(',[', '[')}"


def forms(rows: Mapping[str, RegistryRow]) -> str:
    """Return the forms of all rows."""
    return ", ".join(form(name, row) for name, row in rows.items())


def read(value: str, rows: Mapping[str, R]) -> tuple[R, list[Any]]:
    """Return the row that a setting names, and the values of its parameters.

    Raises:
        ValueError: There is no such row, or a parameter is invalid.
    """
    name, colon, rest = value.partition(":")
    if name not in rows:
        raise ValueError(not_one_of(name, rows, forms(rows)))
    row, given = rows[name], rest.split(",") if colon else []
    return row, _values(form(name, row), row.parameters, given)


def _values(written: str, parameters: Sequence[Parameter], given: Sequence[str]) -> list[Any]:
    needed = sum(parameter.default is None for parameter in parameters)
    if not needed <= len(given) <= len(parameters):
        raise ValueError(sentence("written", form=written))
    texts = [*given, *(parameter.default or "" for parameter in parameters[len(given) :])]
    values = []
    for parameter, text in zip(parameters, texts, strict=True):
        try:
            values.append(parameter.read(text.strip()))
        except ValueError:
            raise ValueError(sentence("written_with", form=written, name=parameter.name, must=parameter.must)) from None
    return values


def spec_of(rows: Mapping[str, RegistryRow]) -> AfterValidator:
    """Return a validator of settings that name a row of a registry."""

    def check(value: str) -> str:
        read(value, rows)
        return value

    return AfterValidator(check)
