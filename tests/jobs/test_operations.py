"""Monitoring: metrics for Prometheus, and log lines as JSON."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import Cluster, vector_layout, wait_until

pytestmark = pytest.mark.slow

LAYOUT = vector_layout(50)


def test_metrics_and_json_logs(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        flags = ["--metrics-port=0", "--log-format=json", "--workers=1", "--checkpoint-every=0.05s"]
        server = cluster.start("ps-0", "-m", "downpour.ps", f"--run-dir={cluster.run}", *flags)
        announcement = server.announcement()
        cluster.address = str(announcement["address"])
        (member,) = cluster.train(LAYOUT, 1)
        member.pull()
        for _ in range(7):
            member.push_pull(np.ones(50, np.float32))
        member.push_pull(np.ones(50, np.float32), np.inf)

        def scrape() -> dict[tuple[str, str], float]:
            with urllib.request.urlopen(f"http://{announcement['metrics']}/metrics", timeout=10) as reply:
                text = reply.read().decode()
            families = text_string_to_metric_families(text)
            return {(s.name, next(iter(s.labels.values()), "")): s.value for f in families for s in f.samples}

        wait_until(lambda: ("downpour_checkpoint_age_seconds", "") in scrape(), "a checkpoint has been written")
        found = scrape()
        assert found["downpour_pushes_applied_total", ""] == 7
        assert found["downpour_pushes_dropped_total", "nonfinite"] == 1
        assert found["downpour_staleness_bucket", "0.0"] == found["downpour_staleness_count", ""] == 7
        assert found["downpour_apply_seconds_count", ""] == 8
        assert found["downpour_queue_depth", "buffered_pushes"] == 0
        assert found["downpour_workers", ""] == 1
        assert found["downpour_checkpoints_total", ""] >= 1 and found["downpour_checkpoints_failed_total", ""] == 0
        assert found["downpour_phase", "training"] == 1
        assert found["downpour_version", ""] == 7
        assert found["downpour_worker_updates_total", "0"] == 7 and found["downpour_worker_dropped_total", "0"] == 1
        assert found["downpour_worker_staleness", "0"] == 0
        assert any(name == "downpour_job_info" for name, _ in found)
        with urllib.request.urlopen(f"http://{announcement['metrics']}/healthz", timeout=10) as reply:
            assert (reply.status, reply.read()) == (200, b"ok\n")
        cluster.servers.append(server)
        cluster.stop()
        lines = [json.loads(line) for line in server.errors.splitlines() if line.startswith("{")]
        assert lines and all(line["job"] == "run" and line["process"] == "ps-0" for line in lines)
        assert any("the test is over" in line["message"] for line in lines)
    finally:
        cluster.close()
