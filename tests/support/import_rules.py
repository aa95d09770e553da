"""Which folder may import which: a table that is compared with the sources and with what every folder states."""

from __future__ import annotations

# Folders (and modules beside them) that a folder may import, apart from itself. `x.*` stands for x and all inside it.
# `protos` stands for all of `protos` in the rows of the other packages: its folders are parts of one contract.
# The order is that of the planes: from what knows nothing of the others to what puts everything together.
PS_SETTINGS = {
    "ps.config", "ps.config_change", "ps.config_checks", "ps.config_values", "ps.optimizer_settings",
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "protos": {"protos.access", "protos.job_file", "protos.sentences", "protos.system"},
    "protos.job_file": set(),
    "protos.access": set(),
    "protos.sentences": set(),
    "protos.system": set(),
    "protos.codecs": {"protos"},
    "protos.tcp": {"protos"},
    "protos.shared_memory": {"protos"},
    "ps.core.rules": {"protos"},
    "ps.core": {"protos", "ps.core.rules"},
    "ps.config_values": {"protos"},
    "ps.optimizer_settings": {"protos", "ps.core.rules"},
    "ps.config": {
        "protos", "ps.core", "ps.core.rules", "ps.config_checks", "ps.config_values", "ps.optimizer_settings",
    },
    "ps.config_checks": {"protos", "ps.core", "ps.core.rules"},
    "ps.config_change": {"protos", "ps.core", "ps.core.rules", "ps.config"},
    "ps.coordinator": {"protos", "ps.core", "ps.core.rules", *PS_SETTINGS},
    "ps.coordinator.fit": {"protos", "ps.core", "ps.core.rules", "ps.coordinator", *PS_SETTINGS},
    "ps.coordinator.job_factory": {"ps.config", "ps.coordinator", "ps.coordinator.fit"},
    "ps.trace": {"protos", "ps.core", "ps.core.rules", *PS_SETTINGS},
    "ps.storage": {"protos", "ps.core", "ps.core.rules", "ps.trace", *PS_SETTINGS},
    "ps.data_plane": {"protos", "ps.core", "ps.core.rules", "ps.trace", "ps.storage", *PS_SETTINGS},
    "ps.data_plane.tcp": {
        "protos", "ps.core", "ps.core.rules", "ps.trace", "ps.storage", "ps.data_plane", *PS_SETTINGS,
    },
    "ps.control_plane": {
        "protos", "ps.core", "ps.core.rules", "ps.trace", "ps.storage", "ps.data_plane", "ps.coordinator",
        *PS_SETTINGS,
    },
    "ps.monitoring": {
        "protos", "ps.core", "ps.core.rules", "ps.trace", "ps.storage", "ps.data_plane", "ps.coordinator",
        "ps.control_plane", *PS_SETTINGS,
    },
    "ps.endpoints": {"protos", "ps.config", "ps.data_plane", "ps.monitoring"},
    "ps": {"protos", "ps.*"},
    "worker.config": {"protos"},
    "worker.quiet_tensorflow": {"protos"},
    "worker.script": set(),
    "worker.python_source": set(),
    "worker.data": {"worker.catalog"},
    "worker.catalog": {"protos", "worker.python_source"},
    "worker.exchange": {"protos"},
    "worker.exchange.tcp": {"protos", "worker.exchange"},
    "worker.compute": {"protos", "worker.catalog"},
    "worker.plan": {"protos", "ps.core", "worker.exchange"},
    "worker.train": {
        "protos", "ps.core.rules", "worker.catalog", "worker.compute", "worker.config", "worker.exchange",
        "worker.plan",
    },
    "worker.fit": {
        "protos", "worker.config", "worker.exchange", "worker.quiet_tensorflow", "worker.script", "worker.fit.*",
    },
    "worker.fit.cluster": {"protos", "worker.exchange", "worker.plan"},
    "worker.fit.local": {
        "protos", "worker.compute", "worker.exchange", "worker.plan", "worker.fit.cluster", "worker.fit.optimizer",
    },
    "worker.fit.data": {"protos", "ps.core", "worker.fit.cluster", "worker.script"},
    "worker.fit.metrics": {"protos", "worker.fit.cluster", "worker.fit.data"},
    "worker.fit.process": set(),
    "worker.fit.optimizer": {
        "protos", "ps.core.rules", "worker.compute", "worker.exchange", "worker.fit.cluster", "worker.fit.data",
        "worker.script",
    },
    "worker.loops": {
        "protos", "ps.core.rules", "worker.exchange", "worker.fit.cluster", "worker.fit.optimizer", "worker.script",
    },
    "worker": {"protos", "worker.*"},
    "deploy.runs": {"protos"},
    "deploy.config": {"protos", "ps.config", "worker.config", "worker.catalog", "deploy.runs"},
    "deploy.certs": {"protos"},
    "deploy.view": {"protos", "deploy.config", "deploy.runs"},
    "deploy.dashboard": {"protos", "ps.core", "ps.trace", "deploy.runs", "deploy.view"},
    "deploy.playground": {"protos", "ps.core", "deploy.dashboard"},
    "deploy.launch": {"protos", "ps.config", "worker.config", "deploy.config", "deploy.view"},
    "deploy.scripts": {
        "protos", "ps.config", "ps.config_checks", "worker.config", "worker.fit.process", "worker.python_source",
        "deploy.config", "deploy.runs", "deploy.view", "deploy.launch",
    },
    "deploy.ray": {"protos", "deploy.certs", "deploy.config", "deploy.view", "deploy.launch", "deploy.scripts"},
    "deploy.engines": {"protos", "deploy.certs", "deploy.config", "deploy.view", "deploy.launch", "deploy.scripts"},
    "deploy.doctor": {"protos", "deploy.launch"},
    "deploy": {"protos", "deploy.*"},
    "bench": {"protos", "worker.catalog", "worker.exchange", "deploy.launch"},
    "bench.simulation": {"protos", "ps.core", "ps.core.rules", *PS_SETTINGS, "bench"},
    "bench.conformance": {"protos", "ps.core", "ps.core.rules", "worker.exchange", "bench", "bench.simulation"},
    "bench.competitors": {
        "protos", "worker.catalog", "worker.compute", "worker.fit.optimizer", "deploy.launch", "bench",
    },
    "bench.peers": {"protos", "worker.catalog", "bench", "bench.competitors"},
    "bench.training": {
        "protos", "ps.core", "ps.core.rules", "worker.catalog", "deploy.config", "bench", "bench.competitors",
        "bench.peers", "bench.simulation",
    },
    "bench.speed": {"protos", "ps.*", "worker.*", "deploy.*", "bench", "bench.competitors"},
    "bench.replay": {"protos", "ps.*", "worker.*", "deploy.launch", "deploy.runs", "deploy.scripts"},
    "bench.chaos": {
        "protos", "ps.storage", "worker.exchange", "worker.fit.optimizer", "worker.script", "deploy.config",
        "deploy.launch", "deploy.view", "bench",
    },
    "bench.world.system": {"protos"},
    "bench.world.checks": {"protos", "ps.*", "bench.chaos", "bench.world.system"},
    "bench.world": {
        "protos", "ps.*", "worker.config", "worker.exchange", "worker.plan", "worker.train", "deploy.launch",
        "bench.world.checks", "bench.world.system",
    },
}  # fmt: skip
PURE_PROTOS = {  # that the pure folders may import; the generated messages are data, and contain no gRPC
    "protos.chunked_vector", "protos.coverage", "protos.errors", "protos.layout", "protos.parameter_server_pb2",
    "protos.protocol", "protos.sentences.choices", "protos.sentences.notes", "protos.sentences.refusals",
    "protos.sentences.sentence", "protos.sentences.settings",
}  # fmt: skip
_MAPPED = "the weights are in memory that workers map"
_TEXTS = "the names of flags and the texts of problems; the environment is read by `parse`, for a command"
_VALUES = "the settings are values; a copy is given all of them, so that the environment sets none"
IMPURE_IMPORTS = {  # importer and imported: why a pure module may import it all the same
    ("ps.core.buffers", "protos.shared_memory.memfd"): _MAPPED,
    ("ps.coordinator.admission", "protos.settings"): _TEXTS,
    ("ps.config_change", "protos.settings"): _TEXTS,
    ("ps.config_change", "ps.config"): _VALUES,
    ("ps.coordinator.admission", "ps.config"): _VALUES,
    ("ps.coordinator.job", "ps.config"): _VALUES,
    ("ps.coordinator.job_factory", "ps.config"): _VALUES,
    ("ps.coordinator.fit.fit_admission", "ps.config"): _VALUES,
}
NO_TENSORFLOW = ("protos", "ps", "deploy", "worker/exchange", "worker/plan", "bench/world")


def plane_of(module: str) -> str:
    """Return the row of MAY_IMPORT that a module belongs to: the longest that is a prefix of its name."""
    while module not in MAY_IMPORT:
        module = module.rpartition(".")[0]
    return module


def planes(rule: str, plane: str) -> set[str]:
    """Return the rows of MAY_IMPORT that a rule permits to a plane."""
    whole = rule.removesuffix(".*")
    if rule == whole and not (rule == "protos" and not plane.startswith("protos")):
        return {rule} - {plane}
    return {each for each in MAY_IMPORT if f"{each}.".startswith(f"{whole}.")} - {plane}


def permitted(plane: str) -> set[str]:
    """Return the rows of MAY_IMPORT that a plane may import."""
    return {each for rule in MAY_IMPORT[plane] for each in planes(rule, plane)}
