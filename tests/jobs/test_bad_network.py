"""Over bad networks nothing is lost and nothing is applied twice: the weights are those of every push, bit by bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import Member, running, vector_layout
from tests.support.numpy_worker import integer_gradient
from tests.support.relay import NetworkConditions, Relay

pytestmark = pytest.mark.slow

N, WORKERS, PUSHES = 2_003, 4, 24
RATE = 2.0**-3
LAYOUT = vector_layout(N)
INITIAL = np.random.default_rng(1).integers(-9, 9, N).astype(np.float32)
NETWORKS = {
    "slow": NetworkConditions(delay_s=0.05),
    "lossy": NetworkConditions(loss=0.05),
    "slow and lossy": NetworkConditions(delay_s=0.05, loss=0.05),
    "reordering": NetworkConditions(jitter_s=0.2),
    "silent": NetworkConditions(silence=(60, 12.0)),
    "resetting": NetworkConditions(resets_after=40),
    "flapping": NetworkConditions(flaps=(0.3, 0.7)),
    "all of it": NetworkConditions(0.02, 0.05, 0.02, (80, 10.0), resets_after=60),
}


def push_all(member: Member) -> None:
    member.pull()
    for seq in range(1, PUSHES + 1):
        replies = member.push_pull(integer_gradient(member.worker, seq, N)).replies
        assert {reply.outcome for reply in replies} == {pb.APPLIED}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_push_over_a_bad_network_is_applied_once(tmp_path: Path, network: str, shards: int) -> None:
    relays: dict[str, Relay] = {}

    def via(address: str) -> str:
        if address not in relays:
            relays[address] = Relay(address, NETWORKS[network], len(relays))
        return relays[address].address

    flags = {"workers": WORKERS, "learning_rate": RATE, "session_s": 120, "checkpoint_every": "0.5s"}
    with running(tmp_path, shards, **flags) as cluster:
        direct, cluster.address = cluster.address, via(cluster.address)  # the coordinator, too, is behind a relay
        try:
            members = cluster.train(LAYOUT, WORKERS, INITIAL, via=via)
            with ThreadPoolExecutor(WORKERS) as pool:
                list(pool.map(push_all, members))
            final = members[0].client.pull()
        finally:
            for relay in relays.values():
                relay.close()
        cluster.address = direct
        cluster.stop()
        # A registration that is repeated, because its reply was lost, has received another number.
        total = sum(integer_gradient(each.worker, seq, N) for each in members for seq in range(1, PUSHES + 1))
        np.testing.assert_array_equal(final.flat, INITIAL - np.float32(RATE) * np.asarray(total, np.float32))
        assert final.versions == (WORKERS * PUSHES,) * shards
        for shard in range(shards):
            trace = cluster.trace(shard)
            assert trace["version"].tolist() == list(range(1, WORKERS * PUSHES + 1))
            assert len(set(zip(trace["worker"], trace["seq"], strict=True))) == WORKERS * PUSHES
        conditions = NETWORKS[network]
        if conditions.loss or conditions.silence or conditions.resets_after:
            assert sum(relay.disturbed for relay in relays.values()) > 0
