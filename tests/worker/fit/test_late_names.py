"""Names that appear late: a worker asks until its deadline, and the server's name may be made known meanwhile."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError
from downpour.protos.parameter_server_pb2_grpc import CoordinatorServicer, add_CoordinatorServicer_to_server
from downpour.worker.exchange import coordinator_client as control
from downpour.worker.exchange.coordinator_client import CoordinatorClient

NO_SUCH_NAME, ADDRESS, QUESTION_END = 3, 1, 5


class NameServer:
    """A name server on loopback that knows one address once `known` is set; `asked` counts the queries before."""

    def __init__(self) -> None:
        self.known = threading.Event()
        self.asked = threading.Semaphore(0)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, peer = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), peer)
            if not self.known.is_set():
                self.asked.release()

    def _answer(self, question: bytes) -> bytes:
        """RFC 1035, section 4: header, the question again, and one address record if there is one."""
        end = question.index(b"\0", 12) + QUESTION_END
        (wanted,) = struct.unpack("!H", question[end - 4 : end - 2])
        code = 0 if self.known.is_set() else NO_SUCH_NAME
        records = int(self.known.is_set() and wanted == ADDRESS)
        header = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, records, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH4s", ADDRESS, 1, 1, 4, socket.inet_aton("127.0.0.1"))
        return header + question[12:end] + record * records


class _Job(CoordinatorServicer):
    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.JobDescription:
        return pb.JobDescription(job="found")


@pytest.fixture
def server_port() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_CoordinatorServicer_to_server(_Job(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize("again_s", [0.5, 60.0])
def test_a_worker_finds_a_server_whose_name_appears_late(
    server_port: int, again_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RESOLVE_AGAIN_S", again_s)
    with closing(NameServer()) as names, ThreadPoolExecutor(1) as pool:
        with closing(CoordinatorClient(f"dns://127.0.0.1:{names.port}/late.example:{server_port}", 5.0)) as worker:
            job = pool.submit(worker.describe, 60.0)
            for _ in range(4):  # twice, each for both kinds of address
                assert names.asked.acquire(timeout=30)
            names.known.set()
            assert job.result(60).job == "found"


def test_a_name_that_never_appears_is_an_error_with_the_address_at_the_deadline() -> None:
    with closing(NameServer()) as names:
        address = f"dns://127.0.0.1:{names.port}/never.example:7171"
        with closing(CoordinatorClient(address, 5.0)) as worker, pytest.raises(DownpourError, match=address):
            worker.describe(1.0)
