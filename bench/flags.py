"""The parser of the flags of benchmarks, whose messages and help have the form of those of other commands."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

from downpour.protos.sentences.choices import did_you_mean

KINDS = {"int": "a whole number", "float": "a number"}


class FlagParser(argparse.ArgumentParser):
    """An argument parser that ends with one line for each problem."""

    def __init__(self, prog: str | None = None, description: str | None = None, epilog: str | None = None) -> None:
        """Build a parser; see `argparse.ArgumentParser`."""
        super().__init__(prog, description=description, epilog=epilog, add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and end with exit status 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            flags = [each for each in unknown.split() if each.startswith("-")]
            known = list(self._option_string_actions)
            named = [f"unknown flag {each}{did_you_mean(each.partition('=')[0], known)}" for each in flags]
            message = "; ".join(named) or f"unexpected argument {unknown}"
        print(f"{self.prog}: {_plain(message)}", file=sys.stderr)
        print(f"{self.prog}: `{self.prog} --help` lists the flags", file=sys.stderr)
        raise SystemExit(2)


def _plain(message: str) -> str:
    """Return a message of `argparse` as a sentence that says what must hold, without the names of functions."""
    name, colon, what = message.removeprefix("argument ").partition(": ")
    if not colon or not message.startswith("argument "):
        return message
    if what == "expected one argument":
        return f"{name} needs a value"
    if found := re.fullmatch(r"invalid (\S+) value: (.*)", what, re.S):
        return f"{name} must be {KINDS.get(found[1], 'of the form that --help shows')}; received {found[2]}"
    if found := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", what, re.S):
        return f"{name} must be one of {found[2].replace(chr(39), '')}; received {found[1]}"
    return f"{name} {what}"
