"""Anonymous shared memory (`memfd_create(2)`): creation, sealing, checks and mapping.

The memory has no name and no file; the kernel frees it with its last holder, however that process ends. Linux only.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import sys

from downpour.protos.errors import InvalidRequest, TooLarge


def available() -> bool:
    """Return whether this system supports the shared-memory transport, by trying it."""
    if sys.platform != "linux" or not hasattr(socket, "recv_fds"):
        return False
    try:
        for fd in (tried := create("downpour-trial", 0)), read_only(tried):
            os.close(fd)
    except OSError:
        return False
    return True


def create(name: str, size_bytes: int, may_grow: bool = False) -> int:
    """Create memory that can never shrink, so that no reader of it is killed by SIGBUS; return its descriptor.

    Args:
        name: The name that `/proc` shows.
        size_bytes: The size; the kernel allocates a page when it is first used.
        may_grow: Whether the memory may be made larger later.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL | (0 if may_grow else fcntl.F_SEAL_GROW)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_only(fd: int) -> int:
    """Open another descriptor of the same memory that permits neither writing nor a writable mapping."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def map_readable(fd: int, size_bytes: int, limit_bytes: int) -> mmap.mmap:
    """Map memory that a peer has sent, for reading.

    Args:
        fd: The descriptor; the caller closes it.
        size_bytes: The size that the peer announced.
        limit_bytes: The largest size that may be announced.

    Raises:
        InvalidRequest: The descriptor is not sealed memory of at least that size.
        TooLarge: The announced size is above the limit.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if not seals & fcntl.F_SEAL_SHRINK:
        raise InvalidRequest(
            "shared memory must be a memfd that is sealed against shrinking; received another file. "
            "Use --transport grpc if this system cannot seal."
        )
    if size_bytes > limit_bytes:
        raise TooLarge(
            f"a shared region must have at most {limit_bytes:,} bytes here; received one of {size_bytes:,}. "
            "Check that both sides have the same model and shards."
        )
    if not 0 < size_bytes <= os.fstat(fd).st_size:
        raise InvalidRequest(
            f"a shared region must be as large as announced, {size_bytes:,} bytes; received {os.fstat(fd).st_size:,}."
        )
    return mmap.mmap(fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
