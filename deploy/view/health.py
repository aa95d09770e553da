"""`python -m downpour.deploy.view.health ADDRESS`: the health check of a container, by grpc.health.v1.

The exit status is 0 if the server is serving, and 1 if it is not or does not answer.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from downpour.deploy.config import HealthSettings
from downpour.protos.channel import open_channel
from downpour.protos.settings import parse
from downpour.protos.status_codes import error_of


def health(settings: HealthSettings) -> int:
    """Send one request and return the exit status."""
    try:
        with open_channel(settings.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            reply = check(health_pb2.HealthCheckRequest(), timeout=settings.timeout_s)
    except grpc.RpcError as failure:
        print(error_of(failure, settings.address), file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
    return 0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(health(parse(HealthSettings, sys.argv[1:], "python -m downpour.deploy.view.health")))
