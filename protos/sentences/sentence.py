"""A sentence for users: its English text, and the code and the values from which another language makes its own.

    job.notes.append(sentence("checkpoint_requested", number=3, version=1200))

A `Sentence` is a `str`, so that whoever needs no other language uses it as text. On the wire it is a `pb.Sentence` (see
`protos/errors.py`), and in JSON `{"code": …, "values": …, "text": …}`; a text without a code, such as the message of an
exception, is itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from downpour.protos.sentences.notes import NOTES
from downpour.protos.sentences.refusals import REFUSALS
from downpour.protos.sentences.settings import SETTINGS

SENTENCES = {**NOTES, **REFUSALS, **SETTINGS}
Value = str | int


class Sentence(str):
    """An English sentence with its code and its values, which may be sentences themselves.

    Attributes:
        code: The key of the sentence in `SENTENCES`.
        values: What the sentence contains, by name: texts, sentences, and whole numbers.
    """

    code: str
    values: dict[str, Value]

    def __new__(cls, text: str, code: str, values: Mapping[str, Value]) -> Self:
        """Create a sentence from its complete text."""
        made = super().__new__(cls, text)
        made.code, made.values = code, dict(values)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how the sentence is copied: with its code."""
        return Sentence, (str(self), self.code, self.values)


def sentence(code: str, **values: Value) -> Sentence:
    """Return the sentence of a code; whole numbers are written as `1,200` in its text.

    Raises:
        KeyError: There is no such code, or the sentence needs another value.
    """
    shown = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
    return Sentence(SENTENCES[code].format_map(shown), code, values)


OPERATOR_REQUESTED, USER_REQUESTED = sentence("operator_requested"), sentence("user_requested")


def joined(parts: Iterable[str], code: str) -> str:
    """Return texts as one, which `code` joins two at a time as `first` and `rest`."""
    first, *rest = parts
    return sentence(code, first=first, rest=joined(rest, code)) if rest else first


def to_json(text: Value) -> Any:
    """Return a sentence as `{code, values, text}`, and a text without a code or a number as it is."""
    if not isinstance(text, Sentence):
        return text
    values = {name: to_json(value) for name, value in text.values.items()}
    return {"code": text.code, "values": values, "text": str(text)}


def counted(count: int, noun: str, several: str = "") -> str:
    """Return a number with its noun, such as `1 worker` or `1,200 updates`; `several` is an irregular plural."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
