"""What a message says of a value that is none of the choices: which they are, and which may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from downpour.protos.sentences.sentence import Sentence, sentence


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean X?)` if one of the choices is similar to the value, else an empty string."""
    near = difflib.get_close_matches(value, list(choices), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def not_one_of(value: str, choices: Collection[str], shown: str = "") -> Sentence:
    """Return that a value must be one of the choices, which are `shown`, and which of them may have been meant."""
    shown = shown or ", ".join(choices)
    near = difflib.get_close_matches(value, list(choices), n=1)
    return sentence("one_of_near", choices=shown, near=near[0]) if near else sentence("one_of", choices=shown)
