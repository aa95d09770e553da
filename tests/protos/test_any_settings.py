"""Whatever is on a command line, in the environment or in a run's config.json: settings, or words and status 2."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.deploy.config import StatusSettings, TrainSettings
from downpour.deploy.launch.resume import CannotResume, resumed
from downpour.protos.settings import ENV_PREFIX, Settings, parse, to_flags
from downpour.ps.config import ServerSettings
from downpour.ps.monitoring.summary import configuration
from downpour.worker.config import WorkerSettings

KINDS: list[type[Settings]] = [ServerSettings, TrainSettings, WorkerSettings, StatusSettings]
ODD = st.sampled_from(
    ["", "nan", "-1", "1e309", "0x10", "9" * 400, "async:", "bsp:0", "ssp:-1", "%s", "\x00", "../..", "=", "--"]
)
VALUES = ODD | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_any_command_line(kind: type[Settings]) -> None:
    names = [name.replace("_", "-") for name in kind.model_fields if name not in ("tls_dir", "token_file")]

    @given(argv=st.lists(st.builds("--{}={}".format, st.sampled_from(names), VALUES) | VALUES, max_size=4))
    def check(argv: list[str]) -> None:
        try:
            settings = parse(kind, argv, "prog")
        except SystemExit as stopped:
            assert stopped.code in (0, 2)
        else:
            assert parse(kind, to_flags(settings, kind), "prog") == settings

    check()


@given(name=st.sampled_from(sorted(ServerSettings.model_fields)), value=VALUES.filter(lambda value: "\0" not in value))
def test_any_variable(name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv(f"{ENV_PREFIX}{name.upper()}", value)
        except UnicodeEncodeError:
            return  # no variable can be that
        try:
            parse(ServerSettings, [], "prog")
        except SystemExit as stopped:
            assert stopped.code == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(name=st.sampled_from(sorted(TrainSettings.model_fields)), value=JSON)
def test_any_config_of_a_run(tmp_path_factory: pytest.TempPathFactory, name: str, value: Any) -> None:
    """One setting that is something else, as after an edit by hand."""
    run = tmp_path_factory.mktemp("run")
    content = configuration(ServerSettings(), {})
    content["settings"][name] = value
    (run / "config.json").write_text(json.dumps(content))
    try:
        begun, found = resumed(TrainSettings(resume=str(run)))
    except CannotResume as refused:
        assert str(run) in str(refused)
    else:
        assert found == Path(run) and isinstance(begun, TrainSettings)


def test_the_configuration_is_determined_without_starting_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*command: Any, **options: Any) -> None:
        raise AssertionError(f"a server started {command}")

    monkeypatch.setattr(platform, "_uname_cache", None)
    monkeypatch.setattr(platform, "_platform_cache", {})
    monkeypatch.setattr(subprocess, "Popen", never)
    assert configuration(ServerSettings(), {})["versions"]["platform"].startswith(platform.system())
