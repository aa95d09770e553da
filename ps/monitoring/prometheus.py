"""Metrics for Prometheus. The endpoint is off unless a port is given, and listens on loopback by default."""

from __future__ import annotations

import asyncio
import socket
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from downpour.protos.system import clock
from downpour.protos.system.http import REQUEST_S, BoundedThreads
from downpour.ps.control_plane.checkpointer import Checkpointer
from downpour.ps.coordinator.coordinator import Coordinator
from downpour.ps.data_plane.shard_runtime import ShardRuntime

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

STALENESS_BUCKETS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
APPLY_BUCKETS_S = (1e-4, 2.5e-4, 1e-3, 2.5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1.0)
ANSWER_TIMEOUT_S = 2.0
HEALTH = "/healthz"  # the path at which a probe asks whether the process answers


class Durations:
    """A histogram of durations with the buckets `APPLY_BUCKETS_S`."""

    def __init__(self) -> None:
        """Create a histogram without observations."""
        self.counts = [0] * (len(APPLY_BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration in seconds to the histogram."""
        self.counts[bisect_left(APPLY_BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class ShardMetrics:
    """The metrics of one shard's process, and on shard 0 those of the job. Used on the event loop only."""

    def __init__(
        self,
        host: ShardRuntime,
        push_times: Durations,
        coordinator: Coordinator | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        """Create the metrics of a shard and, on shard 0, of the job."""
        self._host, self._coordinator, self._checkpointer = host, coordinator, checkpointer
        self.applied = push_times

    def families(self, now: float) -> list[Metric]:
        """Return the current values of all metrics of this process."""
        return [*self._of_shard(), *(self._of_job(now) if self._coordinator else ())]

    def _of_shard(self) -> Iterator[Metric]:
        host, metrics, shard = self._host, self._host.records.metrics, self._host.shard
        yield CounterMetricFamily("downpour_pushes_applied", "Pushes that became part of the weights", metrics.updates)
        dropped = CounterMetricFamily("downpour_pushes_dropped", "Pushes dropped by policy", labels=["reason"])
        for reason, count in sorted(metrics.dropped.items()):
            dropped.add_metric([reason], count)
        yield dropped
        yield CounterMetricFamily(
            "downpour_pushes_repeated", "Duplicate pushes, which were not applied again", metrics.duplicates
        )
        yield CounterMetricFamily("downpour_samples", "Samples used", metrics.samples)
        yield CounterMetricFamily("downpour_bytes_pushed", "Bytes of gradients received", metrics.bytes_pushed)
        yield CounterMetricFamily("downpour_bytes_pulled", "Bytes of weights sent", metrics.bytes_pulled)
        yield _histogram("downpour_staleness", "Staleness of applied pushes, in updates", metrics.staleness.items())
        buckets = list(zip([*map(str, APPLY_BUCKETS_S), "+Inf"], _running(self.applied.counts), strict=True))
        yield HistogramMetricFamily(
            "downpour_apply_seconds", "Time to check and apply a push", buckets=buckets, sum_value=self.applied.total_s
        )
        depth = GaugeMetricFamily("downpour_queue_depth", "Pushes and replies that wait", labels=["what"])
        depth.add_metric(["buffered_pushes"], len(shard.pending) if shard else 0)
        depth.add_metric(["closed_gates"], len(host.waiters.workers))
        yield depth
        yield GaugeMetricFamily("downpour_version", "Updates in the weights", shard.version if shard else 0)
        yield GaugeMetricFamily("downpour_generation", "Generation of the shards", host.generation)

    def _of_workers(self) -> Iterator[Metric]:
        updates = CounterMetricFamily("downpour_worker_updates", "Updates by a worker", labels=["worker"])
        samples = CounterMetricFamily("downpour_worker_samples", "Samples used by a worker", labels=["worker"])
        dropped = CounterMetricFamily("downpour_worker_dropped", "Dropped pushes of a worker", labels=["worker"])
        loss = GaugeMetricFamily("downpour_worker_loss", "Loss of a worker's last push", labels=["worker"])
        stale = GaugeMetricFamily("downpour_worker_staleness", "Staleness of its last update", labels=["worker"])
        for number, worker in sorted(self._host.records.metrics.workers.items()):
            updates.add_metric([str(number)], worker.updates)
            samples.add_metric([str(number)], worker.samples)
            dropped.add_metric([str(number)], worker.dropped)
            loss.add_metric([str(number)], worker.loss)
            stale.add_metric([str(number)], worker.staleness_last)
        yield from (updates, samples, dropped, loss, stale)

    def _of_job(self, now: float) -> Iterator[Metric]:
        coordinator, checkpointer = self._coordinator, self._checkpointer
        assert coordinator is not None and checkpointer is not None
        yield from self._of_workers()
        settings = coordinator.job.settings
        facts = {"name": coordinator.job.name, "model": settings.model, "mode": settings.mode}
        info = GaugeMetricFamily("downpour_job_info", "1, with the facts of the job as labels", labels=list(facts))
        info.add_metric(list(facts.values()), 1)
        yield info
        yield GaugeMetricFamily("downpour_workers", "Live workers", len(coordinator.job.membership))
        yield GaugeMetricFamily("downpour_shards", "Shards that have joined", len(coordinator.job.shards))
        phase = GaugeMetricFamily("downpour_phase", "1 for the phase of the job", labels=["phase"])
        phase.add_metric([str(coordinator.job.phase)], 1)
        yield phase
        yield CounterMetricFamily(
            "downpour_partial_pushes", "Pushes that only some shards have applied", coordinator.job.orphans.partial
        )
        yield CounterMetricFamily("downpour_checkpoints", "Checkpoints written by this process", checkpointer.taken)
        yield CounterMetricFamily(
            "downpour_checkpoints_failed", "Checkpoints that could not be written", checkpointer.failed
        )
        if checkpointer.last_s is not None:
            age_s = now - checkpointer.last_s
            yield GaugeMetricFamily("downpour_checkpoint_age_seconds", "Time since the last checkpoint", age_s)
            yield GaugeMetricFamily(
                "downpour_checkpoint_seconds", "Duration of the last checkpoint", checkpointer.seconds
            )


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: requests are not logged."""


def _server_class(host: str, port: int) -> type[WSGIServer]:
    """Return the class of an HTTP server for the address family of a host."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return type("MetricsServer", (BoundedThreads, WSGIServer), {"address_family": family})


class PrometheusExporter(Collector):
    """The HTTP endpoint, in a thread of its own that queries the event loop.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, host: str, port: int, families: Callable[[float], list[Metric]]) -> None:
        """Start the endpoint, for metrics of the running event loop.

        Raises:
            OSError: The address cannot be bound.
        """
        self._loop, self._families = asyncio.get_running_loop(), families
        registry = CollectorRegistry()
        self._metrics_app = make_wsgi_app(registry)
        self._server = make_server(host, port, self._answer, _server_class(host, port), _Handler)
        self.port = int(self._server.server_port)
        registry.register(self)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request: that for the health of the process, or that for the metrics."""
        if environ.get("PATH_INFO") != HEALTH:
            metrics: Iterable[bytes] = self._metrics_app(environ, start_response)
            return metrics
        healthy = self._event_loop_answers()
        status, text = ("200 OK", b"ok\n") if healthy else ("503 Service Unavailable", b"the server does not answer\n")
        start_response(status, [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
        return [text]

    def _event_loop_answers(self) -> bool:
        async def nothing() -> bool:
            return True

        try:
            return asyncio.run_coroutine_threadsafe(nothing(), self._loop).result(ANSWER_TIMEOUT_S)
        except (TimeoutError, RuntimeError):  # it is busy, or it has ended
            return False

    def collect(self) -> Iterable[Metric]:
        """Return all metrics, computed on the event loop."""

        async def ask() -> list[Metric]:
            return self._families(clock.monotonic())

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(ANSWER_TIMEOUT_S)

    def describe(self) -> Iterable[Metric]:
        """Return no metrics: which ones exist depends on the job."""
        return []

    def close(self) -> None:
        """Stop the HTTP endpoint, and release its port."""
        self._server.shutdown()
        self._server.server_close()


def _histogram(name: str, text: str, counts: Iterable[tuple[int, int]]) -> HistogramMetricFamily:
    held, total = [0] * (len(STALENESS_BUCKETS) + 1), 0
    for value, count in counts:
        held[bisect_left(STALENESS_BUCKETS, value)] += count
        total += value * count
    buckets = list(zip([*map(str, map(float, STALENESS_BUCKETS)), "+Inf"], _running(held), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)


def _running(counts: Iterable[int]) -> list[int]:
    found, total = [], 0
    for count in counts:
        total += count
        found.append(total)
    return found
