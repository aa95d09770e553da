"""`downpour certs DIR`: creates the TLS certificates and the access token of a cluster.

A certificate authority signs one certificate for all servers. Its private key is never written, so it cannot be stolen;
a new run creates a new authority. Copy DIR to the machines of the servers; the machines of the workers need only ca.pem
and token.
"""

from __future__ import annotations

import os
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from downpour.protos.credentials import AUTHORITY, CERTIFICATE, KEY, SERVER_NAME, TOKEN
from downpour.protos.logs import reason_of
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import Settings
from downpour.protos.system.command import install_command

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

TOKEN_BYTES = 32
EXIT_USAGE = 2
SHOWN = 4  # files of a folder that is refused


class CertsSettings(Settings):
    """Create TLS certificates and an access token for a cluster."""

    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str = Field(min_length=1, description="Folder to write to; must be new or empty.")
    days: int = Field(365, ge=1, le=3650, description="Days for which the certificates are valid.")


def certs(settings: CertsSettings) -> int:
    """Write the files and return the exit status."""
    folder = Path(settings.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
        if there:
            more = f" and {len(there) - SHOWN} others" if len(there) > SHOWN else ""
            found = ", ".join(there[:SHOWN]) + more
            return _fail(f"FOLDER must be new or empty, as it receives keys; {folder} has {found}. Choose another.")
        for name, content in _files(settings.days).items():
            _write(folder / name, content, 0o600 if name in (KEY, TOKEN) else 0o644)
    except ImportError as error:
        return _fail(f"the package cryptography must be installed ({error}). Run: {install_command('certs')}")
    except OSError as error:
        return _fail(f"FOLDER must be a folder that can be written; {reason_of(error)}")
    print(f"{folder}: {AUTHORITY}, {CERTIFICATE}, {KEY}, {TOKEN}; valid for {counted(settings.days, 'day')}")
    print(f"start servers and workers with --tls-dir {folder} (workers need only {AUTHORITY} and {TOKEN})")
    return 0


def _files(days: int) -> dict[str, bytes]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("downpour authority", "downpour authority", authority, authority, days)
    server = _certificate(SERVER_NAME, "downpour authority", key, authority, days)
    return {
        AUTHORITY: root.public_bytes(Encoding.PEM),
        CERTIFICATE: server.public_bytes(Encoding.PEM),
        KEY: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        TOKEN: (secrets.token_urlsafe(TOKEN_BYTES) + "\n").encode(),
    }


def _certificate(
    subject: str, issuer: str, key: EllipticCurvePrivateKey, signer: EllipticCurvePrivateKey, days: int
) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now, is_authority = datetime.now(UTC), subject == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
    )
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.DNSName(subject), x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _fail(problem: str) -> int:
    print(f"downpour certs: {problem}", file=sys.stderr)
    return EXIT_USAGE
