"""A simulated user who operates a job: requests a checkpoint, a pause of training, or a change of the settings."""

from __future__ import annotations

from downpour.bench.world.faults import Fault
from downpour.bench.world.system.machine import Machine
from downpour.bench.world.system.process import VirtualProcess
from downpour.bench.world.system.scheduler import World
from downpour.bench.world.system.threads import VirtualThread
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DeadlineExceeded, DownpourError, Unreachable
from downpour.protos.logs import log
from downpour.protos.system import threads
from downpour.worker.exchange.coordinator_client import CoordinatorClient

CALL_S = 25.0  # longer than the server lets a user wait
ATTEMPTS = 60  # to resume a job: it may be recovering


class SimulatedUser:
    """A process that sends one request to the coordinator."""

    def __init__(self, world: World, machine: Machine, fault: Fault, mode: str) -> None:
        """Start the process.

        Args:
            world: The world.
            machine: The machine of the user.
            fault: The request, with the time for which a pause lasts.
            mode: The mode to which a change of the settings changes the job's.
        """
        self.process = VirtualProcess(world, "user", machine, 0.0, lambda process: None)
        self._fault, self._mode = fault, mode
        VirtualThread(self.process, self._run, "main")

    def _run(self) -> None:
        control = CoordinatorClient("ps-0:7000", CALL_S)
        try:
            self._ask(control)
        except DownpourError as error:
            log(f"the request was refused: {error}")
        finally:
            control.close()
            self.process.kill(0)

    def _ask(self, control: CoordinatorClient) -> None:
        stub = control._stub
        if self._fault.kind == "checkpoint":
            control._call(stub.TakeCheckpoint, pb.CheckpointRequest(), CALL_S)
        elif self._fault.kind == "change":
            control._call(stub.Change, pb.ChangeRequest(mode=self._mode), CALL_S)
        else:
            try:
                control._call(stub.Pause, pb.PauseRequest(paused=True), CALL_S)
            except (DeadlineExceeded, Unreachable) as error:  # the server may have received the request
                log(f"it is not known whether the job is paused: {error}")
            threads.sleep(self._fault.seconds)
            for _ in range(ATTEMPTS):
                try:
                    control._call(stub.Pause, pb.PauseRequest(paused=False), CALL_S)
                    return
                except DownpourError as error:
                    log(f"the job is not resumed: {error}")
                threads.sleep(1.0)
