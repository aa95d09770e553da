"""Replay: the calls of a recorded job made again give the same bits; what does not fit is found."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from downpour.bench.replay.record import CannotReplay, Recorded, check_replayable, read_run
from downpour.bench.replay.shard_replay import RecordBroken
from downpour.bench.replay.shards import Replay
from downpour.bench.replay.verdict import Verdict, report
from downpour.bench.speed.recording import shard_times
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import InvalidRequest
from downpour.ps.config import ServerSettings
from downpour.ps.control_plane.replay_recorder import ReplayRecorder
from downpour.ps.data_plane.snapshot import parts, weights_state
from downpour.ps.monitoring.summary import configuration
from downpour.ps.storage.run_directory import RunDirectory
from downpour.ps.trace.call_log import LARGEST_RECORDED, Call, is_recorded
from tests.support.cluster import DATA, Member, running
from tests.support.pure.pure_job import PureJob
from tests.support.pure.recorded_job import LAYOUT, RecordedJob, compute

MODES = (
    "async", "bsp", "ssp:0", "ssp:2", "softsync:2", "softsync:4", "backup:2", "ksync:2", "kasync:2", "ringmaster:2",
    "rennala:2",
)  # fmt: skip


def replayed(recorded: Recorded, until: int | None = None) -> Replay:
    replay = Replay(recorded, compute, until)
    replay.run()
    return replay


def assert_same(job: RecordedJob, recorded: Recorded) -> None:
    replay = replayed(recorded)
    assert not replay.differences.first
    assert replay.pushes == len(recorded.traces[0]) > 20
    assert replay.weights.tobytes() == job.weights.tobytes()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_replayed_bit_by_bit(mode: str, shards: int) -> None:
    for seed in range(3):
        job = RecordedJob(shards, seed, mode=mode, optimizer="adam")
        assert_same(job, job.run())


@pytest.mark.parametrize(
    ("shards", "text"), [(1, r"version \d+: w"), (2, r"version \d+ of shard 0, \d+ of shard 1: w")]
)
def test_a_report_names_the_versions_of_saved_weights(shards: int, text: str) -> None:
    recorded = RecordedJob(shards, 1, mode="async", optimizer="adam").run()
    verdict = Verdict(replayed(recorded, until=5), None, [])
    assert re.search(f"^weights of {text}$", report(verdict, recorded, Path("w")), re.M)


@pytest.mark.parametrize("mode", ["async", "softsync:2", "bsp"])
@pytest.mark.parametrize("staleness", ["inverse", "delay_adaptive:drop", "dc_asgd", "dc_asgd_adaptive"])
def test_every_compensation_is_replayed_bit_by_bit(mode: str, staleness: str) -> None:
    for seed in range(3):
        job = RecordedJob(2, seed, mode=mode, staleness_policy=staleness, schedule="cosine:60", warm_up=5)
        assert_same(job, job.run())


CHANGES = (
    ({"mode": "bsp"}, {"mode": "ssp:1"}, {"mode": "async"}),
    ({"mode": "softsync:2"}, {"mode": "async", "learning_rate": 0.5}, {"mode": "kasync:2"}),
    ({"staleness_policy": "dc_asgd"}, {"staleness_policy": "none"}, {"staleness_policy": "inverse"}),
    ({"learning_rate": 0.01}, {"staleness_policy": "dc_asgd_adaptive", "mode": "bsp"}, {"mode": "async"}),
)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("mode", ["async", "bsp", "ssp:0"])
def test_changed_settings_are_replayed_bit_by_bit(mode: str, changes: tuple[dict[str, Any], ...], shards: int) -> None:
    for seed in range(2):
        job = RecordedJob(shards, seed, mode=mode, optimizer="adam", schedule="cosine:60")
        recorded = job.run(changes=changes)
        assert len(recorded.changes) == 3 - (changes[0].get("mode") == mode)
        assert_same(job, recorded)


def test_a_replay_needs_the_list_of_changes() -> None:
    recorded = RecordedJob(1, 5).run(changes=({"mode": "bsp"},))
    with pytest.raises(RecordBroken, match="changes.json must contain change 1"):
        replayed(dataclasses.replace(recorded, changes=()))


def test_weights_that_the_server_did_not_keep_are_not_kept_in_the_replay() -> None:
    job = RecordedJob(1, 1, staleness_policy="dc_asgd", version_memory=0)
    recorded = job.run()
    assert job.hosts[0].trained_shard().uncorrected
    assert_same(job, recorded)


def test_corrected_momentum_is_replayed_with_the_live_workers() -> None:
    job = RecordedJob(1, 2, optimizer="momentum", momentum=0.9, momentum_correction=True)
    assert_same(job, job.run())


def test_a_replay_can_stop_at_every_version_of_the_run() -> None:
    job = RecordedJob(1, 3, mode="softsync:2")
    recorded = job.run()
    assert len(job.versions) > 20
    for version, weights in enumerate(job.versions):
        stopped = replayed(recorded, version)
        assert stopped.versions == [version]
        assert stopped.weights.tobytes() == weights.tobytes(), version


def test_at_a_stop_version_all_shards_contain_the_same_pushes() -> None:
    job = RecordedJob(3, 4)
    recorded = job.run()
    first = recorded.traces[0]
    for version in (0, 7, 20):
        stopped = replayed(recorded, version)
        part = len(job.hosts[0].trained_shard().pull()[0].array) - 4
        assert stopped.weights[:part].tobytes() == job.versions[version][:part].tobytes()
        contained = {(r["worker"], r["incarnation"], r["seq"]) for r in first if 0 < r["version"] <= version}
        for trace, reached in zip(recorded.traces[1:], stopped.versions[1:], strict=True):
            done = {(r["worker"], r["incarnation"], r["seq"]) for r in trace[trace["version"] <= reached]}
            assert {name for name in contained if name in done} == contained


def test_a_version_that_the_run_never_had_is_refused() -> None:
    recorded = RecordedJob(1, 5).run()
    with pytest.raises(CannotReplay, match="--until must be a version that the run had, 0 to"):
        Replay(recorded, compute, 10_000)


# ---------------------------------------------------------------------------------------- a record that does not fit


def tampered(recorded: Recorded, index: int, shard: int = 0, **changes: Any) -> Recorded:
    trace = recorded.traces[shard].copy()
    for key, value in changes.items():
        trace[index][key] = value
    traces = [trace if number == shard else each for number, each in enumerate(recorded.traces)]
    return dataclasses.replace(recorded, traces=traces)


def late(recorded: Recorded) -> int:
    """The index of a record that was applied and not fresh."""
    trace = recorded.traces[0]
    return int(np.flatnonzero((trace["staleness"] > 1) & (trace["outcome"] == 0))[5])


@pytest.mark.parametrize("shards", [1, 2])
def test_a_changed_base_version_is_detected(shards: int) -> None:
    job = RecordedJob(shards, 6)
    recorded = job.run()
    index = late(recorded)
    base = int(recorded.traces[0][index]["base_version"])
    replay = replayed(tampered(recorded, index, base_version=base + 1))
    assert f"from version {base + 1}" in replay.differences.first
    assert replay.differences.outcomes and replay.differences.values
    assert replay.weights.tobytes() != job.weights.tobytes()


def test_a_base_version_in_the_future_is_detected() -> None:
    recorded = RecordedJob(1, 6).run()
    index = late(recorded)
    with pytest.raises(RecordBroken, match="but in the replay the shards are at"):
        replayed(tampered(recorded, index, base_version=int(recorded.traces[0][index]["version"]) + 1))


def test_a_changed_sample_range_is_detected() -> None:
    job = RecordedJob(1, 7)
    recorded = job.run()
    index = late(recorded)
    start, stop = int(recorded.traces[0][index]["start"]), int(recorded.traces[0][index]["stop"])
    replay = replayed(tampered(recorded, index, start=start + 1, stop=stop + 1))
    assert "in the record and" in replay.differences.first
    assert replay.weights.tobytes() != job.weights.tobytes()


@pytest.mark.parametrize("field", ["staleness", "learning_rate", "version", "outcome", "reason"])
def test_a_changed_outcome_is_detected_even_if_the_weights_are_equal(field: str) -> None:
    job = RecordedJob(1, 8)
    recorded = job.run()
    index = late(recorded)
    replay = replayed(tampered(recorded, index, **{field: 3}))
    assert f"record {index} of shard 0's trace" in replay.differences.first
    assert f"{field} 3" in replay.differences.first
    assert (replay.differences.outcomes, replay.differences.values) == (1, 0)
    assert replay.weights.tobytes() == job.weights.tobytes()


def test_a_missing_record_is_named() -> None:
    recorded = RecordedJob(2, 9).run()
    gone = recorded.traces[1][4]
    without = dataclasses.replace(recorded, traces=[recorded.traces[0], np.delete(recorded.traces[1], 4)])
    name = f"push {gone['seq']} of worker {gone['worker']}, incarnation {gone['incarnation']}, call"
    with pytest.raises(RecordBroken, match=f"must be in the traces of all shards; {name}"):
        Replay(without, compute)


def test_an_interrupted_run_is_replayed_as_far_as_all_traces_reach() -> None:
    job = RecordedJob(2, 9)
    recorded = job.run()
    cut = dataclasses.replace(recorded, traces=[recorded.traces[0], recorded.traces[1][:-1]])
    stopped = replayed(cut, 20)
    assert not stopped.differences.first
    assert stopped.weights.tobytes() == replayed(recorded, 20).weights.tobytes()
    with pytest.raises(RecordBroken, match="but in the replay the shards|was not reached"):
        replayed(cut, len(job.versions) - 1)


def test_a_missing_call_is_detected() -> None:
    recorded = RecordedJob(1, 9).run()
    last = int(np.flatnonzero(recorded.calls[0]["call"] == Call.PUSH)[-1])
    replay = replayed(dataclasses.replace(recorded, calls=[np.delete(recorded.calls[0], last)]))
    assert "there is no such call" in replay.differences.first


def test_an_unknown_call_is_detected() -> None:
    recorded = RecordedJob(1, 10).run()
    called = recorded.calls[0].copy()
    called[4]["call"] = 77  # the first one is BEGIN
    with pytest.raises(RecordBroken, match="call 3 on shard 0 cannot be repeated"):
        replayed(dataclasses.replace(recorded, calls=[called]))


# ---------------------------------------------------------------------------------------- what cannot be replayed

REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"script": True}, {}, "must be a run of `downpour train`; this is a run of a script"),
    ({"codec": "int8"}, {}, "must use --codec float32; this one uses int8"),
    ({"mode": "easgd:0.5,4"}, {}, "must keep all weights on the servers; in --mode easgd:0.5,4"),
    ({"push_every": 2, "fetch_every": 4}, {}, "must pull with every push.*--push-every 2 and --fetch-every 4"),
    ({"record": "off"}, {}, "must be recorded; this one ran with --record off"),
    ({}, {"generation": 3}, "must not be resumed; this one was resumed, or one of its servers died, 2 times"),
    ({}, {"partial_pushes": 1}, "must apply every push on all shards"),
]


@pytest.mark.parametrize(("settings", "summary", "message"), REFUSED)
def test_a_run_that_cannot_be_replayed_is_refused_with_the_reason(
    settings: dict[str, Any], summary: dict[str, Any], message: str
) -> None:
    check_replayable(ServerSettings(), {"generation": 1})
    with pytest.raises(CannotReplay, match=f"a run to be replayed {message}"):
        check_replayable(ServerSettings(**settings), {"generation": 1, **summary})


def test_a_directory_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotReplay, match="RUN_DIR must be the directory of a run that has ended"):
        read_run(tmp_path)
    content = configuration(ServerSettings(), {}, pb.DatasetInfo(checksum="c"))
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CannotReplay, match="with config.json and summary.json"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(
        CannotReplay, match="no initial.safetensors.*more than 16,777,216 weights are not recorded; train with --record"
    ):
        read_run(tmp_path)
    (tmp_path / "initial.safetensors").write_bytes(b"torn")
    with pytest.raises(CannotReplay, match="must contain the initial weights of a run"):
        read_run(tmp_path)


# ---------------------------------------------------------------------------------------- through real servers


def test_real_servers_record_what_a_replay_needs(tmp_path: Path) -> None:
    """Two shards, three workers in threads, one of which leaves and another joins; every reply is waited for."""
    initial = np.random.default_rng(0).standard_normal(LAYOUT.size).astype(np.float32)
    with running(tmp_path, 2, workers=3, learning_rate=0.05, optimizer="adam", staleness_policy="dc_asgd") as cluster:
        members = cluster.train(LAYOUT, 3, initial)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda member: push_some(member, 25), members))
        members[0].control.leave(pb.LeaveRequest(session=members[0].session.session))
        late = cluster.join(LAYOUT)
        late.await_start(initial)
        push_some(late, 12)
        last = late.client.pull().flat.copy()
        cluster.stop()
        recorded = read_run(cluster.run)
    replay = replayed(recorded)
    assert not replay.differences.first
    assert replay.pushes == 3 * 25 + 12
    assert replay.weights.tobytes() == last.tobytes()
    assert recorded.checksum == "c" * 64 and len(recorded.facts) == 4
    assert {int(call) for called in recorded.calls for call in called["call"]} >= {Call.PUSH, Call.LEAVE, Call.PULL}


def push_some(member: Member, count: int) -> None:
    """Push what `compute` returns, while other workers push."""
    pulled = member.pull()
    for seq in range(1, count + 1):
        record = {"worker": member.worker, "seq": seq, "start": seq, "stop": seq + 4}
        found = compute(record, pulled.flat)
        pulled = member.push_pull(found.vector, found.norm, samples=4, start=seq, stop=seq + 4, loss=found.loss)


@pytest.mark.parametrize(("flags", "there"), [({"record": "off"}, False), ({}, True)])
def test_a_job_is_recorded_by_default(tmp_path: Path, flags: dict[str, str], there: bool) -> None:
    with running(tmp_path, 1, workers=1, **flags) as cluster:
        push_some(cluster.train(LAYOUT, 1)[0], 3)
        cluster.stop()
        assert (cluster.run / "calls.npy").exists() == (cluster.run / "initial.safetensors").exists() == there


def test_the_weights_of_a_worker_that_died_are_not_the_initial_weights(tmp_path: Path) -> None:
    job = RecordedJob(1, 11)
    job.commands[0].execute(pb.ShardCommand(initialisation=1))
    job.flat = job.flat[::-1].copy()
    job.initialise(0, job.flat)
    job.versions.clear()
    assert job.initial[0].facts.initialisation == 1
    recorded = job.run()
    assert (recorded.calls[0]["call"] == Call.BEGIN).sum() == 1  # the first one had not been collected
    again = np.concatenate((recorded.calls[0][:3], recorded.calls[0]))
    assert_same(job, dataclasses.replace(recorded, calls=[again]))


def test_the_initial_weights_of_all_shards_are_of_one_worker(tmp_path: Path) -> None:
    coordinator = PureJob(shards=3).coordinator
    coordinator.agree(LAYOUT, DATA)
    recording = ReplayRecorder(coordinator, RunDirectory(tmp_path))
    slices = LAYOUT.cut(3)

    def set_weights(shard: int, initialisation: int) -> None:
        part = slices[shard]
        facts = pb.SnapshotInfo(initialisation=initialisation)
        state = weights_state(np.full(part.size, 10 * initialisation + shard, np.float32), part, facts, lambda: None)
        if shard == 0:
            recording.take_initial_state(state)
        for piece in parts(state, 0) if shard else ():
            recording.event(shard, pb.ShardEvent(part=piece))

    for shard, initialisation in ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1)):  # the first worker died on the way
        set_weights(shard, initialisation)
        assert not (tmp_path / "initial.safetensors").exists()
    set_weights(0, 1)
    found = load_file(tmp_path / "initial.safetensors")
    assert [*found["trained"][[part.start for part in slices]], *found["state"]] == [10, 11, 12, 10, 10, 10, 10]
    with pytest.raises(InvalidRequest, match="calls must be whole, 20 bytes each; received 7 bytes"):
        recording.event(1, pb.ShardEvent(call_log=b"1234567"))


def test_large_models_are_recorded_only_on_request() -> None:
    assert is_recorded(ServerSettings(), LARGEST_RECORDED)
    assert not is_recorded(ServerSettings(), LARGEST_RECORDED + 1)
    assert is_recorded(ServerSettings(record="on"), LARGEST_RECORDED + 1)


def test_the_bench_of_recording_measures_both() -> None:
    push_s, added_s = shard_times(100, 2)
    assert push_s > 0 and abs(added_s) < push_s * 10
