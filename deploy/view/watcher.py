"""The launcher's client of the coordinator: follows the progress of the job and sends the request to stop."""

from __future__ import annotations

import threading
from contextlib import suppress

import grpc

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.channel import open_channel
from downpour.protos.parameter_server_pb2_grpc import CoordinatorStub

STOP_TIMEOUT_S = 1.0
RETRY_S = 0.2
OVER = ("ended", "failed")  # the final phases
ENDING = ("draining", "finishing", *OVER)  # the phases in which processes may leave the job


class Watcher:
    """Follows the progress of a job in its own thread until it is closed."""

    def __init__(self, address: str, every_s: float = 0.25, starts_workers: bool = False) -> None:
        """Start to follow a job.

        Args:
            address: `HOST:PORT` of the coordinator.
            every_s: The seconds between two updates.
            starts_workers: Whether the caller starts as many workers as the job wants.
        """
        self.address = address
        self._channel = open_channel(address)
        self._coordinator = CoordinatorStub(self._channel)
        self._request = pb.WatchRequest(every_s=every_s, launcher=starts_workers)
        self._phase, self._workers, self._wanted, self._messages = "", 0, 0, 0
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards _latest and _notes
        self._latest: pb.Progress | None = None
        self._notes: list[str] = []
        self._received: list[str] = []  # all notes so far, because a new stream starts with the first of them
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._thread.start()

    def take(self) -> tuple[pb.Progress | None, list[str]]:
        """Return the latest progress since the previous call, or None, and the new notes since then."""
        with self._lock:
            result = (self._latest, self._notes)
            self._latest, self._notes = None, []
        return result

    @property
    def phase(self) -> str:
        """The phase of the job in the newest message of the coordinator; empty before the first."""
        return self._phase

    @property
    def workers(self) -> int:
        """The number of workers that have a session, in the newest message of the coordinator."""
        return self._workers

    @property
    def wanted(self) -> int:
        """The number of workers that the job wants, in the newest message of the coordinator."""
        return self._wanted

    @property
    def messages(self) -> int:
        """The number of messages of the coordinator so far, by which a caller knows that one is newer than an event."""
        return self._messages

    def stop(self, reason: str, now: bool, complete: bool = False) -> bool:
        """Request that the job drains, or ends `now`; return whether the coordinator answered in time.

        Args:
            reason: The reason, for the notes of the job.
            now: Whether the job ends without a result.
            complete: Whether the script has ended by itself, so that nothing is interrupted.
        """
        try:
            request = pb.StopRequest(now=now, reason=reason, complete=complete)
            self._coordinator.Stop(request, timeout=STOP_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return True

    def close(self) -> None:
        """End the thread and close the channel."""
        self._closed.set()
        self._channel.close()
        self._thread.join(timeout=5.0)

    def _follow(self) -> None:
        while not self._closed.is_set():
            # The server may be restarting, so the stream is opened again; ValueError: `close` has closed the channel.
            with suppress(grpc.RpcError, ValueError):
                if self._follow_stream():
                    return
            self._closed.wait(RETRY_S)

    def _follow_stream(self) -> bool:
        """Follow one stream to its end and return whether the job has ended."""
        over, count = False, 0
        for progress in self._coordinator.Watch(self._request):
            with self._lock:
                self._latest, self._phase, self._workers = progress, progress.phase, len(progress.workers)
                self._wanted, self._messages = progress.workers_wanted, self._messages + 1
                for note in progress.notes:
                    if self._received[count : count + 1] != [note]:
                        self._received[count:] = [note]
                        self._notes.append(note)
                    count += 1
            over = progress.phase in OVER
        return over
