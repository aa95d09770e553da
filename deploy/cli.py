"""The command line: `downpour COMMAND [flags]`. Each command imports what it needs, when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as a server has it: sums in NumPy depend on it


class Command(NamedTuple):
    """A row of the table of commands."""

    line: str  # what it does, for `downpour --help`
    run: Callable[[list[str]], int]  # arguments -> exit status


def _train(argv: list[str]) -> int:
    from downpour.deploy.config import TrainSettings
    from downpour.protos.settings import parse

    about = "Train a model on a local cluster: servers hold the weights, workers compute gradients."
    settings = parse(TrainSettings, argv, "downpour train", about)
    from downpour.deploy.launch.launcher import train

    return train(settings)


def _run(argv: list[str]) -> int:
    from downpour.deploy.scripts.script_launcher import run

    return run(argv)


def _evaluate(argv: list[str]) -> int:
    from downpour.deploy.config import EvaluateSettings
    from downpour.deploy.trained import NoModel, evaluate
    from downpour.protos.settings import parse

    settings = parse(EvaluateSettings, argv, "downpour evaluate", "Evaluate a trained model on its test set.")
    try:
        evaluate(settings)
    except NoModel as error:
        print(f"downpour evaluate: {error}", file=sys.stderr)
        return EXIT_USAGE


def _export(argv: list[str]) -> int:
    from downpour.deploy.config import ExportCommandSettings
    from downpour.deploy.trained import NoModel, export
    from downpour.protos.settings import parse

    settings = parse(ExportCommandSettings, argv, "downpour export", "Write a trained model for other programs.")
    try:
        export(settings)
    except NoModel as error:
        print(f"downpour export: {error}", file=sys.stderr)
        return EXIT_USAGE


def _status(argv: list[str]) -> int:
    from downpour.deploy.config import StatusSettings
    from downpour.protos.settings import parse

    settings = parse(StatusSettings, argv, "downpour status", "Show what a running job is doing.")
    from downpour.deploy.view.status import status

    return status(settings)


def _certs(argv: list[str]) -> int:
    from downpour.deploy.certs import CertsSettings, certs
    from downpour.protos.settings import parse

    return certs(parse(CertsSettings, argv, "downpour certs"))


def _of_cluster(module: str) -> Callable[[list[str]], int]:
    """A command that becomes `module`, and finds its place in the cluster in `TF_CONFIG` where that is set."""
    become = _become(f"downpour.{module}")

    def run(argv: list[str]) -> int:
        import os

        from downpour.deploy.scripts.tf_config import BadTFConfig, arguments

        try:
            return become(arguments(module, os.environ, argv))
        except BadTFConfig as error:
            print(f"downpour {module}: {error}", file=sys.stderr)
            return EXIT_USAGE

    return run


def _become(module: str, **variables: str) -> Callable[[list[str]], int]:
    """A command that turns this process into `python -m module` with the same arguments, and these variables."""

    def run(argv: list[str]) -> NoReturn:
        import os

        from downpour.deploy.launch.environment import python_path

        environment = {**os.environ, **variables, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
        os.execve(sys.executable, [sys.executable, "-P", "-m", module, *argv], environment)

    return run


COMMANDS: dict[str, Command] = {
    "train": Command("train a model on a local cluster", _train),
    "run": Command("run a Keras script on a local cluster", _run),
    "ps": Command("run one parameter-server process", _of_cluster("ps")),
    "worker": Command("run one worker process", _of_cluster("worker")),
    "status": Command("show what a running job is doing", _status),
    "certs": Command("make certificates and a token for a cluster", _certs),
    "evaluate": Command("evaluate a trained model on its test set", _evaluate),
    "export": Command("write a trained model as keras, savedmodel or tflite", _export),
    "simulate": Command("run modes and compensations in virtual time", _become("downpour.bench.simulation.simulate")),
    "replay": Command(
        "do a recorded run again, and compare it bit for bit", _become("downpour.bench.replay", **ONE_THREAD)
    ),
    "validate": Command(
        "compare this server with what theory predicts", _become("downpour.bench.conformance.validate")
    ),
    "bench": Command("measure, and compare with other ways to train", _become("downpour.bench")),
}


def usage() -> str:
    """The text of `downpour --help`."""
    rows = "\n".join(f"  {name:<10}{command.line}" for name, command in COMMANDS.items())
    return (
        "usage: downpour COMMAND [flags]\n\n"
        "An asynchronous parameter server for Keras 3 on TensorFlow.\n\n"
        f"commands:\n{rows}\n\n"
        "`downpour COMMAND --help` lists the flags of a command; `downpour --version` prints the version."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(usage(), file=sys.stderr)
        return EXIT_USAGE
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"downpour {_version()}")
        return 0
    if name not in COMMANDS:
        return _unknown(name)
    try:
        return COMMANDS[name].run(rest)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _unknown(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    what = "flag" if name.startswith("-") else "command"
    print(f"downpour: unknown {what} {name}{hint}; commands are {', '.join(COMMANDS)}", file=sys.stderr)
    return EXIT_USAGE


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("downpour-ps")
    except PackageNotFoundError:
        return "(not installed: run from its source)"


if __name__ == "__main__":
    sys.exit(main())
