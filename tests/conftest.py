"""Settings of Hypothesis without deadlines, signals, and fixtures of a job that invalid input must not disturb."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from downpour.protos import credentials
from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import Cluster, Member, running
from tests.support.processes.raw_frames import LAYOUT, ONES

settings.register_profile("downpour", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("downpour")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell ignores it in a job in the background, and every process that a test starts would do so as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the credentials of this process after a test whose settings have replaced them."""
    monkeypatch.setattr(credentials, "_adopted", credentials._adopted)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of downpour from the environment, and give the terminal 80 columns."""
    for name in list(os.environ):
        if name.startswith("DOWNPOUR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("ps"), workers=1, learning_rate=0.5, batch_size=4) as cluster:
        cluster.train(LAYOUT, 1)
        yield cluster


@pytest.fixture
def member(cluster: Cluster) -> Iterator[Member]:
    """A new worker for each test; training continues after the test."""
    member = cluster.join(LAYOUT)
    member.pull()
    yield member
    fresh = cluster.join(LAYOUT)
    before = fresh.pull()
    after = fresh.push_pull(ONES)
    assert after.replies[0].outcome == pb.APPLIED
    np.testing.assert_array_equal(after.flat, before.flat - 0.5)
