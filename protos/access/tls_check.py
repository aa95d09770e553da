"""Checks of TLS that gRPC reports too late, or in words that do not name the cause.

gRPC repeats a handshake that cannot succeed until the deadline of the call, and its message does not say whether the
other side has no TLS, another authority or an expired certificate. Python's `ssl` does.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

SERVER_NAME = "downpour"  # the name in every server's certificate, on any machine
RENEW = "Create new ones with `downpour certs DIR`, and start every process with --tls-dir DIR."
_TIMEOUT_S = 1.0
_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def invalid_authority(path: Path) -> str:
    """Return why no server can be checked against the certificates in a file; empty if one can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return f"{path} must hold a certificate in PEM format; it does not."
    periods = [(_seconds(found, "notBefore"), _seconds(found, "notAfter")) for found in context.get_ca_certs()]
    now_s = datetime.now(UTC).timestamp()
    if not periods or any(begin_s <= now_s <= end_s for begin_s, end_s in periods):
        return ""
    begin_s, end_s = max(periods, key=lambda period: period[1])
    is_over = end_s < now_s
    moment = datetime.fromtimestamp(end_s if is_over else begin_s, UTC)
    state = "expired" if is_over else "is not valid before"
    advice = RENEW if is_over else "Set the clock of this machine."
    return f"the certificate in {path} must be valid now; it {state} {moment:%Y-%m-%d %H:%M} UTC. {advice}"


def difference_in_tls(address: str, authority: bytes | None) -> str:
    """Return why a client and the server at `HOST:PORT` cannot agree on TLS; empty if that is not certain.

    It is not certain where no server listens yet, or where a proxy closes the connection.

    Args:
        address: The address of the server.
        authority: The certificate that the client checks servers against; None for a client without TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    try:
        if authority is not None:
            context.load_verify_locations(cadata=authority.decode())
        with socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT_S) as connection:
            context.wrap_socket(connection, server_hostname=SERVER_NAME).close()
    except ssl.SSLCertVerificationError as error:
        return _of_certificate(address, error)
    except ssl.SSLError as error:
        if authority is None or error.reason not in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return ""
        return f"the server at {address} has no TLS, and this process has: start both with --tls-dir, or neither."
    except (OSError, ValueError):
        return ""
    if authority is None:
        return f"the server at {address} has TLS, and this process has not: give --tls-dir, with its ca.pem and token."
    return ""


def _of_certificate(address: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return f"the certificate of the server at {address} has expired. {RENEW}"
    if error.verify_code == _NOT_YET_VALID:
        return f"the certificate of the server at {address} is not valid yet. Set the clocks of both machines."
    return (
        f"the server at {address} must have a certificate of the authority in this process's --tls-dir; "
        "it has another. Copy ca.pem and token from the server's folder."
    )


def _seconds(certificate: Mapping[str, object], field: str) -> float:
    return ssl.cert_time_to_seconds(str(certificate[field]))
