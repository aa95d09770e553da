"""The launcher over processes that only pretend to train (fake_cluster.py)."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from tests.support.cluster import wait_until
from tests.support.processes.fake_launch import Launched

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    launched: list[Launched] = []

    def start(*flags: str) -> Launched:
        launched.append(Launched(tmp_path / f"run-{len(launched)}", *flags))
        return launched[-1]

    yield start
    for one in launched:
        if one.process.poll() is None:
            one.process.kill()
        one.code()
        assert one.process.stdout is not None
        one.process.stdout.close()
        wait_until(lambda one=one: not one.processes(), "no process is left")  # type: ignore[misc]


def test_a_job_ends_with_all_its_processes_and_a_table(launch: Callable[..., Launched]) -> None:
    job = launch("--leases=50")
    assert job.code() == 0, job.output
    assert job.processes() == {}
    assert "test accuracy        0.9612" in job.output
    assert f"run                  {job.run_dir}" in job.output
    watch = re.search(r"^follow it with: downpour status (\S+) --watch$", job.output, re.M)
    assert f"the run is in {job.run_dir}" in job.output and watch is not None
    assert f"or in a browser: downpour dashboard {watch[1]}" in job.lines
    assert {path.name for path in (job.run_dir / "logs").iterdir()} == {
        "ps-0.log",
        "worker-0.log",
        "worker-1.log",
    }


def test_a_worker_that_is_added_is_started_and_supervised_like_the_others(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    address = re.search(r"downpour status (\S+)", job.output)
    assert address is not None
    with open_channel(address[1]) as channel:
        CoordinatorStub(channel).AddWorker(pb.AddWorkerRequest(request="one"), timeout=30)
    job.until("worker-2 is added")
    wait_until(lambda: len(job.processes()) == 4, "a server and three workers run")
    os.kill(job.number_of("worker-2"), signal.SIGKILL)
    job.until("worker-2 was killed by SIGKILL; restarted (1 of 2)")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 0, job.output


def test_a_worker_that_dies_is_started_again(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    wait_until(lambda: len(job.processes()) == 3, "a server and two workers run")
    os.kill(job.number_of("worker-1"), signal.SIGKILL)
    job.until("worker-1 was killed by SIGKILL; restarted (1 of 2)")
    wait_until(lambda: len(job.processes()) == 3, "a server and two workers run")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 0, job.output


def test_a_shard_that_ends_with_status_0_while_the_job_goes_on_is_started_again(
    launch: Callable[..., Launched],
) -> None:
    """A shard that receives SIGTERM before the coordinator has admitted it has nothing to drain, and ends well."""
    job = launch("--shard-leaves=1")
    job.until("ps-1 exited with status 0; restarted (1 of 2)")
    wait_until(lambda: len(job.processes()) == 4, "two servers and two workers run")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 0, job.output


def test_a_worker_is_abandoned_after_its_restarts_and_the_others_continue(
    launch: Callable[..., Launched],
) -> None:
    job = launch("--worker-dies=9")
    job.until("worker-1 was killed by SIGKILL; restarted (2 of 2)")
    job.until("worker-1 was killed by SIGKILL, after 2 restarts")
    job.process.send_signal(signal.SIGINT)
    assert job.code() == 0, job.output


@pytest.mark.parametrize("lost", ["removed", "a file"])
def test_a_worker_that_dies_is_restarted_without_the_folder_of_logs(launch: Callable[..., Launched], lost: str) -> None:
    job = launch()
    job.until("epoch 1/10")
    wait_until(lambda: len(job.processes()) == 3, "a server and two workers run")
    shutil.rmtree(job.run_dir / "logs")
    if lost == "a file":
        (job.run_dir / "logs").write_text("")
    os.kill(job.number_of("worker-1"), signal.SIGKILL)
    job.until("worker-1 was killed by SIGKILL; restarted (1 of 2)")
    if lost == "a file":
        job.until("worker-1 has no log")
    wait_until(lambda: len(job.processes()) == 3, "a server and two workers run")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 0, job.output
    assert "Traceback" not in job.output


def test_workers_with_exit_status_3_are_not_restarted_and_give_the_reason(launch: Callable[..., Launched]) -> None:
    job = launch("--worker-exit=3")
    assert job.code() == 1
    assert "restarted" not in job.output
    assert re.search("worker-[01] stopped: gradients are not finite: lower --learning-rate", job.output)
    assert "the job failed: no worker is left" in job.output
    assert "  something else was printed after it" in job.lines and "cuda_platform" not in job.output
    assert "test accuracy" not in job.output


def test_a_worker_that_fails_before_its_first_step_is_not_restarted(launch: Callable[..., Launched]) -> None:
    """Its error would come again; all workers usually have the same, which is shown once."""
    job = launch("--worker-exit=1")
    assert job.code() == 1
    assert "restarted" not in job.output
    assert "exited with status 1 before its first step: gradients are not finite" in job.output
    assert job.output.count("before its first step") == 1
    assert "worker-1 stopped for the same reason" in job.output or "worker-0 stopped for the same" in job.output


def test_a_server_that_dies_fails_the_job(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    os.kill(job.number_of("ps-0"), signal.SIGKILL)
    assert job.code() == 1
    assert "the job failed: ps-0 was killed by SIGKILL" in job.output
    assert job.processes() == {}


def test_a_server_that_does_not_start_is_quoted(launch: Callable[..., Launched]) -> None:
    job = launch("--server-exit=4")
    assert job.code() == 1
    assert "ps-0 exited with status 4 before it announced its address" in job.output
    assert "  the server has a defect" in job.lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_drains(launch: Callable[..., Launched], number: signal.Signals) -> None:
    job = launch()
    job.until("epoch 1/10")
    job.process.send_signal(number)
    assert job.code() == 0, job.output
    assert job.processes() == {}
    assert (job.run_dir / "summary.json").is_file()
    if number != signal.SIGHUP:  # whose terminal is closed
        assert f"drained: the trained model is in {job.run_dir}" in job.output


def test_workers_that_have_not_begun_end_with_the_job(launch: Callable[..., Launched]) -> None:
    """They would look for the server that has ended, and say so."""
    job = launch("--worker-waits=1")
    job.until("waiting for workers")
    job.process.send_signal(signal.SIGINT)
    assert job.code() == 0, job.output
    assert "the job ended before its first update" in job.output


def test_a_second_signal_stops_at_once(launch: Callable[..., Launched]) -> None:
    job = launch("--ignores-stop=1")
    job.until("epoch 1/10")
    job.process.send_signal(signal.SIGINT)
    job.until("draining")
    job.process.send_signal(signal.SIGINT)
    assert job.code() == 130, job.output
    assert job.processes() == {}


def test_a_job_that_does_not_drain_is_ended_and_fails(launch: Callable[..., Launched]) -> None:
    job = launch("--ignores-stop=1")
    job.until("epoch 1/10")
    job.process.send_signal(signal.SIGTERM)
    assert job.code() == 1
    assert "the job did not end within" in job.output
    assert job.processes() == {}


def test_nothing_is_left_when_the_launcher_is_killed(launch: Callable[..., Launched]) -> None:
    job = launch()
    job.until("epoch 1/10")
    wait_until(lambda: len(job.processes()) == 3, "a server and two workers run")
    job.process.kill()
    assert job.code() == -signal.SIGKILL
    wait_until(lambda: job.processes() == {}, "no process is left")
