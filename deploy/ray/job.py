"""One job on a Ray cluster: connects, reserves its resources, runs its processes, and releases everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from downpour.deploy.certs import CertsSettings, certs
from downpour.deploy.launch.plan import ProcessSpec, on_gpus, plan
from downpour.deploy.ray.launcher import RayLauncher, RayScriptLauncher
from downpour.deploy.ray.node_process import files_of
from downpour.deploy.ray.remote_process import RayStarter, Resources
from downpour.deploy.ray.settings import RayRunSettings, RayTrainSettings
from downpour.deploy.scripts.script_launcher import script_plan
from downpour.deploy.view.terminal import Screen
from downpour.protos.credentials import adopt
from downpour.protos.system.command import install_command

ACCESS = "access"  # in the run directory: credentials, with which `downpour status --tls-dir` works as well
Settings = RayTrainSettings | RayRunSettings


class CannotRun(RuntimeError):
    """The job cannot be run on the cluster; the message says what to do."""


def connect(address: str) -> bool:
    """Connect this process to a Ray cluster, and return whether it was not connected before.

    Raises:
        CannotRun: The package is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise CannotRun(f"the package ray must be installed ({error}). Run: {install_command('ray')}") from None
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise CannotRun(
            f"--address must be that of a Ray cluster; received {address}: {error}. Start one with `ray start --head`, "
            "or use --address local"
        ) from None
    return True


def disconnect() -> None:
    """Disconnect this process from the cluster."""
    import ray

    ray.shutdown()


class RayJob:
    """The resources of one job on a cluster, and the run of its processes."""

    def __init__(self, settings: Settings, script: Sequence[str] = ()) -> None:
        """Describe a job.

        Args:
            settings: The settings of the job, with the smallest number of workers.
            script: The path of the script and its arguments; empty for a built-in model.
        """
        self._settings, self._script = settings, list(script)
        self._most = max(settings.max_workers or settings.workers, settings.workers)

    def run(self, run_dir: Path, screen: Screen) -> tuple[int, RayLauncher]:
        """Run the job and return the exit status, and the launcher, which knows the errors.

        Raises:
            CannotRun: The resources cannot be reserved, or the certificates cannot be created.
        """
        settings = self._settings
        settings, access = self._with_access(run_dir / ACCESS)
        adopt(settings)
        starter = RayStarter(self._resources(), access, run_dir)
        try:
            starter.reserve(settings.place_timeout_s)
            specs = self._specs(settings, starter, str(run_dir))
            kind = RayScriptLauncher if self._script else RayLauncher
            launcher = kind(specs, run_dir, screen, settings.drain_timeout_s, starter)
            return launcher.run(), launcher
        except TimeoutError as error:
            raise CannotRun(str(error)) from None
        finally:
            starter.close()

    def _resources(self) -> Resources:
        settings = self._settings
        worker = {"CPU": float(settings.threads)}
        if settings.gpus_per_worker:
            worker["GPU"] = settings.gpus_per_worker
        base = [*(f"ps-{shard}" for shard in range(settings.shards)), *workers(range(settings.workers))]
        return Resources(base, worker, settings.placement)

    def _specs(self, settings: Settings, starter: RayStarter, run_dir: str) -> list[ProcessSpec]:
        """Return the processes; the number of a script's workers is fixed when it starts."""
        least, more = settings.workers, workers(range(settings.workers, self._most))
        plain = settings.model_copy(update={"gpus_per_worker": None})  # Ray assigns the devices
        if isinstance(plain, RayRunSettings):
            placed = starter.place_more(more, settings.grow_s)
            size = least + len(placed)
            starter.give_up(more[len(placed) :])
            specs = script_plan(plain.model_copy(update={"workers": size}), run_dir, self._script, shown=False)
        else:
            every = plan(plain.model_copy(update={"workers": self._most}), run_dir)
            fewest = {spec.name: spec for spec in plan(plain, run_dir)}
            specs = [
                fewest.get(spec.name, spec) for spec in every
            ]  # the servers wait for the smallest number of workers
        return [self._with_gpus(without_shared_dir(spec)) for spec in specs]

    def _with_gpus(self, spec: ProcessSpec) -> ProcessSpec:
        """Return a worker that must find its GPU, which Ray chooses; or none, if the user asked for none."""
        asked = self._settings.gpus_per_worker
        if spec.role != "worker" or asked is None:
            return spec
        if asked == 0:
            return on_gpus(spec, [], asked)
        return replace(spec, args=("--gpus=1", *spec.args))

    def _with_access(self, folder: Path) -> tuple[Settings, Mapping[str, bytes]]:
        """Return settings with credentials, and the files that each process receives over the cluster."""
        settings = self._settings
        if settings.insecure:
            return settings, {}
        if settings.tls_dir is None:
            folder.mkdir(0o700)
            with redirect_stdout(None):
                code = certs(CertsSettings(folder=str(folder)))
            if code:
                raise CannotRun("give --tls-dir with certificates, or --insecure in a network that you trust")
            settings = settings.model_copy(update={"tls_dir": str(folder)})
        return settings, files_of(Path(str(settings.tls_dir)))


def workers(numbers: Sequence[int]) -> list[str]:
    """Return the names of workers."""
    return [f"worker-{number}" for number in numbers]


def without_shared_dir(spec: ProcessSpec) -> ProcessSpec:
    """Return a process without the folder in which the workers of one machine keep files apart."""
    return replace(spec, args=tuple(arg for arg in spec.args if not arg.startswith("--shared-dir=")))
