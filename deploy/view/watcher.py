"""The launcher's line to the coordinator: what the job is doing, and the request to stop."""

from __future__ import annotations

import threading

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub

STOP_TIMEOUT_S = 1.0
RETRY_S = 0.2
OVER = ("ended", "failed")  # phases in which nothing more happens


class Watcher:
    """Follows a job in a thread of its own until closed."""

    def __init__(self, address: str, every_s: float = 0.25) -> None:
        """Begins to follow the job whose coordinator listens at `address`, every `every_s` seconds."""
        self.address = address
        self._channel = open_channel(address)
        self._coordinator = CoordinatorStub(self._channel)
        self._request = pb.WatchRequest(every_s=every_s)
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards _latest and _notes
        self._latest: pb.Progress | None = None
        self._notes: list[str] = []
        self._told: list[str] = []  # all notes so far, for a new stream begins with the first of them
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._thread.start()

    def take(self) -> tuple[pb.Progress | None, list[str]]:
        """The newest progress since the last call, if any, and the notes since then."""
        with self._lock:
            taken = (self._latest, self._notes)
            self._latest, self._notes = None, []
        return taken

    def stop(self, reason: str, now: bool) -> bool:
        """Asks the coordinator to drain the job, or to end it `now`; whether it answered in time."""
        try:
            self._coordinator.Stop(pb.StopRequest(now=now, reason=reason), timeout=STOP_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return True

    def close(self) -> None:
        """Ends the thread and closes the channel."""
        self._closed.set()
        self._channel.close()
        self._thread.join(timeout=5.0)

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                if self._follow_stream():
                    return
            except (grpc.RpcError, ValueError):  # gone, or not there yet; ValueError: the channel was closed
                pass
            self._closed.wait(RETRY_S)

    def _follow_stream(self) -> bool:
        """Follows one stream to its end; returns whether the job is over."""
        over, heard = False, 0
        for progress in self._coordinator.Watch(self._request):
            with self._lock:
                self._latest = progress
                for note in progress.notes:
                    if self._told[heard : heard + 1] != [note]:
                        self._told[heard:] = [note]
                        self._notes.append(note)
                    heard += 1
            over = progress.phase in OVER
        return over
