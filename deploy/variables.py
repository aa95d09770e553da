"""Variables of the environment that set nothing: a misspelt one would train something else than the user asked for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

from downpour.protos.sentences.choices import did_you_mean
from downpour.protos.settings import ENV_PREFIX, Settings

# The modules that define settings, apart from benchmarks, which load what a server does not have.
MODULES = (
    "downpour.deploy.certs",
    "downpour.deploy.completion",
    "downpour.deploy.config",
    "downpour.deploy.dashboard.config",
    "downpour.deploy.doctor.doctor",
    "downpour.deploy.engines.settings",
    "downpour.deploy.ray.settings",
    "downpour.deploy.run_commands",
    "downpour.deploy.run_comparison",
    "downpour.deploy.scripts.script_settings",
)
BENCHMARKS = (
    "downpour.bench.chaos.settings",
    "downpour.bench.conformance.validate",
    "downpour.bench.replay.__main__",
    "downpour.bench.simulation.simulate",
    "downpour.bench.speed.checkpoints",
    "downpour.bench.speed.recording",
    "downpour.bench.training.modes",
)
OTHERS = ("COMMAND", "TOKEN", "CHAOS_SHAPE", "CHAOS_FLAGS")  # read by the programs that they concern
# Kubernetes sets such variables in every container, for a service whose name begins with downpour.
OF_KUBERNETES = re.compile(r"(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return one line for each variable that begins with `DOWNPOUR_` and is no setting of any command."""
    given = [name for name in environ if name.upper().startswith(ENV_PREFIX) and environ[name]]
    rest = [name for name in given if not OF_KUBERNETES.fullmatch(name.upper().removeprefix(ENV_PREFIX))]
    known = set(OTHERS)
    for modules in (MODULES, BENCHMARKS):
        if not (rest := [name for name in rest if name.upper().removeprefix(ENV_PREFIX) not in known]):
            return []
        known |= _fields(modules)
    rest = [name for name in rest if name.upper().removeprefix(ENV_PREFIX) not in known]
    names = [ENV_PREFIX + name for name in sorted(known)]
    return [f"no command has the setting {name}{did_you_mean(name.upper(), names)}: unset it" for name in rest]


def _fields(modules: Iterable[str]) -> set[str]:
    """Return the names of all settings that some modules define, in capital letters."""
    for module in modules:
        with suppress(ImportError):
            importlib.import_module(module)
    kinds, found = [Settings], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found |= {name.upper() for name in kind.model_fields if not name.endswith("_")}
    return found
