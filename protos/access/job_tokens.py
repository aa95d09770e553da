"""The tokens that launchers draw for their jobs, for the commands that the same user runs on the same machine.

Loopback is open to all users of a machine. A launcher therefore draws a token for each job that has none, hands it to
its child processes through their environment, and publishes it here under the port of each of its servers: a file that
only this user can read, in a folder that only this user can enter. `downpour status HOST:PORT` finds it there.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

TOKEN_BYTES = 32
ATTEMPTS = 3
_published: dict[str, str] = {}  # port -> token, of this process


def draw_token() -> str:
    """Return a new token of `TOKEN_BYTES` random bytes, in printable characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def publish(address: str, token: str) -> None:
    """Let the processes of this user find the token of the server at `HOST:PORT`.

    If the file cannot be written, only this process finds the token.
    """
    port = _port(address)
    _published[port] = token
    for _ in range(ATTEMPTS):
        folder = _folder(create=True)
        if folder is None:
            return
        temporary = folder / f"{port}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(token)
            os.replace(temporary, folder / port)
        except OSError:  # for example, another launcher has removed the folder, which was empty
            continue
        return


def withdraw(address: str) -> None:
    """Remove what `publish` has published for `HOST:PORT`, unless another launcher has replaced it."""
    port = _port(address)
    token = _published.pop(port, None)
    folder = _folder(create=False)
    if token is None or folder is None:
        return
    with suppress(OSError):
        if (folder / port).read_text() == token:
            (folder / port).unlink()
        folder.rmdir()  # unless other jobs run


def find_token(address: str) -> str:
    """Return the token that this user's launcher has published for the server at `HOST:PORT`; empty if there is none.

    A token is found for addresses on loopback only, so that it is never sent to another machine.
    """
    if not is_loopback(address):
        return ""
    port = _port(address)
    if port in _published:
        return _published[port]
    folder = _folder(create=False)
    if folder is None:
        return ""
    try:
        return (folder / port).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_loopback(address: str) -> bool:
    """Return whether `HOST:PORT` can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _folder(create: bool) -> Path | None:
    """Return the folder of the tokens; None unless only this user has access to it."""
    # TMPDIR is not used: it may differ between the launcher and another terminal of the user.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    folder = runtime / "downpour" if runtime.is_dir() else Path(f"/tmp/downpour-tokens-{os.getuid()}")
    with suppress(OSError):
        if create:
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
        if private and found.st_uid == os.getuid():
            return folder
    return None
