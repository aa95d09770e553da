"""Sentences: the registry is complete and used, and a sentence survives the wire, JSON and copies."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from typing import Any

import grpc
import pytest

from downpour.protos.errors import InvalidRequest, from_proto, to_proto
from downpour.protos.sentences.notes import NOTES
from downpour.protos.sentences.refusals import REFUSALS
from downpour.protos.sentences.sentence import SENTENCES, Sentence, joined, sentence, to_json
from downpour.protos.sentences.settings import SETTINGS
from downpour.protos.status_codes import metadata_of, sentence_of
from tests.support.paths import ROOT
from tests.support.sources import sources


class Failure(grpc.RpcError):
    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata

    def trailing_metadata(self) -> Any:
        return self.metadata


def example(code: str) -> Sentence:
    return sentence(code, **{name: f"<{name}>" for name in re.findall(r"\{(\w+)\}", SENTENCES[code])})


def test_no_two_sentences_have_the_same_code_or_the_same_text() -> None:
    assert len(SENTENCES) == len(NOTES) + len(REFUSALS) + len(SETTINGS)
    same = {"several_settings", "other_choice"}  # both only join
    texts = [text for code, text in SENTENCES.items() if code not in same]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_survives_the_wire_json_and_copies(code: str) -> None:
    made = sentence("change_not_made", reason=joined([example(code), "free text", example(code)], "several_problems"))
    for copied in (from_proto(to_proto(made)), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert copied == made and isinstance(copied, Sentence) and to_json(copied) == to_json(made)
    error = InvalidRequest(made)
    assert str(error) == str(made)
    metadata = metadata_of(error)
    assert to_json(sentence_of(Failure(metadata))) == (to_json(made) if metadata else "")


def test_a_number_keeps_its_value_and_is_written_with_separators() -> None:
    made = sentence("made_checkpoint", number="3", version=1234567)
    assert made == "checkpoint 3 has version 1,234,567"
    assert to_json(from_proto(to_proto(made)))["values"] == {"number": "3", "version": 1234567}


def test_a_text_without_a_code_is_itself() -> None:
    assert from_proto(to_proto("any text")) == "any text" == to_json("any text")
    assert metadata_of(InvalidRequest("any text")) == metadata_of(InvalidRequest()) == ()
    for broken in ((), None, (("downpour-sentence-bin", b"\xff\xff"),), (("another", b""),)):
        assert sentence_of(Failure(broken)) == ""


def test_a_sentence_that_lacks_a_value_or_a_code_is_an_error() -> None:
    for code, values in (("made_checkpoint", {"number": "3"}), ("no such code", {})):
        with pytest.raises(KeyError):
            sentence(code, **values)


def test_every_sentence_is_used() -> None:
    registry = {ROOT / "protos" / "sentences" / f"{name}.py" for name in ("notes", "refusals", "settings")}
    text = "".join(
        path.read_text() for folder in ("ps", "deploy", "protos") for path in sources(folder) if path not in registry
    )
    families = ("phase_", "name_", "payload_")  # followed by a value
    unused = {code for code in SENTENCES if not code.startswith(families) and f'"{code}"' not in text}
    assert unused == set()


def test_notes_and_refusals_of_operators_are_sentences() -> None:
    """A text that is written where it is used could be shown in English only."""
    plain = []
    for path in sources("ps"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            what = ast.unparse(node.func)
            operator = path.name in ("operator_requests.py", "operator_calls.py", "config_change.py")
            if what.endswith("notes.append") or what.endswith(".fail") or operator and what == "InvalidRequest":
                if isinstance(node.args[0], ast.Constant | ast.JoinedStr):
                    plain.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert plain == []
