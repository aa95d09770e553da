"""The table of errors that cross the wire is complete, both ways."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from downpour.protos import errors
from downpour.protos.errors import DownpourError, ServerFault, Unreachable
from downpour.protos.status_codes import ERROR_OF, STATUS_OF, error_of, status_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DownpourError)]


class Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


def test_every_error_has_a_status_of_its_own() -> None:
    assert set(STATUS_OF) == set(KINDS) - {DownpourError}
    assert len(set(STATUS_OF.values())) == len(STATUS_OF)
    assert {ERROR_OF[code]: code for code in ERROR_OF} == STATUS_OF


def test_every_error_is_documented_at_the_top() -> None:
    assert errors.__doc__ is not None
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in errors.__doc__] == []
    assert all(kind.__doc__ for kind in KINDS)


@pytest.mark.parametrize("kind", STATUS_OF)
def test_an_error_survives_its_translation_to_a_status(kind: type[DownpourError]) -> None:
    code, message = status_of(kind("x must be 1; received 2"))
    back = error_of(Failure(code, message), "host:1")
    assert type(back) is kind and "x must be 1; received 2" in str(back)


@pytest.mark.parametrize("code", grpc.StatusCode)
@pytest.mark.parametrize("details", ["", None])
def test_every_status_maps_to_an_error_that_names_the_address(code: grpc.StatusCode, details: Any) -> None:
    error = error_of(Failure(code, details), "host:1")
    assert isinstance(error, DownpourError) and "host:1" in str(error)


def test_a_cut_connection_is_unreachable_with_the_address() -> None:
    error = error_of(Failure(grpc.StatusCode.CANCELLED, "cut"), "host:1")
    assert isinstance(error, Unreachable) and "host:1" in str(error)


def test_an_unexpected_exception_is_an_internal_error_with_its_message() -> None:
    code, message = status_of(KeyError("who"))
    assert ERROR_OF[code] is ServerFault and "KeyError" in message and "who" in message
    assert error_of(Failure(grpc.StatusCode.UNKNOWN, "oh"), "host:1").args == ("oh",)


def test_an_answer_that_does_not_come_is_described_without_the_text_of_grpc() -> None:
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(error_of(Failure(late, "Deadline Exceeded"), "host:5")) == "no answer from host:5 in time"
    assert str(error_of(Failure(late, "the job waits"), "host:5")) == "no answer from host:5 in time: the job waits"
    found = Failure(grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404")
    assert str(error_of(found, "host:5")) == "what answers at host:5 is no parameter server"


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: "
         "Connection refused", "the connection was refused"),
        ("DNS resolution failed for nowhere:5: C-ares status is not ARES_SUCCESS", "the name cannot be resolved"),
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: Ssl handshake failed (TSI_PROTOCOL_"
         "FAILURE): SSL_ERROR_SSL", "the TLS handshake failed. The server must have TLS"),
        ("failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:7656: Failed parsing HTTP/2 "
         "(Expected SETTINGS frame as the first frame, got frame type 79)", "what answers is no gRPC server"),
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:5: Something else", "Something else"),
        ("the server is ending", "the server is ending"),
    ],
)  # fmt: skip
def test_a_lost_connection_is_described_in_words(details: str, words: str) -> None:
    text = str(error_of(Failure(grpc.StatusCode.UNAVAILABLE, details), "host:5"))
    assert text.startswith(f"no parameter server answers at host:5: {words}") and "UNKNOWN" not in text
