"""Errors that cross the wire, and the messages of the sentences that they state; `status_codes.py` maps them to gRPC.

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

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.sentences.sentence import Sentence, Value

DEEPEST = 8  # level of a sentence within others that is read


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


def to_proto(text: Value) -> pb.Sentence:
    """Return the message of a sentence, of a text without a code, or of a whole number."""
    if isinstance(text, int):
        return pb.Sentence(number=text)
    if not isinstance(text, Sentence):
        return pb.Sentence(text=text)
    values = {name: to_proto(each) for name, each in text.values.items()}
    return pb.Sentence(text=str(text), code=text.code, values=values)


def from_proto(message: pb.Sentence, depth: int = 0) -> Value:
    """Return what `to_proto` was given; of an unknown version's sentence, its text."""
    if message.HasField("number"):
        return message.number
    if not message.code or depth > DEEPEST:
        return message.text
    values = {name: from_proto(each, depth + 1) for name, each in message.values.items()}
    return Sentence(message.text, message.code, values)


def str_or_sentence(value: Value) -> str:
    """Return a value as text; a sentence keeps its code."""
    return value if isinstance(value, str) else str(value)
