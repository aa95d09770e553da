"""Access control: a token, and TLS with a certificate authority of the cluster's own, for clients and servers.

A process has one identity, which it takes from its settings once, before it opens a channel or listens.
The token comes from a file or from DOWNPOUR_TOKEN, never from a flag, which other users could read; it is not logged.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field

from downpour.protos.access.job_tokens import find_token, is_loopback
from downpour.protos.access.tls_check import SERVER_NAME as SERVER_NAME
from downpour.protos.access.tls_check import invalid_authority
from downpour.protos.errors import AccessDenied
from downpour.protos.settings import Settings
from downpour.protos.status_codes import status_of

TOKEN_VARIABLE = "DOWNPOUR_TOKEN"
TOKEN_KEY = "authorization"
SCHEME = "Bearer "
AUTHORITY, CERTIFICATE, KEY, TOKEN = "ca.pem", "server.pem", "server.key", "token"
SHORTEST_TOKEN = 16

Metadata = tuple[tuple[str, str], ...]


class NotSecured(ValueError):
    """The settings would give access without authentication, or a file of credentials cannot be used."""


class AccessSettings(Settings):
    """The credentials that a process presents, and those that it demands."""

    tls_dir: str | None = Field(
        None,
        description=f"Folder that `downpour certs` has created. Enables TLS; its file {TOKEN!r} is used if no other "
        "token is given.",
    )
    token_file: str | None = Field(
        None, description=f"File with the token that every caller must present (or set {TOKEN_VARIABLE})."
    )

    def take_effect(self) -> None:
        """Make the settings' identity that of this process."""
        super().take_effect()
        adopt(self)


@dataclass(frozen=True)
class Identity:
    """The credentials that a process presents and demands; its representation does not contain the secrets.

    Attributes:
        token: The token that every call must carry; empty if there is none.
        authority: The certificate of the authority that servers are checked against; None without TLS.
        certificate: The certificate of this server; None for a process without a key.
        key: The private key of this server.
    """

    token: str = field(default="", repr=False)
    authority: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @property
    def metadata(self) -> Metadata:
        """The metadata with which a call presents the token."""
        return ((TOKEN_KEY, SCHEME + self.token),) if self.token else ()


_adopted: Identity | None = None


def adopt(settings: AccessSettings) -> Identity:
    """Make the settings' identity that of this process.

    Raises:
        NotSecured: A file cannot be read, or the token is too short.
    """
    global _adopted
    _adopted = identity_of(settings)
    return _adopted


def adopted() -> Identity:
    """Return the identity of this process; by default, that of its environment."""
    return _adopted or adopt(AccessSettings())


def identity_of(settings: AccessSettings) -> Identity:
    """Read the files that the settings name.

    Raises:
        NotSecured: A file cannot be read, or the token is too short.
    """
    folder = Path(settings.tls_dir) if settings.tls_dir else None
    if folder is None:
        return Identity(_token(settings, None))
    authority = _read(folder / AUTHORITY, "--tls-dir")
    if problem := invalid_authority(folder / AUTHORITY):
        raise NotSecured(problem)
    has_key = (folder / KEY).exists()
    certificate = _read(folder / CERTIFICATE, "--tls-dir") if has_key else None
    key = _read(folder / KEY, "--tls-dir") if has_key else None
    return Identity(_token(settings, folder / TOKEN), authority, certificate, key)


def check_secured(bind: str, identity: Identity, insecure: bool) -> None:
    """Raise NotSecured if other machines could use a server at `HOST:PORT` without credentials."""
    if insecure or is_loopback(bind) or (identity.token and identity.certificate):
        return
    tls = f"TLS ({CERTIFICATE} and {KEY} in its --tls-dir)" if identity.authority else "TLS"
    lacks = [name for name, has in ((tls, identity.certificate), ("a token", identity.token)) if not has]
    raise NotSecured(
        f"a server that listens beyond loopback, at {bind}, must have TLS and a token; it lacks {' and '.join(lacks)}. "
        "Create both with `downpour certs DIR` and give every process --tls-dir DIR, or use --insecure in a network "
        "that you trust."
    )


def presented_to(address: str) -> Identity:
    """Return the identity that this process presents to the server at `HOST:PORT`.

    A process without a token presents the one that a launcher of the same user has published for the server.
    """
    identity = adopted()
    return identity if identity.token else replace(identity, token=find_token(address))


def server_credentials(identity: Identity) -> grpc.ServerCredentials | None:
    """Return the credentials of a server's listener; None without TLS.

    Raises:
        NotSecured: The authority's certificate exists, but this server's does not.
    """
    if identity.authority is None:
        return None
    if identity.certificate is None or identity.key is None:
        raise NotSecured(f"a server's --tls-dir must hold {CERTIFICATE} and {KEY}; there is no key in it.")
    return grpc.ssl_server_credentials([(identity.key, identity.certificate)])


def channel_credentials(identity: Identity) -> grpc.ChannelCredentials | None:
    """Return the credentials of a client's channel, the token included; None without TLS."""
    if identity.authority is None:
        return None
    tls = grpc.ssl_channel_credentials(identity.authority)
    if not identity.token:
        return tls
    return grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(identity.token))


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses every call without the token, streams included, before any of its payload is read."""

    def __init__(self, token: str) -> None:
        """Create an interceptor that demands `token`."""
        self._wanted = (SCHEME + token).encode()
        # Of any kind of call: a handler of streams begins before a message has been received.
        self._refusal = grpc.stream_stream_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Continue with the call, or refuse it."""
        shown = b""
        for key, value in handler_call_details.invocation_metadata or ():
            if key == TOKEN_KEY:
                shown = value if isinstance(value, bytes) else value.encode()
        if hmac.compare_digest(shown, self._wanted):
            return await continuation(handler_call_details)
        return self._refusal


async def _refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    error = AccessDenied(
        f"a call must carry the server's token; it carried none, or another. Give --token-file or {TOKEN_VARIABLE}, or "
        "call as the user who started the job."
    )
    await context.abort(*status_of(error))


class _Details(grpc.ClientCallDetails):
    """The details of a call with more metadata."""

    def __init__(self, details: Any, more: Metadata) -> None:
        for name in ("method", "timeout", "credentials", "wait_for_ready", "compression"):
            setattr(self, name, getattr(details, name, None))
        self.metadata = (*(details.metadata or ()), *more)


class ShowToken(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the token to every call of a channel without TLS."""

    def __init__(self, metadata: Metadata) -> None:
        """Create an interceptor that adds `metadata`."""
        self._metadata = metadata

    def _intercept(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(_Details(client_call_details, self._metadata), request)

    intercept_unary_unary = intercept_unary_stream = _intercept
    intercept_stream_unary = intercept_stream_stream = _intercept  # type: ignore[assignment]


def _token(settings: AccessSettings, beside: Path | None) -> str:
    if settings.token_file:
        token, origin = _read(Path(settings.token_file), "--token-file").decode(errors="replace"), "--token-file"
    elif os.environ.get(TOKEN_VARIABLE):
        token, origin = os.environ[TOKEN_VARIABLE], TOKEN_VARIABLE
    elif beside is not None and beside.exists():
        token, origin = _read(beside, "--tls-dir").decode(errors="replace"), str(beside)
    else:
        return ""
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise NotSecured(
            f"a token must be at least {SHORTEST_TOKEN} printable ASCII characters; that of {origin} is not."
        )
    return token


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotSecured(f"{flag} must lead to files that can be read; {path}: {error.strerror}.") from error
