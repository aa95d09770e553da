"""`downpour status ADDRESS --serve HOST:PORT`: serves the job's status as JSON over HTTP until the job has ended.

The endpoint is read-only: its clients can see the job and nothing more. `GET /` returns the latest progress, or status
503 before there is any. `GET /healthz` returns status 200 while the coordinator answers, and 503 while it does not.
"""

from __future__ import annotations

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc

from downpour.deploy.config import StatusSettings
from downpour.deploy.view.rendering import as_dict
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.logs import reason_of
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.status_codes import error_of
from downpour.protos.system.http import REQUEST_S, BoundedThreads
from downpour.protos.system.json_text import json_text

GONE_S = 60.0  # a server that does not answer for this long is not being restarted
RETRY_S = 0.5
HEALTH = "/healthz"


class Endpoint(BoundedThreads, HTTPServer):
    """An HTTP server that returns the latest status."""

    def __init__(self, address: str) -> None:
        """Start an HTTP server that listens at `HOST:PORT`.

        Raises:
            OSError: The address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        super().__init__((host.strip("[]"), int(port)), _Handler)
        self._body: bytes | None = None
        self._answers = False

    @property
    def healthy(self) -> bool:
        """Whether the coordinator has answered, and has not been lost since."""
        return self._answers

    def lost(self) -> None:
        """Record that the coordinator does not answer."""
        self._answers = False

    @property
    def url(self) -> str:
        """The URL of the endpoint."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    @property
    def body(self) -> bytes | None:
        """The latest status as JSON; None before the first one."""
        return self._body

    def publish(self, progress: pb.Progress) -> None:
        """Make `progress` the latest status."""
        self._body = json_text(as_dict(progress)).encode() + b"\n"
        self._answers = True


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    server: Endpoint

    def do_GET(self) -> None:  # noqa: N802 (the name is the base class's)
        """Answer a GET request with the latest status of the job."""
        if self.path == HEALTH:
            self._send(b"ok\n", "text/plain") if self.server.healthy else self.send_error(
                503, "the job does not answer"
            )
            return
        body = self.server.body  # read once: another thread may publish a status of another length at any time
        if self.path != "/":
            self.send_error(404)
        elif body is None:
            self.send_error(503, "the job's server has not answered yet")
        else:
            self._send(body, "application/json")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: requests are not logged."""


def serve(settings: StatusSettings, address: str) -> int:
    """Serve at `address` until the job has ended and return the exit status.

    If the job's server dies, this function tries to reconnect for a minute.
    """
    try:
        endpoint = Endpoint(address)
    except OSError as failure:
        print(
            f"downpour status: --serve must be a free address of this machine; received {address} "
            f"({reason_of(failure)})",
            file=sys.stderr,
        )
        return 2
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    print(f"the status of {settings.address} is at {endpoint.url}", flush=True)
    try:
        return _follow(settings, endpoint)
    finally:
        endpoint.shutdown()
        endpoint.server_close()


def _follow(settings: StatusSettings, endpoint: Endpoint) -> int:
    last_s, shown = time.monotonic(), ""
    with open_channel(settings.address) as channel:
        stub = CoordinatorStub(channel)
        while True:
            try:
                stub.Status(pb.StatusRequest(), timeout=settings.timeout_s)  # unlike the stream, this has a deadline
                for progress in stub.Watch(pb.WatchRequest(every_s=settings.every_s)):
                    last_s, shown = time.monotonic(), ""
                    endpoint.publish(progress)
                    if progress.phase in ("ended", "failed"):
                        print(f"the job has {progress.phase}", flush=True)
                        return 0
            except grpc.RpcError as failure:
                error = str(error_of(failure, settings.address))
            else:
                error = f"{settings.address} ended the stream"
            endpoint.lost()
            if time.monotonic() > last_s + GONE_S:
                print(f"downpour status: no answer for {GONE_S:.0f} s: {error}", file=sys.stderr)
                return 0 if endpoint.body else 1
            if error != shown:
                print(f"downpour status: reconnecting: {error}", file=sys.stderr, flush=True)
                shown = error
            threading.Event().wait(RETRY_S)
