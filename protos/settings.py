"""Settings from one typed source: flags, `DOWNPOUR_*` variables, defaults and checks come from a pydantic class.

    settings = parse(ServerSettings, sys.argv[1:], prog="downpour ps")

Flags take precedence over variables, these over the file of `--config`, and this over defaults. An invalid value ends
the program with status 2 and one line per problem, which names the flag, the variable or the file that it came from.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from downpour.protos.job_file.toml_settings import BadJobFile, read, takes_file
from downpour.protos.sentences.choices import did_you_mean, not_one_of

ENV_PREFIX = "DOWNPOUR_"

PATHS = ("json_", "keep", "report", "save", "to", "weights")  # fields of text that name a file or a folder
_NOUNS = {bool: "true or false", int: "a whole number", float: "a finite number"}
_RANGE_ERRORS = ("_parsing", "_type", "_from_float", "_equal", "_than", "finite_number")
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def host_and_port(value: str) -> str:
    """Return a valid `HOST:PORT`, or raise ValueError. Port 0 lets the system choose."""
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("must be HOST:PORT with a port from 0 to 65535")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.replace(":", "/")
    if "/" in bare or any(letter.isspace() for letter in bare):
        raise ValueError("must be HOST:PORT without a scheme, a path or spaces, and an IPv6 address in brackets")
    return value


ANY_HOST = ("0.0.0.0", "[::]", "::", "*", "")


def reachable(address: str, seen_at: str) -> str:
    """Return an address under which a process can be reached that listens on every address of its machine.

    Args:
        address: `HOST:PORT` as the process has announced it. `0.0.0.0` would lead every other machine to itself.
        seen_at: A host name or address under which the process has been reached; empty if none is known.
    """
    host, _, port = address.rpartition(":")
    return f"{seen_at}:{port}" if host in ANY_HOST and seen_at else address


Address = Annotated[str, AfterValidator(host_and_port)]


def one_of(choices: Collection[str]) -> AfterValidator:
    """Return a validator that accepts the given names only."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(not_one_of(value, choices))
        return value

    return AfterValidator(check)


class Settings(BaseSettings):
    """Base of the settings of all commands. Instances are immutable.

    Attributes:
        groups: The sections of `--help`: titles and their field names, in order.
        positional: Fields that are positional arguments instead of flags.
        follows: What the usage line shows after the flags, such as `SCRIPT [ARGUMENTS]`.
        refused: Names of settings of similar commands that this one does not have, with the reason as a sentence.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        validate_default=True,
        allow_inf_nan=False,
    )
    groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    positional: ClassVar[tuple[str, ...]] = ()
    follows: ClassVar[str] = ""
    refused: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings with the given values; the others have their defaults, whatever the environment says.

        Raises:
            ValidationError: A value is not allowed.
        """
        settings = cls.__new__(cls)
        BaseModel.__init__(settings, **values)
        return settings

    def take_effect(self) -> None:
        """Apply process-wide settings, such as the log format. Raises ValueError if that is impossible."""


S = TypeVar("S", bound=Settings)


def parse(kind: type[S], argv: Sequence[str], prog: str, description: str | None = None) -> S:
    """Return the settings from a command line and the environment.

    Args:
        kind: The settings class.
        argv: The arguments without the name of the program.
        prog: The name of the program in messages.
        description: The description in `--help` (default: the first paragraph of the class's docstring).

    Raises:
        SystemExit: With status 0 after `--help`; with status 2 after a message about an invalid argument.
    """
    parser = _parser(kind, prog, description or (kind.__doc__ or "").split("\n\n")[0])
    given, unknown = parser.parse_known_args(list(argv))
    if unknown:
        _fail(prog, _unknown(unknown, kind))
    path = vars(given).pop("config", "")
    of_file = _of_file(path, kind, vars(given), prog) if path else {}
    try:
        settings = kind(**{**of_file, **vars(given)})
        settings.take_effect()
    except ValidationError as failure:
        errors = [(_problem(error, kind, vars(given)), error["loc"]) for error in failure.errors()]
        _fail(prog, [f"{path}: {text}" if path and (not at or at[0] in of_file) else text for text, at in errors])
    except ValueError as failure:
        _fail(prog, [str(failure)])
    return settings


def _of_file(path: str, kind: type[Settings], given: Mapping[str, Any], prog: str) -> dict[str, Any]:
    """Return the values of a file that neither a flag nor a variable sets; name the keys of other commands."""
    try:
        values, others = read(path, kind.model_fields)
    except BadJobFile as failure:
        _fail(prog, failure.args)
    if others:
        print(f"{prog}: {path}: settings of other commands have no effect here: {', '.join(others)}", file=sys.stderr)
    set_elsewhere = {name for name in values if name in given or os.environ.get(_variable(name) or "")}
    return {name: value for name, value in values.items() if name not in set_elsewhere}


def split_positional(kind: type[Settings], argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the flags of `kind` at its start and the command that follows them.

    The command begins with the first argument that is no flag, with `-m`, or after `--`.
    """
    switches = {name for field, info in kind.model_fields.items() if info.annotation is bool for name in _forms(field)}
    at = 0
    while at < len(argv) and argv[at].startswith("-"):
        if argv[at] == "--":
            return list(argv[:at]), list(argv[at + 1 :])
        if argv[at].startswith("-m"):
            module = [argv[at][2:]] if len(argv[at]) > 2 else []
            return list(argv[:at]), ["-m", *module, *argv[at + 1 :]]
        alone = "=" in argv[at] or argv[at] in switches or argv[at] in ("-h", "--help")
        at += 1 if alone else 2
    return list(argv[:at]), list(argv[at:])


def _forms(name: str) -> tuple[str, str]:
    return flag(name), "--no-" + flag(name)[2:]


def to_flags(settings: Settings, kind: type[Settings]) -> list[str]:
    """Return flags that give `kind` the values of the fields that it shares with `settings`.

    Fields with the default of `kind` are left out, so no `DOWNPOUR_*` variable may set them in the new process.
    """
    flags: list[str] = []
    for name, field in kind.model_fields.items():
        value = getattr(settings, name, None)
        if value is None or value == field.get_default(call_default_factory=True, validated_data={}):
            continue
        if name in kind.positional:
            flags.append(str(value))
        elif isinstance(value, bool):
            flags.append(flag(name) if value else "--no-" + flag(name)[2:])
        else:
            flags.append(f"{flag(name)}={value}")
    return flags


def flag(name: str) -> str:
    """Return the flag of a field: `--learning-rate` for `learning_rate`, `--json` for `json_`."""
    return "--" + name.rstrip("_").replace("_", "-")


class _Parser(argparse.ArgumentParser):
    """Argument parser whose error messages have the form of those of the settings."""

    def error(self, message: str) -> NoReturn:
        place, _, what = message.removeprefix("argument ").partition(": ")
        if what == "expected one argument":
            name = place.split("/")[-1].split(",")[-1].strip()
            message = f"{name} needs a value (write {name}=VALUE for one that begins with a dash)"
        _fail(self.prog, [message])


def _fail(prog: str, problems: Iterable[str]) -> NoReturn:
    for problem in problems:
        print(f"{prog}: {problem}", file=sys.stderr)
    print(f"{prog}: `{prog} --help` lists the flags", file=sys.stderr)
    raise SystemExit(2)


def _parser(kind: type[Settings], prog: str, description: str) -> _Parser:
    """Return a parser with one optional flag for each field. It sets only the given flags."""
    width = min(shutil.get_terminal_size().columns, 110) - 2

    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.HelpFormatter(prog, max_help_position=27, width=width)

    required = {name: kind.model_fields[name].is_required() for name in kind.positional}
    places = (name.upper() if must else f"[{name.upper()}]" for name, must in required.items())
    parser = _Parser(
        prog=prog,
        usage=" ".join(filter(None, (prog, *places, "[flags]", kind.follows))),
        description=description,
        epilog=_variables_of(kind),
        formatter_class=formatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    add_flags(parser, kind)
    return parser


def add_flags(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Add the positional arguments and the flags of a command to a parser."""
    for name in kind.positional:
        parser.add_argument(name, nargs="?", metavar=name.upper(), help=_help(name, kind.model_fields[name]))
    grouped = {name for names in kind.groups.values() for name in names}
    rest = tuple(name for name in kind.model_fields if name not in grouped and name not in kind.positional)
    for title, names in {**kind.groups, "flags" if not grouped else "other": rest}.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add(group, name, kind.model_fields[name])
    last = parser.add_argument_group("help")
    if takes_file(kind):
        last.add_argument("--config", metavar="FILE", help="TOML file of settings, whose keys are the names of flags.")
    last.add_argument("-h", "--help", action="help", help="Show this help and exit.")


def _variables_of(kind: type[Settings]) -> str | None:
    """Return a sentence about the environment variables; None if none sets anything."""
    has_variables = any(not name.endswith("_") for name in kind.model_fields)
    return "A flag takes precedence over its environment variable, in brackets." if has_variables else None


def _add(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    if field.annotation is bool:
        group.add_argument(flag(name), dest=name, action=argparse.BooleanOptionalAction, help=_help(name, field))
    else:
        group.add_argument(flag(name), dest=name, metavar=_metavar(name, field), help=_help(name, field))


def _help(name: str, field: FieldInfo) -> str:
    text = field.description or ""
    default = None if field.is_required() else field.get_default()
    if default not in (None, "") and default is not False and "(default" not in text:
        shown = "on" if default is True else f"{default:g}" if isinstance(default, float) else str(default)
        text = text.removesuffix(".") + f" (default: {shown})" + "." * text.endswith(".")
    variable = "" if name.endswith("_") else f" [{ENV_PREFIX}{name.upper()}]"
    return text.replace("%", "%%") + variable


def _metavar(name: str, field: FieldInfo) -> str:
    types, choices = _types(field), _choices(field)
    if choices:
        return "{" + ",".join(choices) + "}"
    if name.endswith("_s"):
        return "SECONDS"
    if name.endswith("_dir"):
        return "DIR"
    if name in PATHS or name.endswith("_file"):
        return "PATH"
    if name == "resume":
        return "RUN"
    if Address in types or host_and_port in _validators(field):
        return "HOST:PORT"
    return "N" if int in types else "X" if float in types else "NAME"


def _validators(field: FieldInfo) -> list[Any]:
    return [getattr(mark, "func", None) for mark in field.metadata]


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _unknown(arguments: Sequence[str], kind: type[Settings]) -> list[str]:
    """Return one line for each unknown argument. The argument after an unknown flag counts as its value."""
    problems, after_flag = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        reason = next((why for field, why in kind.refused.items() if name in _forms(field)), "")
        if reason:
            problems.append(f"{name} is not a flag of this command. {reason}")
        elif argument.startswith("-"):
            near = did_you_mean(name, [flag(field) for field in kind.model_fields])
            problems.append(f"unknown flag {name}{near}")
        elif not after_flag:
            problems.append(f"unexpected argument {argument!r}")
        after_flag = argument.startswith("-") and not equals
    return problems


def problems_of(failure: ValidationError, kind: type[Settings]) -> list[str]:
    """Return one line for each problem of values that are neither flags nor variables, such as those of a file."""
    return [_problem(error, kind, dict.fromkeys(kind.model_fields)) for error in failure.errors()]


def _problem(error: ErrorDetails, kind: type[Settings], given: dict[str, Any]) -> str:
    """Return one line that says where the value came from, what must hold, and what was received."""
    name = str(error["loc"][0]) if error["loc"] else ""
    must = _must(error, kind.model_fields.get(name))
    if not name:
        return must + _from_environment(must, kind, given)
    if error["type"] == "missing":
        typed = name.upper() if name in kind.positional else flag(name)
        return f"{typed} must be given: {kind.model_fields[name].description}"
    variable = None if name in given else _variable(name)
    where = variable or (name.upper() if name in kind.positional else flag(name))
    return f"{where} {must}; received {error['input']!r}"


def _must(error: ErrorDetails, field: FieldInfo | None) -> str:
    """Return what must hold, independently of the wording of pydantic."""
    reason = error["type"]
    if reason == "literal_error" and field is not None:
        choices = _choices(field)
        return f"must be one of {', '.join(choices)}{did_you_mean(str(error['input']), choices)}"
    if reason == "value_error":
        return str(error["ctx"]["error"])
    noun, bounds = _noun(field), _bounds(field)
    if reason.endswith(_RANGE_ERRORS) and (noun or bounds):
        return "must be " + ", ".join([*([noun] if noun else []), *bounds])
    return error["msg"][:1].lower() + error["msg"][1:]


def _types(field: FieldInfo) -> set[Any]:
    return {kind for kind in (field.annotation, *get_args(field.annotation)) if kind is not type(None)}


def _noun(field: FieldInfo | None) -> str | None:
    types = set() if field is None else _types(field)
    return next((noun for kind, noun in _NOUNS.items() if kind in types), None)


def _bounds(field: FieldInfo | None) -> list[str]:
    marks = [] if field is None else field.metadata
    held = [(text, getattr(mark, key, None)) for mark in marks for key, text in _BOUNDS.items()]
    return [f"{text} {bound}" for text, bound in held if bound is not None]


def _variable(name: str) -> str | None:
    return next((key for key in os.environ if key.upper() == ENV_PREFIX + name.upper()), None)


def _from_environment(message: str, kind: type[Settings], given: dict[str, Any]) -> str:
    words = message.replace(",", " ").split()
    named = (name for name in kind.model_fields if flag(name) in words and name not in given)
    found = [variable for variable in map(_variable, named) if variable]
    return f" (set by {', '.join(found)})" if found else ""
