"""The Unix socket through which workers attach to shared memory: its name and its visibility.

An abstract name needs no folder and disappears with its server, however that ends, but it is visible in one network
namespace only, and thus not in other containers. A path is visible to all processes that see its folder, which
containers of one host may share as a volume. On the wire the two differ in their first character.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # process, user and group
_PREFIX = "downpour-"
_TOKEN_BYTES = 8
PATH_LIMIT_BYTES = 107  # of the kernel, for the path of a Unix socket
FOLDER_LIMIT_BYTES = PATH_LIMIT_BYTES - len(f"/.{_PREFIX}") - 2 * _TOKEN_BYTES


def listen(folder: str | None) -> tuple[socket.socket, str]:
    """Open a listening, non-blocking socket that preserves message boundaries; return it and its name.

    Args:
        folder: The folder of the socket; sockets of servers that were killed are removed from it. None for an abstract
            name.

    Raises:
        OSError: The socket cannot be made on this system, or in that folder.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.setblocking(False)
        name = _PREFIX + secrets.token_hex(_TOKEN_BYTES)
        if folder is None:
            listener.bind("\0" + name)
            listener.listen(1024)
        else:
            name = _listen_in(Path(folder).absolute(), name, listener)
    except BaseException:
        listener.close()
        raise
    return listener, name


def connect(line: socket.socket, name: str) -> None:
    """Connect to the socket of that name.

    Raises:
        OSError: No process listens there, or one of another user: the abstract name of a server that was killed is
            free, and any user may take it.
    """
    line.connect(name if name.startswith("/") else "\0" + name)
    if (user := user_of(line)) != os.geteuid():
        raise PermissionError(errno.EACCES, f"user {user} listens there, and not this worker's user {os.geteuid()}")


def user_of(connection: socket.socket) -> int:
    """Return the number of the user whose process is the peer of a connection."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def close(listener: socket.socket, name: str) -> None:
    """Close the socket, and remove it from its folder if it has one."""
    listener.close()
    if name.startswith("/"):
        with suppress(OSError):
            os.unlink(name)


def _listen_in(folder: Path, name: str, listener: socket.socket) -> str:
    for path in folder.glob(f"{_PREFIX}*"):
        _remove_if_dead(path)
    # It gets its name when it already listens: another server that cleans up would take it for a dead one's.
    hidden, path = folder / f".{name}", folder / name
    listener.bind(str(hidden))
    try:
        os.chmod(hidden, stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(1024)
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return str(path)


def _remove_if_dead(path: Path) -> None:
    """Remove a socket at which no process listens."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
