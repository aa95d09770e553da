"""The command line: `downpour COMMAND [flags]`. A command imports its modules only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from downpour.deploy.launchers import LAUNCHERS, train_command
from downpour.protos.logs import open_standard_streams
from downpour.protos.system.command import record_command

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as in a server: NumPy's sums depend on it


class Command(NamedTuple):
    """A row of the table of commands."""

    description: str  # one line for `downpour --help`
    run: Callable[[list[str]], int]  # arguments -> exit status


def _run(argv: list[str]) -> int:
    from downpour.deploy.scripts.script_launcher import run

    return run(argv)


def _auto(argv: list[str]) -> int:
    from downpour.deploy.engines.commands import auto_command

    return auto_command(argv, _run, train_command)


def _evaluate(argv: list[str]) -> int:
    from downpour.deploy.config import EvaluateSettings
    from downpour.deploy.trained import NoModel, evaluate
    from downpour.protos.settings import parse

    settings = parse(EvaluateSettings, argv, "downpour evaluate", "Evaluate a trained model on a test set.")
    try:
        evaluate(settings)
    except NoModel as error:
        print(f"downpour evaluate: {error}", file=sys.stderr)
        return EXIT_USAGE


def _export(argv: list[str]) -> int:
    from downpour.deploy.config import ExportCommandSettings
    from downpour.deploy.trained import NoModel, export
    from downpour.protos.settings import parse

    about = "Write a trained model in the format of another program."
    settings = parse(ExportCommandSettings, argv, "downpour export", about)
    try:
        export(settings)
    except NoModel as error:
        print(f"downpour export: {error}", file=sys.stderr)
        return EXIT_USAGE


def _status(argv: list[str]) -> int:
    from downpour.deploy.config import StatusSettings
    from downpour.protos.settings import parse

    settings = parse(StatusSettings, argv, "downpour status", "Show the progress of a running job.")
    from downpour.deploy.view.status import status

    return status(settings)


def _dashboard(argv: list[str]) -> int:
    from downpour.deploy.dashboard.config import DashboardSettings
    from downpour.protos.settings import parse

    about = "Replay a recorded run, or watch a running job, in the browser."
    settings = parse(DashboardSettings, argv, "downpour dashboard", about)
    from downpour.deploy.dashboard.dashboard import dashboard

    return dashboard(settings)


def _report(argv: list[str]) -> int:
    from downpour.deploy.dashboard.config import ReportSettings
    from downpour.protos.settings import parse

    settings = parse(
        ReportSettings, argv, "downpour report", "Write a run as one HTML file that opens without a network."
    )
    from downpour.deploy.dashboard.report import report

    return report(settings)


def _playground(argv: list[str]) -> int:
    from downpour.deploy.playground.config import PlaygroundSettings
    from downpour.deploy.playground.playground import playground
    from downpour.protos.settings import parse

    about = "Train a small network in the browser with several workers, modes and compensations."
    return playground(parse(PlaygroundSettings, argv, "downpour playground", about))


def _top(argv: list[str]) -> int:
    from downpour.deploy.dashboard.config import TopSettings
    from downpour.protos.settings import parse

    settings = parse(TopSettings, argv, "downpour top", "Show a job in the terminal, and operate it with keys.")
    from downpour.deploy.dashboard.top import top

    return top(settings)


def _job(argv: list[str]) -> int:
    from downpour.deploy.dashboard.config import JobCommandSettings
    from downpour.protos.settings import parse

    assigned = [each for each in argv if "=" in each and not each.startswith("-")]
    others = [each for each in argv if each not in assigned]
    joined = [*others, *([" ".join(assigned)] if assigned else [])]  # several settings, as one argument
    settings = parse(JobCommandSettings, joined, "downpour job", "Operate a running job.")
    from downpour.deploy.dashboard.job import job

    return job(settings)


def _runs(argv: list[str]) -> int:
    if argv[:1] in (["compare"], ["remove"]):
        from downpour.deploy.run_comparison import runs_action

        return runs_action(argv)
    from downpour.deploy.run_commands import RunsSettings, runs
    from downpour.protos.settings import parse

    return runs(parse(RunsSettings, argv, "downpour runs"))


def _logs(argv: list[str]) -> int:
    from downpour.deploy.run_commands import LogsSettings, logs
    from downpour.protos.settings import parse

    return logs(parse(LogsSettings, ["--follow" if flag == "-f" else flag for flag in argv], "downpour logs"))


def _doctor(argv: list[str]) -> int:
    from downpour.deploy.doctor.doctor import DoctorSettings, doctor
    from downpour.protos.settings import parse

    return doctor(parse(DoctorSettings, argv, "downpour doctor"))


def _completion(argv: list[str]) -> int:
    from downpour.deploy.completion import CompletionSettings, completion
    from downpour.protos.settings import parse

    return completion(parse(CompletionSettings, argv, "downpour completion"))


def _certs(argv: list[str]) -> int:
    from downpour.deploy.certs import CertsSettings, certs
    from downpour.protos.settings import parse

    return certs(parse(CertsSettings, argv, "downpour certs"))


def _cluster_process(module: str) -> Callable[[list[str]], int]:
    """Return a command that replaces this process by `module`, with its place in the cluster from `TF_CONFIG`."""
    replace_process = _program(f"downpour.{module}")

    def run(argv: list[str]) -> int:
        import os

        from downpour.deploy.scripts.tf_config import BadTFConfig, arguments

        try:
            return replace_process(arguments(module, os.environ, argv))
        except BadTFConfig as error:
            print(f"downpour {module}: {error}", file=sys.stderr)
            return EXIT_USAGE

    return run


def _replace_process(module: str, **variables: str) -> Callable[[list[str]], int]:
    """Return a command that replaces this process by `python -m module` with the same arguments and `variables`."""

    def run(argv: list[str]) -> NoReturn:
        import os

        from downpour.deploy.launch.environment import python_path

        environment = {**os.environ, **variables, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
        os.execve(sys.executable, [sys.executable, "-P", "-m", module, *argv], environment)

    return run


def _program(module: str, **variables: str) -> Callable[[list[str]], int]:
    """Return a command that replaces this process by a program that Ctrl-C ends without a traceback."""
    replace_process = _replace_process("downpour.deploy.command", **variables)
    return lambda argv: replace_process([module, *argv])


OTHER_COMMANDS: dict[str, Command] = {
    "run": Command("train a Keras script on a local cluster", _run),
    "auto": Command("train as part of the job that the environment describes", _auto),
    "ps": Command("run one parameter server", _cluster_process("ps")),
    "worker": Command("run one worker", _cluster_process("worker")),
    "status": Command("show the progress of a running job", _status),
    "runs": Command("list the runs of a folder, compare two of them, or remove some", _runs),
    "logs": Command("show the logs of a run", _logs),
    "dashboard": Command("show a recorded run or a running job in the browser", _dashboard),
    "report": Command("write a recorded run as one HTML file", _report),
    "playground": Command("train a small network in the browser, with several workers", _playground),
    "top": Command("show a job in the terminal, and operate it with keys", _top),
    "job": Command("operate a running job: pause, drain, change settings and workers", _job),
    "doctor": Command("examine whether this machine can train, and say what to do", _doctor),
    "completion": Command("print a script with which a shell completes commands and flags", _completion),
    "certs": Command("create TLS certificates and an access token", _certs),
    "evaluate": Command("evaluate a trained model on a test set", _evaluate),
    "export": Command("export a trained model as keras, savedmodel or tflite", _export),
    "simulate": Command("simulate consistency modes in virtual time", _program("downpour.bench.simulation.simulate")),
    "simulate-job": Command(
        "run whole jobs with faults in virtual time and check them",
        _program("downpour.bench.world.simulate_job", **ONE_THREAD),
    ),
    "replay": Command("repeat a recorded run and compare the bits", _program("downpour.bench.replay", **ONE_THREAD)),
    "validate": Command(
        "compare the server with predictions from theory", _program("downpour.bench.conformance.validate")
    ),
    "bench": Command("run a benchmark", _program("downpour.bench")),
}


def commands() -> dict[str, Command]:
    """Return all commands by name: the launchers that are commands, and the others."""
    launchers = {
        name: Command(entry.description, entry.command)
        for name, entry in LAUNCHERS.items()
        if entry.command is not None
    }
    found = {**launchers, **OTHER_COMMANDS}
    return {"train": found["train"], "run": found["run"], **found}  # what most users need is listed first


def usage() -> str:
    """Return the text of `downpour --help`."""
    rows = "\n".join(f"  {name:<14}{command.description}" for name, command in commands().items())
    return (
        "usage: downpour COMMAND [flags]\n\n"
        "An asynchronous parameter server for Keras 3 on TensorFlow.\n\n"
        f"commands:\n{rows}\n\n"
        "`downpour COMMAND --help` lists the flags of a command; `downpour --version`\nprints the version."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(usage(), file=sys.stderr)
        return EXIT_USAGE
    name, *rest = arguments
    if name == "help" and rest:
        name, rest = rest[0], [*rest[1:], "--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"downpour {_version()}")
        return 0
    if name not in commands():
        return _unknown(name)
    if problems := _unknown_variables():
        for problem in problems:
            print(f"downpour {name}: {problem}", file=sys.stderr)
        return EXIT_USAGE
    record_command(["downpour", name, *rest])
    try:
        return commands()[name].run(rest)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _unknown_variables() -> list[str]:
    import os

    if not any(name.upper().startswith("DOWNPOUR_") for name in os.environ):
        return []
    from downpour.deploy.variables import unknown_variables

    return unknown_variables(os.environ)


def _unknown(name: str) -> int:
    import difflib

    matches = difflib.get_close_matches(name, [*commands(), "help", "--help", "--version"], n=1)
    hint = f" (did you mean {matches[0]}?)" if matches else ""
    what = "flag" if name.startswith("-") else "command"
    print(f"downpour: unknown {what} {name}{hint}; commands are {', '.join(commands())}", file=sys.stderr)
    return EXIT_USAGE


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    from downpour.deploy.launch.environment import DISTRIBUTION

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed: runs from its source)"


if __name__ == "__main__":
    sys.exit(main())
