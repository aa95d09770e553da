"""`python -m downpour.deploy.doctor.sharing_child NAME HEX`: the child of the trial of shared memory."""

from __future__ import annotations

import mmap
import socket
import sys

from downpour.deploy.doctor.facts import CHANGED, TRIAL_BYTES, TRIAL_TIMEOUT_S
from downpour.protos.shared_memory import doorbell_socket, memfd


def share(name: str, content: bytes) -> None:
    """Send memory with a content to the socket of that name, and change it when the other side has read it."""
    fd = memfd.create("downpour-doctor", TRIAL_BYTES)
    with mmap.mmap(fd, TRIAL_BYTES) as memory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        memory[: len(content)] = content
        line.settimeout(TRIAL_TIMEOUT_S)
        doorbell_socket.connect(line, name)
        socket.send_fds(line, [b"memory"], [fd])
        line.recv(16)
        memory[: len(CHANGED)] = CHANGED
        line.send(b"done")


if __name__ == "__main__":
    share(sys.argv[1], bytes.fromhex(sys.argv[2]))
