"""`downpour status ADDRESS --serve HOST:PORT`: the job's status as JSON over HTTP, until the job has ended.

It only reads: who can reach this endpoint can see the job and nothing more. `GET /` answers with the newest
progress; before there is any, with 503.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

from downpour.deploy.config import StatusSettings
from downpour.deploy.view.rendering import as_dict
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.errors import error_of
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub

GONE_S = 60.0  # a server that is away for so long is not being started again
RETRY_S = 0.5
REQUEST_S = 10.0


class Endpoint(ThreadingHTTPServer):
    """Answers with what it was last given.

    Attributes:
        body: JSON; None before there is any.
    """

    daemon_threads = True
    body: bytes | None = None

    def __init__(self, address: str) -> None:
        """Listens at `HOST:PORT`.

        Raises:
            OSError: The address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        super().__init__((host.strip("[]"), int(port)), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: Endpoint

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        """The newest progress."""
        if self.path != "/":
            self.send_error(404)
        elif self.server.body is None:
            self.send_error(503, "the job's server has not answered yet")
        else:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(self.server.body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def serve(settings: StatusSettings, address: str) -> int:
    """Serves at `address` until the job has ended; returns the exit status.

    A server that dies may come back: it is looked for again, for a minute.
    """
    try:
        endpoint = Endpoint(address)
    except OSError as failure:
        print(
            f"downpour status: --serve must be a free address of this machine; received {address} ({failure})",
            file=sys.stderr,
        )
        return 1
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    print(f"the status of {settings.address} is at {endpoint.url}", flush=True)
    try:
        return _follow(settings, endpoint)
    finally:
        endpoint.shutdown()
        endpoint.server_close()


def _follow(settings: StatusSettings, endpoint: Endpoint) -> int:
    last_s, said = time.monotonic(), ""
    with open_channel(settings.address) as channel:
        stub = CoordinatorStub(channel)
        while True:
            try:
                stub.Status(pb.StatusRequest(), timeout=settings.timeout_s)  # the stream has no deadline: this has
                for progress in stub.Watch(pb.WatchRequest(every_s=settings.every_s)):
                    last_s, said = time.monotonic(), ""
                    endpoint.body = json.dumps(as_dict(progress)).encode() + b"\n"
                    if progress.phase in ("ended", "failed"):
                        print(f"the job has {progress.phase}", flush=True)
                        return 0
            except grpc.RpcError as failure:
                error = str(error_of(failure, settings.address))
            else:
                error = f"{settings.address} ended the stream"
            if time.monotonic() > last_s + GONE_S:
                print(f"downpour status: no answer for {GONE_S:.0f} s: {error}", file=sys.stderr)
                return 0 if endpoint.body else 1
            if error != said:
                print(f"downpour status: looking for the server again: {error}", file=sys.stderr, flush=True)
                said = error
            threading.Event().wait(RETRY_S)
