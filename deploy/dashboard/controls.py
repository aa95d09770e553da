"""Actions on a running job: pause or drain it, change its settings, or kill, stall or slow down one of its workers.

What concerns the job is a request to the coordinator. A worker is killed, stalled or slowed down with signals, which
are limited to workers of this machine and of this user. No further record is required: the trace and the call log
contain which workers left and joined, what was pushed and which settings changed, and a replay repeats it.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from downpour.deploy.dashboard.config import Refused
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import call_metadata, open_aio_channel
from downpour.protos.errors import from_proto, str_or_sentence
from downpour.protos.logs import reason_of
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.sentences.sentence import OPERATOR_REQUESTED, sentence
from downpour.protos.status_codes import error_of, sentence_of

TIMEOUT_S = 5.0
STALL_S = 3.0
LONGEST_STALL_S = 60.0
LARGEST_FACTOR = 20.0
MARK = b"downpour.worker"  # in the command line of a worker's process
SLICE_S = 0.04  # a worker that is slowed down runs for this long at a time
SETTINGS = ("mode", "compensation", "lr")  # that `set` changes
OF_A_WORKER = ("kill", "stall", "slow")
CHANGE_TIMEOUT_S = 30.0  # of a change or a checkpoint, which returns once it is made
NO_MORE_WORK = ("draining", "finishing", "ended", "failed")


class Controls:
    """Carries out actions on the job of one coordinator."""

    def __init__(self, address: str) -> None:
        """Create the controls of the job whose coordinator listens at `address`."""
        self._address = address
        self._actions: dict[str, Callable[[Mapping[str, Any]], Awaitable[str]]] = {
            "drain": self._drain,
            "pause": self._pause,
            "resume": self._pause,
            "set": self._set,
            "checkpoint": self._checkpoint,
            "add-worker": self._add_worker,
            "kill": self._kill,
            "stall": self._stall,
            "slow": self._slow,
        }

    async def act(self, request: Mapping[str, Any]) -> str:
        """Execute the action `{action, …}` and return a description of its effect.

        `kill`, `stall` and `slow` need `worker`; `stall` and `slow` may give `seconds`, `slow` also `factor`; `set`
        needs one or more of `mode`, `compensation` and `lr`.

        Raises:
            Refused: The action is unknown or not possible, or the coordinator does not answer.
        """
        action = self._actions.get(str(request.get("action")))
        if action is None:
            received = repr(request.get("action"))
            raise Refused(sentence("unknown_action", actions=", ".join(self._actions), received=received))
        try:
            return await action(request)
        except grpc.aio.AioRpcError as failure:
            raise Refused(sentence_of(failure) or reason_of_call(failure, self._address)) from failure

    async def _drain(self, request: Mapping[str, Any]) -> str:
        progress = await self._status()
        if progress.phase in NO_MORE_WORK:
            raise Refused(sentence("drain_needs_training", phase=sentence(f"phase_{progress.phase}")))
        async with open_aio_channel(self._address) as channel:
            stop = pb.StopRequest(reason=OPERATOR_REQUESTED)
            await CoordinatorStub(channel).Stop(stop, timeout=TIMEOUT_S, metadata=call_metadata(self._address))
        return sentence("drains")

    async def _pause(self, request: Mapping[str, Any]) -> str:
        paused = request["action"] == "pause"
        async with open_aio_channel(self._address) as channel:
            pause = pb.PauseRequest(paused=paused)
            await CoordinatorStub(channel).Pause(pause, timeout=TIMEOUT_S, metadata=call_metadata(self._address))
        return sentence("pauses" if paused else "resumes")

    async def _set(self, request: Mapping[str, Any]) -> str:
        wanted = pb.ChangeRequest()
        if "mode" in request:
            wanted.mode = _text(request, "mode")
        if "compensation" in request:
            wanted.staleness_policy = _text(request, "compensation")
        if "lr" in request:
            wanted.learning_rate = _positive(request, "lr")
        if not wanted.ListFields():
            raise Refused(sentence("set_empty", settings=", ".join(f"{name}=VALUE" for name in SETTINGS)))
        async with open_aio_channel(self._address) as channel:
            call = CoordinatorStub(channel).Change(
                wanted, timeout=CHANGE_TIMEOUT_S, metadata=call_metadata(self._address)
            )
            reply: pb.ChangeReply = await call
        change = from_proto(reply.sentence) if reply.HasField("sentence") else reply.text
        return (
            sentence("made_change", version=reply.version, change=change) if reply.number else str_or_sentence(change)
        )

    async def _checkpoint(self, request: Mapping[str, Any]) -> str:
        async with open_aio_channel(self._address) as channel:
            stub = CoordinatorStub(channel)
            call = stub.TakeCheckpoint(
                pb.CheckpointRequest(), timeout=CHANGE_TIMEOUT_S, metadata=call_metadata(self._address)
            )
            reply: pb.CheckpointReply = await call
        return sentence("made_checkpoint", number=str(reply.number), version=reply.version)

    async def _add_worker(self, request: Mapping[str, Any]) -> str:
        given = request.get("request")
        identifier = given if isinstance(given, str) and given else secrets.token_hex(8)
        async with open_aio_channel(self._address) as channel:
            wanted = pb.AddWorkerRequest(request=identifier)
            call = CoordinatorStub(channel).AddWorker(wanted, timeout=TIMEOUT_S, metadata=call_metadata(self._address))
            reply: pb.AddWorkerReply = await call
        return sentence("starts_worker", workers=str(reply.workers))

    async def _kill(self, request: Mapping[str, Any]) -> str:
        worker = await self._worker(request)
        _signal(worker, signal.SIGKILL)
        return sentence("killed", worker=str(worker.worker), pid=str(worker.pid))

    async def _stall(self, request: Mapping[str, Any]) -> str:
        seconds = _seconds(request)
        worker = await self._worker(request)
        _signal(worker, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(worker, signal.SIGCONT)
        return sentence("stalled", worker=str(worker.worker), seconds=f"{seconds:g}")

    async def _slow(self, request: Mapping[str, Any]) -> str:
        seconds, factor = _seconds(request), request.get("factor", STALL_S)
        if not isinstance(factor, int | float) or not 1 < factor <= LARGEST_FACTOR:
            raise Refused(_out_of_range("factor", 1, LARGEST_FACTOR, factor))
        worker = await self._worker(request)
        end_s = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end_s:
            _signal(worker, signal.SIGSTOP)
            try:
                await asyncio.sleep(SLICE_S * (factor - 1))
            finally:
                _signal(worker, signal.SIGCONT)
            await asyncio.sleep(SLICE_S)
        return sentence("slowed", worker=str(worker.worker), factor=f"{factor:g}", seconds=f"{seconds:g}")

    async def _status(self) -> pb.Progress:
        async with open_aio_channel(self._address) as channel:
            request = CoordinatorStub(channel).Status(
                pb.StatusRequest(), timeout=TIMEOUT_S, metadata=call_metadata(self._address)
            )
            progress: pb.Progress = await request
            return progress

    async def _worker(self, request: Mapping[str, Any]) -> pb.WorkerProgress:
        """Return the worker that a request names.

        Raises:
            Refused: The job has no such worker now, or the worker runs on another machine.
        """
        number = request.get("worker")
        found = [worker for worker in (await self._status()).workers if worker.worker == number]
        if type(number) is not int or not found:
            raise Refused(sentence("no_such_worker", received=repr(number)))
        (worker,) = found
        if worker.host != socket.gethostname():
            raise Refused(sentence("other_machine", here=socket.gethostname(), there=worker.host))
        return worker


@contextmanager
def left_in_order() -> Iterator[None]:
    """Leave the block with SystemExit at SIGTERM and SIGHUP, so that a worker that it has stopped continues."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, frame: sys.exit(128 + number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def reason_of_call(failure: grpc.RpcError, address: str) -> str:
    """Return why a call has failed, as a sentence where the error is one."""
    error = error_of(failure, address)
    return str_or_sentence(error.args[0])


def _out_of_range(name: str, above: float, most: float, received: object) -> str:
    return sentence("not_in_range", name=name, above=f"{above:g}", most=f"{most:g}", received=repr(received))


def _seconds(request: Mapping[str, Any]) -> float:
    seconds = request.get("seconds", STALL_S)
    if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_STALL_S:
        raise Refused(_out_of_range("seconds", 0, LONGEST_STALL_S, seconds))
    return float(seconds)


def _text(request: Mapping[str, Any], name: str) -> str:
    if not isinstance(request[name], str):
        raise Refused(sentence("not_a_text", name=name, received=repr(request[name])))
    return str(request[name])


def _positive(request: Mapping[str, Any], name: str) -> float:
    given = request[name]
    try:
        value = float(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise Refused(sentence("not_positive", name=name, received=repr(given)))
    return value


def _signal(worker: pb.WorkerProgress, number: signal.Signals) -> None:
    """Send a signal to a worker's process, but not to another process that has received its id since.

    Raises:
        Refused: There is no such process, it is not a worker, or it belongs to another user.
    """
    try:
        command = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
        if MARK not in command:
            raise Refused(sentence("other_program", pid=str(worker.pid), worker=str(worker.worker)))
        os.kill(worker.pid, number)
    except OSError as error:
        values = {"worker": str(worker.worker), "pid": str(worker.pid), "reason": reason_of(error)}
        raise Refused(sentence("other_user", **values)) from error
