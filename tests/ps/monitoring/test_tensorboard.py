"""What TensorBoard reads of a run: one file, whole records, scalars by version, staleness, configuration."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import events_pb2 as events
from downpour.ps.core.push import Outcome, Push, Result
from downpour.ps.monitoring.tensorboard import EVERY_S, FOLDER, TensorBoardWriter, hyperparameters, name_of
from downpour.ps.monitoring.tfevents import EventFile, histogram, masked_crc, scalar, settings, text
from downpour.ps.trace.metrics import Metrics
from tests.support.pure.pure_job import PureJob
from tests.support.scripts import environment


def records(folder: Path) -> Iterator[events.Event]:
    (path,) = (file for file in folder.rglob("events.*"))
    data, at = path.read_bytes(), 0
    while at < len(data):
        length = data[at : at + 8]
        (size,), end = struct.unpack("<Q", length), at + 12
        body = data[end : end + int.from_bytes(length, "little")]
        assert struct.unpack("<I", data[at + 8 : end]) == (masked_crc(length),)
        assert struct.unpack("<I", data[end + size : end + size + 4]) == (masked_crc(body),)
        yield events.Event.FromString(body)
        at = end + size + 4


def test_the_check_sum_is_crc_32c() -> None:
    """Of "123456789" it is 0xE3069283 (RFC 3720, B.4); masked as in TensorFlow's record files."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@given(st.dictionaries(st.integers(0, 300), st.integers(1, 10**6), min_size=1, max_size=40))
def test_a_histogram_counts_everything_once(counts: dict[int, int]) -> None:
    histo = histogram("staleness", counts).histo
    assert sum(histo.bucket) == histo.num == sum(counts.values())
    assert len(histo.bucket) == len(histo.bucket_limit) and list(histo.bucket_limit) == sorted(histo.bucket_limit)
    for limit, count in zip(histo.bucket_limit, histo.bucket, strict=True):
        assert count == counts.get(int(limit - 0.5), 0)


def push(worker: int, seq: int, loss: float) -> Push:
    return Push(worker, 1, seq, seq - 1, samples=10, loss=loss, correct=5)


def test_scalars_are_of_what_came_since_the_last_ones(tmp_path: Path) -> None:
    job, metrics = PureJob(), Metrics()
    board = TensorBoardWriter(tmp_path, job.coordinator, metrics)
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"seed": 7}}))
    for seq, (loss, staleness) in enumerate([(4.0, 0), (2.0, 1), (1.0, 3), (1.0, 3)], 1):
        metrics.record(push(seq % 2, seq, loss), Result(Outcome.APPLIED, seq, staleness, 0.1), float(seq))
        board.write(100.0 + seq * EVERY_S / 2)
    board.write(110.0, last=True)
    steps: dict[str, dict[int, float]] = {}
    texts, staleness_counts = [], Counter[float]()
    for event in records(tmp_path / FOLDER):
        for value in event.summary.value:
            steps.setdefault(value.tag, {})[event.step] = value.simple_value
            texts += [content.decode() for content in value.tensor.string_val]
            if value.tag == "staleness/all":
                staleness_counts.update(dict(zip(value.histo.bucket_limit, value.histo.bucket, strict=True)))
    assert steps["train/loss"] == {1: 4.0, 3: 1.5, 4: 1.0}
    assert steps["train/accuracy"] == {1: 0.5, 3: 0.5, 4: 0.5}
    assert steps["staleness/mean"] == {1: 0.0, 3: 2.0, 4: 3.0}
    assert {limit - 0.5: count for limit, count in staleness_counts.items() if count} == {0: 1, 1: 1, 3: 2}
    assert len(texts) == 1 and "| seed | 7 |" in texts[0]


def test_a_full_disk_is_reported_and_leaves_a_gap(tmp_path: Path) -> None:
    job, metrics = PureJob(), Metrics()
    board, notes = TensorBoardWriter(tmp_path, job.coordinator, metrics), job.state.notes
    folder = tmp_path / FOLDER

    def update(seq: int) -> None:
        metrics.record(push(0, seq, 1.0), Result(Outcome.APPLIED, seq, 0, 0.1), float(seq))
        board.write(100.0 + seq * EVERY_S)

    update(1)
    (path,) = folder.rglob("events.*")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 7, hard))
    try:
        update(2)
        update(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(notes) == 1 and "cannot be written, training continues" in notes[0]
    update(4)
    board.write(200.0, last=True)
    assert notes[1:] == ["TensorBoard's file is written again"]
    assert [event.step for event in records(folder)] == [0, 1, 4]


@pytest.mark.slow
def test_tensorboard_reads_it(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = EventFile(tmp_path, 1e9)
    file.write(1e9 + 1, 5, [scalar("train/loss", 0.25), histogram("staleness/all", {0: 3, 2: 1}), text("t", "**x**")])
    file.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(5, 0.25)]
    (staleness,) = found.Histograms("staleness/all")
    assert staleness.step == 5 and staleness.histogram_value.num == 4
    (written,) = found.Tensors("t/text_summary" if "t/text_summary" in found.Tags()["tensors"] else "t")
    assert list(written.tensor_proto.string_val) == [b"**x**"]


@pytest.mark.slow
def test_tensorboard_reads_the_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    file = EventFile(tmp_path, 1e9)
    file.write(1e9, 0, [settings({"mode": "ssp:2", "workers": 4, "overlap": True, "rate": 0.5}, "run", 1e9)])
    file.close()
    content = EventAccumulator(str(tmp_path)).Reload().PluginTagToContent("hparams")
    found = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    assert found.hparams["mode"].string_value == "ssp:2" and found.hparams["workers"].number_value == 4
    assert found.hparams["overlap"].bool_value and found.hparams["rate"].number_value == 0.5
    assert found.group_name == "run"


def test_the_name_of_a_run_has_mode_and_workers(tmp_path: Path) -> None:
    job = PureJob(mode="ssp:2", workers=2)
    assert name_of(job.coordinator.job.settings) == "ssp-2-2-workers"
    known = hyperparameters(job.coordinator.job.settings)
    assert (known["mode"], known["workers"]) == ("ssp:2", 2) and "learning_rate" in known


@pytest.mark.slow
def test_a_run_has_one_writer_and_what_people_look_for(tmp_path: Path) -> None:
    line = [
        sys.executable, "-m", "downpour.deploy.cli", "train", "--model=svr", "--workers=2", "--shards=2", "--xla=off",
        "--epochs=4", f"--runs-dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "latest" / "summary.json").read_text())
    seen: dict[str, list[int]] = {}
    pushes = 0.0
    for event in records(tmp_path / "latest" / FOLDER):
        for value in event.summary.value:
            seen.setdefault(value.tag, []).append(event.step)
            pushes += value.histo.num if value.tag == "staleness/all" else 0
    assert {"configuration", "train/loss", "validation/loss", "test/loss", "staleness/mean"} <= set(seen)
    assert pushes == summary["updates"] and max(seen["test/loss"]) == summary["updates"]
    assert 0 < summary["communication_share"] < 1
