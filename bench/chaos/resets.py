"""Resets the connections of another process, as a broken network would: both ends learn of it in the middle of things.

A copy of each of its sockets is taken (`pidfd_getfd(2)`: Linux 5.6, and a process that one may trace). A TCP
connection that is told to connect to nowhere is reset; the Unix socket of a worker in shared memory is shut down.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

import psutil

_PIDFD_GETFD = 438
_NOWHERE = struct.pack("H14x", socket.AF_UNSPEC)
_libc = ctypes.CDLL(None, use_errno=True)


def reset_connections(process: psutil.Process) -> int:
    """Breaks the process's connections to others; returns how many there were.

    Raises:
        OSError: This system does not let us.
        psutil.Error: The process is gone.
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
            elif ctypes.get_errno() not in (errno.EBADF, errno.ESRCH):  # closed meanwhile
                raise OSError(ctypes.get_errno(), f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
    return broken


def _break(connection: socket.socket) -> bool:
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        reset: int = _libc.connect(connection.fileno(), _NOWHERE, len(_NOWHERE))
        return reset == 0
    if connection.type != socket.SOCK_SEQPACKET:
        return False  # a pair of sockets within the process
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has just ended by itself
        return False
    return True
