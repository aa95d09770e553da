"""A job is operated by those who know the dashboard's secret, from its own page, and only where it makes sense."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from downpour.deploy.dashboard import server, top
from downpour.deploy.dashboard.config import JobCommandSettings, Refused
from downpour.deploy.dashboard.controls import Controls, left_in_order
from downpour.deploy.dashboard.job import job
from downpour.deploy.dashboard.top_view import TopState
from downpour.protos import parameter_server_pb2 as pb
from tests.support.cluster import running, vector_layout, wait_until

Headers = dict[str, str]


def post(requests: list[tuple[Headers, bytes]], act: Any, token: str = "") -> list[tuple[int, dict[str, Any]]]:
    """Answers to requests; `{secret}` and `{origin}` in a header stand for those of the server."""

    async def go() -> list[tuple[int, dict[str, Any]]]:
        control = server.Control(act, token)
        runner, address = await server.start(server.application(lambda: b"", None, control), 0)
        origin = address.rstrip("/")
        answers = []
        try:
            async with aiohttp.ClientSession() as session:
                for headers, body in requests:
                    sent = {name: value.format(secret=control.secret, origin=origin) for name, value in headers.items()}
                    async with session.post(f"{address}control", headers=sent, data=body) as reply:
                        text = await reply.text()
                        answers.append((reply.status, json.loads(text) if text.startswith("{") else {}))
        finally:
            await runner.cleanup()
        return answers

    return asyncio.run(go())


GOOD = {"X-Downpour-Secret": "{secret}", "Origin": "{origin}", "Content-Type": "application/json"}


def without(name: str) -> Headers:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (GOOD, b'{"action": "x"}', 200),
        (without("X-Downpour-Secret"), b"{}", 403),
        (GOOD | {"X-Downpour-Secret": "guess"}, b"{}", 403),
        (GOOD | {"X-Downpour-Secret": ""}, b"{}", 403),
        (without("Origin"), b"{}", 403),
        (GOOD | {"Origin": "http://attacker.example"}, b"{}", 403),
        (GOOD | {"Origin": "null"}, b"{}", 403),
        (GOOD | {"Content-Type": "text/plain"}, b"{}", 403),
        (GOOD | {"Content-Type": "application/x-www-form-urlencoded"}, b"action=x", 403),
        (GOOD | {"Host": "attacker.example"}, b"{}", 421),
        (GOOD, b"no JSON", 400),
        (GOOD, b"[1]", 400),
        (GOOD, b'{"action": "' + b"x" * 10_000 + b'"}', 413),
    ],
)
def test_only_the_page_with_the_secret_acts(headers: Headers, body: bytes, status: int) -> None:
    acted = []

    async def act(request: Mapping[str, Any]) -> str:
        acted.append(request)
        return "what was done"

    ((found, answer),) = post([(headers, body)], act)
    assert found == status
    assert acted == ([{"action": "x"}] if status == 200 else [])
    assert answer == {"done": "what was done"} if status == 200 else "done" not in answer


def test_a_refusal_is_answered_with_its_reason() -> None:
    async def act(request: Mapping[str, Any]) -> str:
        raise Refused("it makes no sense now")

    assert post([(GOOD, b"{}")], act) == [(409, {"refused": "it makes no sense now"})]


def test_the_token_of_the_job_is_accepted_like_the_secret() -> None:
    async def act(request: Mapping[str, Any]) -> str:
        return "done"

    requests = [(GOOD | {"X-Downpour-Secret": shown}, b"{}") for shown in ("a token of the job", "another", "{secret}")]
    assert [status for status, _ in post(requests, act, "a token of the job")] == [200, 403, 200]
    assert [status for status, _ in post(requests, act)] == [403, 403, 200]


def test_every_dashboard_has_a_new_long_secret() -> None:
    async def act(request: Mapping[str, Any]) -> str:
        return ""

    drawn = {server.Control(act).secret for _ in range(20)}
    assert len(drawn) == 20 and min(map(len, drawn)) >= 32


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a worker's."""
    code = "import sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code, "downpour.worker"], stdin=subprocess.PIPE)
    command = Path(f"/proc/{child.pid}/cmdline")
    wait_until(lambda: b"downpour.worker" in command.read_bytes(), "the program has begun")
    yield child
    child.kill()
    child.communicate()


class OneWorker(Controls):
    """Controls of a job whose only worker has a given process."""

    def __init__(self, pid: int, host: str = socket.gethostname(), phase: str = "training") -> None:
        super().__init__("127.0.0.1:1")
        self.progress = pb.Progress(phase=phase, workers=[pb.WorkerProgress(worker=3, pid=pid, host=host)])

    async def _status(self) -> pb.Progress:
        return self.progress

    def do(self, **request: Any) -> str:
        return asyncio.run(self.act(request))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_worker_is_killed(process: subprocess.Popen[bytes]) -> None:
    assert "worker 3 was killed" in OneWorker(process.pid).do(action="kill", worker=3)
    assert process.wait(30) == -signal.SIGKILL


def test_a_worker_is_stopped_for_a_while(process: subprocess.Popen[bytes]) -> None:
    async def go() -> None:
        task = asyncio.create_task(OneWorker(process.pid).act({"action": "stall", "worker": 3, "seconds": 0.5}))
        while state_of(process.pid) != "T":
            assert not task.done()
            await asyncio.sleep(0.01)
        await task

    asyncio.run(go())
    wait_until(lambda: state_of(process.pid) != "T", "the worker continues")


def test_a_cancelled_stall_resumes_the_worker(process: subprocess.Popen[bytes]) -> None:
    async def go() -> None:
        task = asyncio.create_task(OneWorker(process.pid).act({"action": "stall", "worker": 3, "seconds": 60}))
        while state_of(process.pid) != "T":
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())
    wait_until(lambda: state_of(process.pid) != "T", "the worker continues")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_a_signal_ends_resumes_the_worker(
    process: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    async def go() -> None:
        task = asyncio.create_task(OneWorker(process.pid).act({"action": "stall", "worker": 3, "seconds": 60}))
        while state_of(process.pid) != "T":
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), number)
        await task

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, left_in_order():
        asyncio.run(go())
    assert ended.value.code == 128 + number and signal.getsignal(number) == before
    wait_until(lambda: state_of(process.pid) != "T", "the worker continues")


def test_top_that_is_left_during_a_stall_resumes_the_worker(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "Controls", lambda address: OneWorker(process.pid))
    follower = top.Follower(TopState(), "127.0.0.1:1", 0.5)
    try:
        follower.act({"action": "stall", "worker": 3, "seconds": 60})
        wait_until(lambda: state_of(process.pid) == "T", "the worker is stopped")
    finally:
        follower.close()
    wait_until(lambda: state_of(process.pid) != "T", "the worker continues")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (
            {"action": "destroy"},
            "action must be one of drain, pause, resume, set, checkpoint, add-worker, kill, stall, slow",
        ),
        ({}, "action must be one of"),
        ({"action": "kill"}, "must be the number of a worker that is in the job"),
        ({"action": "kill", "worker": 4}, "must be the number of a worker"),
        ({"action": "kill", "worker": "3"}, "must be the number of a worker"),
        ({"action": "kill", "worker": 3}, "it is another program"),
        ({"action": "stall", "worker": 3, "seconds": 0}, "seconds must be a number"),
        ({"action": "stall", "worker": 3, "seconds": 1e9}, "seconds must be a number"),
        ({"action": "stall", "worker": 3, "seconds": "1"}, "seconds must be a number"),
    ],
)
def test_an_invalid_action_is_refused(request_: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        OneWorker(os.getpid()).do(**request_)  # this process runs tests: no signal may reach it


def test_a_worker_on_another_machine_cannot_be_killed(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(Refused, match="must run on this machine"):
        OneWorker(process.pid, host="elsewhere.example").do(action="kill", worker=3)
    assert process.poll() is None


def test_a_job_that_is_over_is_not_drained() -> None:
    with pytest.raises(Refused, match="this one is ended"):
        OneWorker(1, phase="ended").do(action="drain")


def test_a_real_job_is_drained_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, workers=1) as cluster:
        cluster.train(vector_layout(4), 1)
        settings = JobCommandSettings(address=cluster.address, action="drain")
        assert job(settings) == 0
        assert "the job drains" in capsys.readouterr().out
        assert cluster.status().phase in ("draining", "finishing", "ended")
        assert job(settings) == 1
        assert "can be drained while it trains" in capsys.readouterr().err


def test_a_real_job_is_paused_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path, workers=1) as cluster:
        assert job(JobCommandSettings(address=cluster.address, action="pause")) == 1
        assert "while it trains; this one is waiting" in capsys.readouterr().err
        cluster.train(vector_layout(4), 1)
        for action, paused in (("pause", True), ("resume", False)):
            assert job(JobCommandSettings(address=cluster.address, action=action)) == 0
            assert cluster.status().paused is paused
        assert ["paused" in note for note in cluster.status().notes][-2:] == [True, False]


def test_an_unreachable_coordinator_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert job(JobCommandSettings(address="127.0.0.1:1", action="drain")) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err
