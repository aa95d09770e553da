"""What a complete call of `fit` has left, for a worker that runs the script again: read, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.protos.system import progress
from downpour.worker.fit.cluster.completed_fit import check_can_continue, read_completed
from downpour.worker.fit.cluster.script_worker import CallIsComplete, ScriptWorker
from tests.support.cluster import wait_until

FACTS = {"shards": [{"updates": [7], "gradients": [14]}]}


def written(folder: Path, call: int) -> Path:
    vectors = {"trained": np.arange(3.0), "state": np.ones(2), "slot.velocity": np.full(3, 0.5)}
    path = folder / f"fit-{call:06d}.safetensors"
    save_file({n: v.astype(np.float32) for n, v in vectors.items()}, path, {"facts": json.dumps(FACTS)})
    return path


def test_weights_slots_and_counts_of_a_call_are_read(tmp_path: Path) -> None:
    written(tmp_path, 2)
    found = read_completed(str(tmp_path), 2)
    assert found is not None
    assert found.flat.tolist() == [0, 1, 2, 1, 1] and found.slots["velocity"].tolist() == [0.5] * 3
    assert (list(found.counts.updates), list(found.counts.gradients)) == ([7], [14])
    check_can_continue(found, 1, 2, 5, False)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kept", ["no folder", "no file", "damaged"])
def test_a_worker_of_any_rank_is_refused_where_a_call_is_not_kept(tmp_path: Path, rank: int, kept: str) -> None:
    if kept == "damaged":
        path = written(tmp_path, 1)
        path.write_bytes(path.read_bytes()[:-4])
    completed = read_completed("" if kept == "no folder" else str(tmp_path), 1)
    with pytest.raises(Unsupported, match=f"worker {rank} .* after call 1 of fit.*--checkpoint-every.*Run the script"):
        check_can_continue(completed, rank, 1, 5, False)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ((5, True), "optimizer slots of its own .*on the servers"),
        ((6, False), "must have the 5 values .*Received: one with 6"),
    ],
)
def test_what_cannot_be_continued_with_the_file_is_refused(
    tmp_path: Path, wanted: tuple[int, bool], words: str
) -> None:
    written(tmp_path, 1)
    with pytest.raises(Unsupported, match=words):
        check_can_continue(read_completed(str(tmp_path), 1), 1, 1, *wanted)


@pytest.mark.parametrize(("rank", "trained", "refuses"), [(0, True, True), (0, False, False), (1, True, False)])
def test_worker_0_does_not_lead_on_with_untrained_weights_after_a_call_that_an_error_has_ended(
    rank: int, trained: bool, refuses: bool
) -> None:
    """Its script may catch the error of the call; the next call must not begin with what it has then."""
    worker = ScriptWorker(SimpleNamespace(), pb.JobDescription(workers=2, mode="async"), rank, 1.0)  # type: ignore[arg-type]
    failure = pb.FitFailure(worker=1, error_type="builtins:ValueError", text="pruned")
    worker._session = SimpleNamespace(reply=pb.RegisterReply(failure=failure, epoch_begun=trained))  # type: ignore[assignment]
    worker.stages = 1
    with pytest.raises(Unsupported if refuses else ValueError, match="untrained ones" if refuses else "pruned"):
        worker._await_start(SimpleNamespace())  # type: ignore[arg-type]
    if refuses:
        with pytest.raises(Unsupported, match="after call 1 of fit"):
            worker.enter(SimpleNamespace())  # type: ignore[arg-type]


def test_a_worker_says_that_it_waits_for_a_shard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0.01)
    job = pb.JobDescription(workers=2, shards=2, mode="async")
    worker = ScriptWorker(SimpleNamespace(address="host:1"), job, 0, 1.0)  # type: ignore[arg-type]
    errors: list[str] = []

    def register() -> None:
        def is_written() -> bool:
            errors.append(capsys.readouterr().err)
            return "waiting for the 2 shards of the job at host:1 (" in "".join(errors)

        wait_until(is_written, "the worker says what it waits for")
        raise CallIsComplete

    worker.stages = 1
    with pytest.raises(CallIsComplete):
        worker._join(SimpleNamespace(register=register), SimpleNamespace())  # type: ignore[arg-type]
