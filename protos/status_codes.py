"""The one table that maps errors to gRPC status codes and back, and the sentence of an error in a call's metadata."""

from __future__ import annotations

import re
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import (
    AccessDenied,
    DeadlineExceeded,
    DownpourError,
    Fenced,
    FutureVersion,
    InvalidRequest,
    JobConflict,
    LayoutMismatch,
    ServerFault,
    TooLarge,
    UnknownWorker,
    Unreachable,
    Unsupported,
    from_proto,
    str_or_sentence,
    to_proto,
)  # fmt: skip
from downpour.protos.sentences.sentence import Sentence, sentence

STATUS_OF: dict[type[DownpourError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownWorker: grpc.StatusCode.NOT_FOUND,
    Fenced: grpc.StatusCode.ABORTED,
    LayoutMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    FutureVersion: grpc.StatusCode.OUT_OF_RANGE,
    JobConflict: grpc.StatusCode.ALREADY_EXISTS,
    TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unreachable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    AccessDenied: grpc.StatusCode.UNAUTHENTICATED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    ServerFault: grpc.StatusCode.INTERNAL,
}
ERROR_OF: dict[grpc.StatusCode, type[DownpourError]] = {code: error for error, code in STATUS_OF.items()}


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the message of `error` on the wire; an unforeseen error is INTERNAL."""
    code = STATUS_OF.get(type(error))  # type: ignore[arg-type]
    if code is None:
        return grpc.StatusCode.INTERNAL, f"the server failed: {type(error).__name__}: {error}"
    return code, str(error)


CALLERS_DEADLINE = "Deadline Exceeded"  # gRPC's text when the caller's deadline has passed
HTTP_STATUS = "Received http2 header with status"  # gRPC's text of an answer that is not of a gRPC server


def error_of(failure: grpc.RpcError, address: str) -> DownpourError:
    """Return the error of a failed call; the message names `address` where the peer sent no text."""
    code, details = failure.code(), failure.details() or ""
    # gRPC says so itself of a message that is written to a connection which has just broken.
    broken = code is grpc.StatusCode.INTERNAL and details == "Internal error from Core"
    kind = Unreachable if broken or code is grpc.StatusCode.CANCELLED else ERROR_OF.get(code, ServerFault)
    if kind is Unreachable:
        hint = _hint(details)
        values = {"address": address, "reason": _in_words(details)} | ({"hint": hint} if hint else {})
        return Unreachable(sentence("unreachable_hint" if hint else "unreachable", **values))
    if kind is DeadlineExceeded:
        if details in ("", CALLERS_DEADLINE):
            return DeadlineExceeded(sentence("no_answer", address=address))
        return DeadlineExceeded(sentence("no_answer_because", address=address, reason=details))
    if HTTP_STATUS in details:
        return Unsupported(sentence("no_parameter_server", address=address))
    return kind(details or f"{address} answered {code.name}")


def is_unanswered(failure: grpc.RpcError) -> bool:
    """Return whether no server has answered a call: there is none, or it is suspended.

    A server that answers too late gives its reason; gRPC gives this text at the caller's own deadline.
    """
    late = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED and failure.details() == CALLERS_DEADLINE
    return late or isinstance(error_of(failure, ""), Unreachable)


# Messages of gRPC about connections, and the sentences that say the same; the first that is found counts.
_CAUSES = {
    "Failed parsing HTTP/2": "cause_not_grpc",
    "http1.x server": "cause_not_grpc",
    "handshake failed": "cause_handshake",
    "Connection refused": "cause_refused",
    "Connection reset": "cause_reset",
    "Broken pipe": "cause_closed",
    "Socket closed": "cause_closed",
    "No route to host": "cause_no_route",
    "Network is unreachable": "cause_no_network",
    "DNS resolution failed": "cause_no_name",
    "Domain name not found": "cause_no_name",
    "timed out": "cause_timed_out",
    "Timeout": "cause_timed_out",
}


def _in_words(details: str) -> str:
    """Return why there is no connection, without the internal names of gRPC."""
    known = next((code for text, code in _CAUSES.items() if text in details), None)
    return (
        sentence(known)
        if known
        else re.sub(r"^failed to connect to all addresses; last error: \w+: (\w+:\S+: )?", "", details)
    )


def _hint(details: str) -> str:
    """Return advice if gRPC's message does not state that the two sides differ in TLS."""
    if "handshake failed" in details:
        return sentence("hint_tls")
    if "failed to connect" in details and "Socket closed" in details:
        return sentence("hint_no_tls")
    return ""


METADATA = "downpour-sentence-bin"  # of a call that failed
MOST_METADATA_BYTES = 4096  # gRPC limits the metadata of a call to 8 KiB


def metadata_of(error: BaseException) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata of a failed call that states the code of its error; none if the error is no sentence."""
    text = error.args[0] if error.args else ""
    if not isinstance(text, Sentence):
        return ()
    content = to_proto(text).SerializeToString()
    return ((METADATA, content),) if len(content) <= MOST_METADATA_BYTES else ()


def sentence_of(failure: grpc.RpcError) -> str:
    """Return the sentence that a failed call states in its metadata; empty if there is none."""
    metadata: Any = failure.trailing_metadata()  # pairs, though grpc's types say otherwise
    for name, content in metadata or ():
        if name == METADATA:
            found = pb.Sentence()
            try:
                found.ParseFromString(content)
            except DecodeError:
                return ""
            return str_or_sentence(from_proto(found))
    return ""
