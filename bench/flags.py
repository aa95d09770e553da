"""The parser of the flags of benchmarks, whose messages name the nearest flag as those of other commands do."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from downpour.protos.settings import did_you_mean


class FlagParser(argparse.ArgumentParser):
    """An argument parser that ends with one line for each problem."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and end with exit status 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            flags = [each for each in unknown.split() if each.startswith("-")]
            known = list(self._option_string_actions)
            named = [f"unknown flag {each}{did_you_mean(each.partition('=')[0], known)}" for each in flags]
            message = "; ".join(named) or f"unexpected argument {unknown}"
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(f"{self.prog}: `{self.prog} --help` lists the flags", file=sys.stderr)
        raise SystemExit(2)
