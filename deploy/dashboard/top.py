"""`downpour top ADDRESS|RUN_DIR`: shows a job in the terminal, and operates it with keys."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.live import Live

from downpour.deploy.dashboard.config import Refused, TopSettings
from downpour.deploy.dashboard.controls import STALL_S, Controls, left_in_order
from downpour.deploy.dashboard.recorded_run import NoRun, RecordedRun, load_run
from downpour.deploy.dashboard.top_view import KEPT, TopState, frame
from downpour.deploy.runs import address_of
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub
from downpour.protos.status_codes import error_of
from downpour.ps.trace.format import DTYPE

EXIT_USAGE = 2
SOURCE = "SOURCE must be HOST:PORT of a running job's coordinator, or"
CLOSE_S = 5.0  # for the threads to end
REDRAW_S = 0.1  # from a key to its effect on the screen, at most
RETRY_S = 0.5
OVER = ("ended", "failed")
ESCAPE = b"\x1b"
ARROWS = {b"A": "up", b"B": "down"}
CONFIRMED = {"k": "kill", "d": "drain"}  # keys that are pressed twice


def top(settings: TopSettings) -> int:
    """Show the job until `q` is pressed, or once if the output is no terminal; return the exit status."""
    folder, address = Path(settings.source), None
    with suppress(LookupError):
        address = address_of(settings.source)
    try:
        if address is None:
            with left_in_order():
                return _show(_recorded(load_run(folder, SOURCE)), None)
    except NoRun as error:
        print(f"downpour top: {error}", file=sys.stderr)
        return EXIT_USAGE
    state = TopState()
    follower = Follower(state, address, settings.every_s)
    try:
        with left_in_order():
            return _show(state, follower)
    finally:
        follower.close()


class Follower:
    """Follows a job in a thread, and operates it for the keys.

    Attributes:
        changed: An event that is set whenever there is something new to draw.
        over: Whether the job has ended.
        unreachable: Why the coordinator does not answer; empty if it does.
    """

    def __init__(self, state: TopState, address: str, every_s: float) -> None:
        """Start to follow the job whose coordinator listens at `address`, with an update every `every_s` seconds."""
        self._state, self._address, self._every_s = state, address, every_s
        self._channel = open_channel(address)
        self.changed, self._closed, self.over, self.unreachable = threading.Event(), threading.Event(), False, ""
        self._acting: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._closed.is_set() and not self.over:
            try:
                request = pb.WatchRequest(every_s=self._every_s, records=True)
                for progress in CoordinatorStub(self._channel).Watch(request):
                    self._take(progress)
            except grpc.RpcError as failure:
                if not self._closed.is_set():
                    self.unreachable = str(error_of(failure, self._address))
                    self._state.answer(self.unreachable)
            except ValueError:  # the channel has been closed
                return
            self.changed.set()
            self._closed.wait(RETRY_S)

    def _take(self, progress: pb.Progress) -> None:
        if self.unreachable:
            self.unreachable = ""
            self._state.answer("")
        mine = b"".join(part.records for part in progress.records if part.shard == 0)
        progress.ClearField("records")
        self._state.take(progress, np.frombuffer(mine, DTYPE))
        self.over = progress.phase in OVER
        self.changed.set()

    def act(self, request: Mapping[str, Any]) -> None:
        """Carry out an action in a thread of its own, and show its answer."""

        def run() -> None:
            try:
                self._state.answer(asyncio.run(self._until_closed(request)))
            except Refused as refusal:
                self._state.answer(f"refused: {refusal}")
            self.changed.set()

        self._state.answer(f"{request['action']} …")
        self._acting = [thread for thread in self._acting if thread.is_alive()]
        self._acting.append(threading.Thread(target=run, name="act", daemon=True))
        self._acting[-1].start()

    async def _until_closed(self, request: Mapping[str, Any]) -> str:
        """Carry out an action; `close` ends it early, and a worker that it has stopped continues."""
        action = asyncio.create_task(Controls(self._address).act(request))
        while not action.done() and not self._closed.is_set():
            await asyncio.wait({action}, timeout=REDRAW_S)
        if action.done():
            return action.result()
        action.cancel()
        await asyncio.wait({action})
        return f"{request['action']}: ended early"

    def close(self) -> None:
        """End the threads and close the channel."""
        self._closed.set()
        self._channel.close()
        for thread in (self._thread, *self._acting):
            thread.join(timeout=CLOSE_S)


def request_for(key: str, state: TopState) -> dict[str, Any] | None:
    """Return the action that a key stands for; None if it stands for none."""
    paused = state.progress is not None and state.progress.paused
    of_worker: dict[str, dict[str, Any]] = {"k": {"action": "kill"}, "s": {"action": "stall", "seconds": STALL_S}}
    of_worker["l"] = {"action": "slow", "seconds": 10.0, "factor": 3.0}
    of_job = {"d": "drain", "c": "checkpoint", "a": "add-worker", "p": "resume" if paused else "pause"}
    if key in of_worker:
        return of_worker[key] | {"worker": state.chosen}
    return {"action": of_job[key]} if key in of_job else None


def _show(state: TopState, follower: Follower | None) -> int:
    console = Console()
    if not (console.is_terminal and sys.stdin.isatty()):
        if follower is not None:
            while state.progress is None and not follower.unreachable:
                follower.changed.wait()
                follower.changed.clear()
            if state.progress is None:
                print(f"downpour top: {follower.unreachable}", file=sys.stderr)
                advice = "SOURCE must be the address that server 0 of a running job announced, or a run"
                print(f"downpour top: {advice}", file=sys.stderr)
                return 1
        console.print(frame(state, console.width, 10_000))
        return 0
    with Live(console=console, screen=True, auto_refresh=False) as live, _keys() as descriptor:
        waiting: tuple[str, int | None] = (
            "",
            None,
        )  # the key that must be pressed again, and for which worker
        while True:
            live.update(frame(state, console.width, console.height), refresh=True)
            key = _key(descriptor)
            if key in ("q", "\x03"):
                return 0
            if key in ("up", "down"):
                state.choose(1 if key == "down" else -1)
            elif follower is not None and not follower.over and (request := request_for(key, state)) is not None:
                asked = (key, state.chosen if key == "k" else None)
                if key in CONFIRMED and waiting != asked:
                    what = f"worker {state.chosen}" if key == "k" else "the job"
                    waiting = asked
                    state.answer(f"{CONFIRMED[key]} {what}? Press {key} again")
                else:
                    waiting = ("", None)
                    follower.act(request)
            elif key:
                waiting = ("", None)


@contextmanager
def _keys() -> Iterator[int]:
    """Read keys without waiting for the end of a line; yield the descriptor to read from."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(descriptor: int) -> str:
    """Return the next key, or an empty text if none is pressed for `REDRAW_S`."""
    ready, _, _ = select.select([descriptor], [], [], REDRAW_S)
    if not ready:
        return ""
    typed = os.read(descriptor, 1)
    if typed == ESCAPE and select.select([descriptor], [], [], 0)[0]:
        typed = os.read(descriptor, 2)[1:]  # `[A` or `OA`
        return ARROWS.get(typed, "")
    return typed.decode(errors="replace")


def _recorded(run: RecordedRun) -> TopState:
    """Return the state of a finished run, from its summary and its trace in equal intervals of time."""
    trace, summary = np.asarray(run.traces[0]), run.summary
    progress = pb.Progress(
        run=run.name, phase=str(summary.get("status", "not ended")), model=str(run.settings.get("model", "")),
        dataset=str(run.settings.get("dataset", "")), mode=str(run.settings.get("mode", "")),
        optimizer=str(run.settings.get("optimizer", "")), samples_per_s=float(summary.get("samples_per_s") or 0.0),
        loss=float(summary.get("train_loss") or 0.0), version=int(summary.get("updates") or 0),
        dropped=int(summary.get("dropped") or 0),
    )  # fmt: skip
    if (accuracy := summary.get("val_accuracy")) is not None:
        progress.val_accuracy = accuracy
    state = TopState(progress, live=False)
    begin, end = (trace["time_s"][0], trace["time_s"][-1]) if len(trace) else (0.0, 0.0)
    bins = np.minimum(KEPT - 1, ((trace["time_s"] - begin) / max(1e-9, end - begin) * KEPT).astype(int))
    width_s = max(1e-9, (end - begin) / KEPT)
    applied = trace["outcome"] == 0
    state.throughput.extend((np.bincount(bins, trace["samples"], KEPT) / width_s).tolist())
    with np.errstate(all="ignore"):
        state.loss.extend((np.bincount(bins, trace["loss"], KEPT) / np.bincount(bins, minlength=KEPT)).tolist())
    for worker in np.unique(trace["worker"]).tolist():
        mine = applied & (trace["worker"] == worker)
        with np.errstate(all="ignore"):
            means = np.bincount(bins[mine], trace["staleness"][mine], KEPT) / np.bincount(bins[mine], minlength=KEPT)
        state.staleness[worker] = state.staleness.get(worker) or type(state.loss)(means.tolist(), KEPT)
        progress.workers.append(_worker_of(trace[trace["worker"] == worker], worker, end - begin))
    state.notes.extend(str(note) for note in summary.get("notes", []))
    return state


def _worker_of(records: np.ndarray, worker: int, seconds: float) -> pb.WorkerProgress:
    applied = records[records["outcome"] == 0]
    return pb.WorkerProgress(
        worker=worker, state="left", updates=len(applied), dropped=int((records["outcome"] == 2).sum()),
        samples_per_s=float(records["samples"].sum()) / seconds if seconds else 0.0,
        loss=float(records["loss"][-1]) if len(records) else 0.0,
        staleness_mean=float(applied["staleness"].mean()) if len(applied) else 0.0,
    )  # fmt: skip
