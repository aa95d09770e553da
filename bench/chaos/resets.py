"""Resets the connections of another process, as a network failure would.

`pidfd_getfd(2)` duplicates each of its sockets (Linux 5.6 or later, and the permission to trace the process).
`connect(2)` with AF_UNSPEC resets a TCP connection; the Unix socket of a shared-memory worker is shut down.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

import psutil

_PIDFD_GETFD = 438
_UNSPECIFIED = struct.pack("H14x", socket.AF_UNSPEC)
_libc = ctypes.CDLL(None, use_errno=True)


def reset_connections(process: psutil.Process) -> int:
    """Reset the connections of a process to other processes and return their number.

    Raises:
        OSError: The system does not permit it.
        psutil.Error: The process has ended.
    """
    broken = 0
    descriptors = [connection.fd for connection in process.net_connections("all") if connection.fd >= 0]
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    try:
        for descriptor in descriptors:
            copy = _libc.syscall(_PIDFD_GETFD, handle, descriptor, 0)
            if copy >= 0:
                with socket.socket(fileno=copy) as connection:
                    broken += _break(connection)
            elif ctypes.get_errno() not in (errno.EBADF, errno.ESRCH):  # closed in the meantime
                raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
    return broken


def _break(connection: socket.socket) -> bool:
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        reset: int = _libc.connect(connection.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
        return reset == 0
    if connection.type != socket.SOCK_SEQPACKET:
        return False  # a pair of sockets within the process
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the peer has just closed it
        return False
    return True
