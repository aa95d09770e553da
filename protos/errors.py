"""Errors that cross the wire, and the one table that maps them to gRPC status codes and back.

DownpourError
 +-- InvalidRequest     the request is malformed
 +-- UnknownWorker      the session was never registered, has expired or is fenced
 +-- Fenced             the request is meant for an earlier generation of the shard
 +-- LayoutMismatch     the model or the data differ from the job's
 +-- FutureVersion      the base version does not exist yet
 +-- JobConflict        the server has another job, or the job has ended
 +-- TooLarge           the request exceeds a limit
 +-- Unreachable        no process answers at the address
 +-- DeadlineExceeded   there was no answer in time
 +-- AccessDenied       the token is missing or wrong
 +-- Unsupported        the version of the protocol differs, or the system lacks a feature
 +-- ServerFault        the server has a defect
"""

from __future__ import annotations

import re

import grpc


class DownpourError(Exception):
    """The base class of all errors that are reported to a peer."""


class InvalidRequest(DownpourError):
    """A message is malformed: it is truncated, has the wrong length, or a field is out of range."""


class UnknownWorker(DownpourError):
    """The session does not exist: never registered, expired, or taken over by a newer incarnation."""


class Fenced(DownpourError):
    """The message was meant for an earlier generation of this shard."""


class LayoutMismatch(DownpourError):
    """The worker's model or data differ from what the job was initialised with."""


class FutureVersion(DownpourError):
    """A push claims to come from a version that the shard has not reached."""


class JobConflict(DownpourError):
    """The server already has a job, and it is another one, or it has ended."""


class TooLarge(DownpourError):
    """A message or a model is beyond a limit."""


class Unreachable(DownpourError):
    """No server answered at the address."""


class DeadlineExceeded(DownpourError):
    """An answer did not arrive in time."""


class AccessDenied(DownpourError):
    """The caller did not present the token that the server demands."""


class Unsupported(DownpourError):
    """The peer speaks another version of the protocol."""


class ServerFault(DownpourError):
    """The server failed with an unforeseen error."""


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
        return Unreachable(f"no parameter server answers at {address}: {_in_words(details)}{_hint(details)}")
    if kind is DeadlineExceeded:
        reason = "" if details in ("", CALLERS_DEADLINE) else f": {details}"
        return DeadlineExceeded(f"no answer from {address} in time{reason}")
    if HTTP_STATUS in details:
        return Unsupported(f"what answers at {address} is no parameter server")
    return kind(details or f"{address} answered {code.name}")


def is_unanswered(failure: grpc.RpcError) -> bool:
    """Return whether no server has answered a call: there is none, or it is suspended.

    A server that answers too late gives its reason; gRPC gives this text at the caller's own deadline.
    """
    late = failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED and failure.details() == CALLERS_DEADLINE
    return late or isinstance(error_of(failure, ""), Unreachable)


# Messages of gRPC about connections, and their equivalents in words; the first that is found counts.
_CAUSES = {
    "Failed parsing HTTP/2": "what answers is no gRPC server",
    "http1.x server": "what answers is no gRPC server",
    "handshake failed": "the TLS handshake failed",
    "Connection refused": "the connection was refused",
    "Connection reset": "the connection was reset",
    "Broken pipe": "the connection was closed",
    "Socket closed": "the connection was closed",
    "No route to host": "there is no route to the host",
    "Network is unreachable": "the network is unreachable",
    "DNS resolution failed": "the name cannot be resolved",
    "Domain name not found": "the name cannot be resolved",
    "timed out": "the connection timed out",
    "Timeout": "the connection timed out",
}


def _in_words(details: str) -> str:
    """Return why there is no connection, without the internal names of gRPC."""
    known = next((words for text, words in _CAUSES.items() if text in details), None)
    return known or re.sub(r"^failed to connect to all addresses; last error: \w+: (\w+:\S+: )?", "", details)


def _hint(details: str) -> str:
    """Return advice if gRPC's message does not state that the two sides differ in TLS."""
    if "handshake failed" in details:
        return ". The server must have TLS, with a certificate of the authority in this process's --tls-dir."
    if "failed to connect" in details and "Socket closed" in details:
        return ". A server with TLS closes a connection without: give --tls-dir."
    return ""
