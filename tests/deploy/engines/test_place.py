"""The place of a task in its job, from the variables of each engine, and the part of the plan that runs there."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.deploy.config import TrainSettings
from downpour.deploy.engines.place import BadPlace, EnginePlace, detected, kubernetes, slurm
from downpour.deploy.engines.task_plan import task_plan
from downpour.deploy.launch.plan import TooFewGpus, plan
from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.scripts.script_settings import RunSettings

pytestmark = pytest.mark.usefixtures("clean_environment")

IN_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "5", "SLURM_NNODES": "3", "SLURM_LOCALID": "0"}
SKY = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_TASK_ID": "sky-1"}
DSTACK = {"DSTACK_NODES_NUM": "2", "DSTACK_MASTER_NODE_IP": "fd00::1", "DSTACK_RUN_NAME": "one"}


def tasks(size: int, nodes: int = 1) -> list[EnginePlace]:
    return [EnginePlace("test", rank, size, "job", "", nodes=nodes) for rank in range(size)]


def nodes(size: int) -> list[EnginePlace]:
    return [EnginePlace("test", rank, size, "job", "", nodes=size, first="a:7171") for rank in range(size)]


@given(size=st.integers(2, 20), shards=st.integers(1, 6), of_nodes=st.booleans(), script=st.booleans())
def test_every_process_of_the_plan_runs_at_exactly_one_place(
    size: int, shards: int, of_nodes: bool, script: bool
) -> None:
    places = nodes(size) if of_nodes else tasks(size)
    try:
        workers = places[0].workers(shards)
    except BadPlace:
        assert not of_nodes and size <= shards
        return
    if script:
        job = script_plan(RunSettings(workers=workers, shards=shards), "run", ["train.py"])
    else:
        job = plan(TrainSettings(workers=workers, shards=shards), "run")
    here = [task_plan(place, job, shards, (), None) for place in places]
    assert Counter(spec.name for specs in here for spec in specs) == Counter(spec.name for spec in job)
    assert here[0][0].name == "ps-0", "the first task runs the coordinator"
    ends = [spec.name for specs in here for spec in specs if "--end-job" in spec.args]
    assert ends == (["worker-0"] if script else [])


def test_servers_listen_beyond_loopback_only_if_there_are_several_nodes() -> None:
    job = plan(TrainSettings(workers=1, shards=2), "run")

    def bound(place: EnginePlace) -> list[str]:
        return [arg for spec in task_plan(place, job, 2, (), None) for arg in spec.args if arg.startswith("--bind")]

    assert bound(tasks(3)[0]) == ["--bind=127.0.0.1:0"]
    assert bound(tasks(3, nodes=2)[1]) == ["--bind=0.0.0.0:0"]
    assert bound(nodes(1)[0]) == ["--bind=0.0.0.0:7171", "--bind=0.0.0.0:0"]


@given(per_node=st.integers(1, 8), count=st.integers(1, 4), shards=st.integers(1, 3))
def test_the_workers_of_a_node_are_numbered_without_gaps(per_node: int, count: int, shards: int) -> None:
    for node in range(count):
        ranks = range(node * per_node, (node + 1) * per_node)
        found = [
            EnginePlace("test", rank, per_node * count, "job", "", local_rank=rank - ranks[0]).local_worker(shards)
            for rank in ranks
            if rank >= shards
        ]
        assert found == list(range(len(found)))


def test_a_task_gives_its_worker_a_gpu_of_the_node() -> None:
    job = plan(TrainSettings(workers=2), "run")
    places = [EnginePlace("test", rank, 3, "job", "", local_rank=rank) for rank in range(3)]
    seen = [task_plan(place, job, 1, ["4", "5"], 1)[0].env["CUDA_VISIBLE_DEVICES"] for place in places]
    assert seen == ["", "4", "5"]
    with pytest.raises(TooFewGpus):
        task_plan(places[2], job, 1, ["4"], 1)


def test_slurm() -> None:
    place = slurm({**IN_STEP, "SLURM_PROCID": "3", "SLURM_RESTART_COUNT": "2"})
    assert (place.rank, place.size, place.job, place.nodes, place.attempt) == (3, 5, "slurm-7.0", 3, 2)
    assert place.workers(2) == 3 and place.processes(2) == ("worker-1",)
    with pytest.raises(BadPlace, match="--ntasks"):
        place.workers(5)


@pytest.mark.parametrize("lacking", ["SLURM_STEP_ID", "SLURM_PROCID"])
def test_a_process_that_srun_has_not_started_is_refused(lacking: str) -> None:
    variables = {name: value for name, value in {**IN_STEP, "SLURM_PROCID": "0"}.items() if name != lacking}
    with pytest.raises(BadPlace, match="srun downpour slurm"):
        slurm(variables)
    with pytest.raises(BadPlace, match="srun downpour slurm"):
        slurm({})


def test_the_engine_is_found_by_its_variables() -> None:
    def found(**environ: str) -> tuple[str, int, str] | None:
        place = detected(environ, lambda: "train-1.train.default.svc.cluster.local")
        return None if place is None else (place.engine, place.rank, place.first)

    assert found() is None
    assert found(**IN_STEP, SLURM_PROCID="1") == ("Slurm", 1, "")
    assert found(**SKY, SKYPILOT_NODE_RANK="1") == ("SkyPilot", 1, "10.0.0.1:7171")
    assert found(**DSTACK, DSTACK_NODE_RANK="1") == ("dstack", 1, "[fd00::1]:7171")
    first = "train-0.train.default.svc.cluster.local:7171"
    assert found(JOB_COMPLETION_INDEX="1") == ("Kubernetes", 1, first)
    # SkyPilot and dstack may themselves run on Slurm or Kubernetes: the innermost engine places the process.
    assert found(**IN_STEP, **SKY, SKYPILOT_NODE_RANK="0") == ("SkyPilot", 0, "10.0.0.1:7171")


@pytest.mark.parametrize("host", ["train-1", "other", "train-2.train.default.svc"])
def test_a_pod_that_cannot_name_the_first_is_refused(host: str) -> None:
    with pytest.raises(BadPlace, match="headless Service"):
        kubernetes({"JOB_COMPLETION_INDEX": "1"}, host)


@pytest.mark.parametrize("wrong", [{"SKYPILOT_NODE_RANK": "x"}, {"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "a"}])
def test_incomplete_variables_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(BadPlace):
        detected({**SKY, **wrong}, str)
    with pytest.raises(BadPlace):
        detected({"DSTACK_NODE_RANK": "0", "DSTACK_NODES_NUM": "2"}, str)
