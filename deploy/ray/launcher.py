"""The launchers of a job on a Ray cluster: those of one machine, with processes on the nodes of the cluster."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from downpour.deploy.launch.launcher import Launcher
from downpour.deploy.launch.plan import ProcessSpec
from downpour.deploy.ray.remote_process import RayStarter, RemoteProcess
from downpour.deploy.scripts.script_launcher import ScriptLauncher
from downpour.deploy.view.terminal import Screen
from downpour.deploy.view.watcher import Watcher


class RayLauncher(Launcher):
    """A launcher that starts processes as actors, and informs the others if a server moves to another node."""

    def __init__(
        self, specs: Sequence[ProcessSpec], run_dir: Path, screen: Screen, drain_timeout_s: float, starter: RayStarter
    ) -> None:
        """Prepare to run processes; see `Launcher`.

        Args:
            specs: The processes, in the order in which they start.
            run_dir: The run directory, which the nodes of servers see as well.
            screen: The screen that shows the progress of the job.
            drain_timeout_s: The time from the request to end until the servers must have ended.
            starter: The starter of the processes, whose resources are reserved.
        """
        super().__init__(specs, run_dir, screen, drain_timeout_s)
        self._token = ""  # the job has credentials of its own, unless the user has asked for none
        self._starter = starter
        self._waiting: set[str] = set()  # workers of which it has been said that they wait for a node
        self._given_room: list[RemoteProcess] = []  # servers for which a worker has been ended

    def _spawn(self, spec: ProcessSpec) -> None:
        self._processes[spec.name] = self._starter.start(spec, self._addresses, self._run_dir / "logs")

    def _ended(self) -> bool:
        self._follow_moves()
        self._note_places()
        self._make_room()
        return super()._ended()

    def _follow_moves(self) -> None:
        """Start the processes again that were given the address of a server that has another one now."""
        for server in list(self._role("ps")):
            announcement = server.announcement() if server.code is None else None
            known = self._addresses.get(server.spec.name)
            if announcement is None or known is None or announcement["address"] == known:
                continue
            self._addresses[server.spec.name] = str(announcement["address"])
            self._screen.note(f"{server.spec.name} is at {announcement['address']} now")
            if self._watcher is not None and self._watcher.address == known:
                self._watcher.close()
                self._watcher = Watcher(str(announcement["address"]), starts_workers=True)
            for process in self._processes.values():
                if server.spec.name in process.spec.needs and process.code is None:
                    process.send(signal.SIGKILL)

    def _note_places(self) -> None:
        """Show which workers wait for a node."""
        for process in self._role("worker"):
            name = process.spec.name
            if not isinstance(process, RemoteProcess) or process.code is not None:
                continue
            if process.is_placed and name in self._waiting:
                self._waiting.discard(name)
                self._screen.note(f"{name} has a node now")
            elif not process.is_placed and process.waits_long and name not in self._waiting:
                self._waiting.add(name)
                self._screen.note(f"{name} waits for a node with free resources")

    def _make_room(self) -> None:
        """End a worker beyond the smallest number if the node of a server is lost and no other one has room for it."""
        for server in self._role("ps"):
            if not isinstance(server, RemoteProcess) or server.code is not None or server.is_placed:
                continue
            if server in self._given_room or not server.waits_long or not self._starter.lacks_room():
                continue
            names = [worker.spec.name for worker in self._role("worker") if worker.code is None]
            beyond = [name for name in names if name in self._starter.placed_beyond_base()]
            if beyond:
                self._given_room.append(server)
                self._screen.note(f"{beyond[-1]} ends, so that {server.spec.name} has a node")
                self._starter.give_up(beyond[-1:])

    def last_error(self) -> str:
        """Return the last lines of the processes that ended with an error."""
        failed = [process for process in self._processes.values() if process.code]
        return "\n".join(f"{process.spec.name}: {process.reason()}" for process in failed)


class RayScriptLauncher(RayLauncher, ScriptLauncher):
    """A launcher of a script on a Ray cluster."""

    def last_error(self) -> str:
        """Return the whole text of the last error of worker 0."""
        return ScriptLauncher.last_error(self)
