"""Settings of the form `name` or `name:value,value`: a registry's row and what it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import AfterValidator

from downpour.protos.settings import did_you_mean


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value after the colon.

    Attributes:
        name: As help shows it.
        must: What has to hold, in words.
        read: From text to the value; raises ValueError if it does not hold.
        default: The text that stands for a value which is left out; None if it has to be given.
    """

    name: str
    must: str
    read: Callable[[str], Any]
    default: str | None = None


class RegistryRow(Protocol):
    """What a registry's row has in common with all others."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes, in order."""


R = TypeVar("R", bound=RegistryRow)


def whole_number(name: str, least: int, default: str | None = None) -> Parameter:
    """A whole number that is at least `least`."""

    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    return Parameter(name, f"a whole number of at least {least}", read, default)


def positive(name: str, default: str | None = None, or_zero: bool = False) -> Parameter:
    """A finite number above 0, or 0 itself where that is allowed."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
            raise ValueError
        return value

    return Parameter(name, "a finite number of at least 0" if or_zero else "a finite number above 0", read, default)


def form(name: str, row: RegistryRow) -> str:
    """How a row is written, such as `easgd:RHO,K`; what may be left out stands in brackets."""
    text = ""
    for parameter in reversed(row.parameters):
        text = f"{parameter.name},{text}" if text and parameter.default is None else (
            f"{parameter.name}{text}" if parameter.default is None else f"[,{parameter.name}{text}]"
        )  # fmt: skip
    if not text:
        return name
    return f"{name}[:{text[2:]}" if text.startswith("[,") else f"{name}:{text.replace(',[', '[')}"


def forms(rows: Mapping[str, RegistryRow]) -> str:
    """How all rows are written."""
    return ", ".join(form(name, row) for name, row in rows.items())


def read(value: str, rows: Mapping[str, R]) -> tuple[R, list[Any]]:
    """The row that a value names and the values it brings.

    Raises:
        ValueError: There is no such row, or what it brings does not fit.
    """
    name, colon, rest = value.partition(":")
    if name not in rows:
        raise ValueError(f"must be one of {forms(rows)}{did_you_mean(name, rows)}")
    row, given = rows[name], rest.split(",") if colon else []
    return row, _values(form(name, row), row.parameters, given)


def _values(written: str, parameters: Sequence[Parameter], given: Sequence[str]) -> list[Any]:
    needed = sum(parameter.default is None for parameter in parameters)
    if not needed <= len(given) <= len(parameters):
        raise ValueError(f"must be written {written}")
    texts = [*given, *(parameter.default or "" for parameter in parameters[len(given) :])]
    values = []
    for parameter, text in zip(parameters, texts, strict=True):
        try:
            values.append(parameter.read(text.strip()))
        except ValueError:
            raise ValueError(f"must be written {written} with {parameter.name} {parameter.must}") from None
    return values


def spec_of(rows: Mapping[str, RegistryRow]) -> AfterValidator:
    """A validator for settings that name a row of a registry and bring its values."""

    def check(value: str) -> str:
        read(value, rows)
        return value

    return AfterValidator(check)
