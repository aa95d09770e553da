"""`downpour completion bash|zsh`: prints a script with which a shell completes commands, flags and values."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import Field

from downpour.protos.logs import print_line
from downpour.protos.settings import Settings, add_flags

# The settings of every command, which are loaded only here; benchmarks and `help` complete the names alone.
SETTINGS = {
    "train": "downpour.deploy.config:TrainSettings",
    "run": "downpour.deploy.scripts.script_settings:RunSettings",
    "auto": "downpour.deploy.engines.settings:EngineTrainSettings",
    "slurm": "downpour.deploy.engines.settings:EngineTrainSettings",
    "ray": "downpour.deploy.ray.settings:RayTrainSettings",
    "ps": "downpour.ps.config:ServerSettings",
    "worker": "downpour.worker.config:WorkerSettings",
    "status": "downpour.deploy.config:StatusSettings",
    "runs": "downpour.deploy.run_commands:RunsSettings",
    "logs": "downpour.deploy.run_commands:LogsSettings",
    "dashboard": "downpour.deploy.dashboard.config:DashboardSettings",
    "report": "downpour.deploy.dashboard.config:ReportSettings",
    "playground": "downpour.deploy.playground.config:PlaygroundSettings",
    "top": "downpour.deploy.dashboard.config:TopSettings",
    "job": "downpour.deploy.dashboard.config:JobCommandSettings",
    "doctor": "downpour.deploy.doctor.doctor:DoctorSettings",
    "certs": "downpour.deploy.certs:CertsSettings",
    "evaluate": "downpour.deploy.config:EvaluateSettings",
    "export": "downpour.deploy.config:ExportCommandSettings",
    "simulate": "downpour.bench.simulation.simulate:SimulateSettings",
    "simulate-job": "downpour.bench.world.seeded_job:SimulateJobSettings",
    "replay": "downpour.bench.replay.__main__:ReplaySettings",
    "validate": "downpour.bench.conformance.validate:ValidateSettings",
    "completion": "downpour.deploy.completion:CompletionSettings",
}
ONE_OF_MANY = {"bench": "downpour.bench.__main__:BENCHES", "help": "downpour.deploy.completion:SETTINGS"}
WITH_SCRIPT = ("run", "auto", "slurm", "ray")


class CompletionSettings(Settings):
    """Print a script for a shell, which completes the commands of downpour, their flags and the values of these.

    bash: source <(downpour completion bash)
    """

    positional: ClassVar[tuple[str, ...]] = ("shell",)

    shell: Literal["bash", "zsh"] = Field(description="Shell that the script is for: bash or zsh.")


def completion(settings: CompletionSettings) -> int:
    """Print the script, and return the exit status."""
    if importlib.util.find_spec("shtab") is None:
        print("downpour completion: shtab must be installed: pip install shtab", file=sys.stderr)
        return 2
    import shtab

    print_line(shtab.complete(parser_of_commands(), settings.shell))
    return 0


def parser_of_commands() -> argparse.ArgumentParser:
    """Return a parser of all commands with their flags."""
    import shtab

    parser = argparse.ArgumentParser(prog="downpour", add_help=False)
    commands = parser.add_subparsers()
    for name, place in SETTINGS.items():
        kind = loaded(place)
        of_command = commands.add_parser(name, add_help=False, help=" ")  # one without help would be left out
        add_flags(of_command, kind)
        for action in of_command._actions:
            field = kind.model_fields.get(action.dest)
            if field is not None and get_origin(field.annotation) is Literal:
                setattr(action, "choices", get_args(field.annotation))  # noqa: B010 (shtab reads attributes)
            elif action.metavar in ("DIR", "FILE"):
                setattr(action, "complete", shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE)  # noqa: B010
        if name in WITH_SCRIPT:
            setattr(of_command.add_argument("script", nargs="*"), "complete", shtab.FILE)  # noqa: B010
    for name, place in ONE_OF_MANY.items():
        commands.add_parser(name, add_help=False, help=" ").add_argument("name", choices=tuple(loaded(place)))
    return parser


def loaded(place: str) -> Any:
    """Return what a module of this package has under a name, such as `module:NAME`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
