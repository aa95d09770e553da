"""Which settings `downpour train` and scripts have, from the settings and the registries of both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.scripts.local_cluster import LocalCluster
from downpour.deploy.scripts.script_settings import NOT_OF_A_SCRIPT, OF_A_SCRIPT, RunSettings
from downpour.protos.settings import flag, parse
from downpour.ps.config import ServerSettings
from downpour.ps.coordinator.job_factory import new_coordinator
from downpour.ps.core.consistency import MODES
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("clean_environment")

PAGE = ROOT / "docs" / "keras.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def test_every_setting_of_train_is_one_of_a_script_or_is_refused_with_a_reason() -> None:
    ours, theirs = set(RunSettings.model_fields), set(TrainSettings.model_fields)
    assert ours - theirs == set(OF_A_SCRIPT), "a setting of scripts alone needs a reason"
    assert (ours & theirs) | set(NOT_OF_A_SCRIPT) == theirs and not ours & set(NOT_OF_A_SCRIPT)
    reasons = [*NOT_OF_A_SCRIPT.values(), *OF_A_SCRIPT.values()]
    assert all(reason.endswith(".") and len(reason) > 20 for reason in reasons)


@pytest.mark.parametrize("name", [name for name in RunSettings.model_fields if name not in OF_A_SCRIPT])
def test_a_setting_of_both_has_one_type_and_one_set_of_bounds(name: str) -> None:
    ours, theirs = RunSettings.model_fields[name], TrainSettings.model_fields[name]
    assert (ours.annotation, ours.metadata) == (theirs.annotation, theirs.metadata)


@pytest.mark.parametrize("name", sorted(NOT_OF_A_SCRIPT))
def test_a_flag_that_a_script_does_not_have_is_refused_with_its_reason(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(RunSettings, [f"{flag(name)}=1"], "downpour run")
    assert f"{flag(name)} is not a flag of this command. {NOT_OF_A_SCRIPT[name]}" in capsys.readouterr().err
    cluster: Any = LocalCluster
    with pytest.raises(ValueError, match=re.escape(NOT_OF_A_SCRIPT[name])):
        cluster(workers=1, **{name: 1})


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_one_of_a_script(mode: str) -> None:
    settings = RunSettings(mode=MODES[mode].example, workers=8)
    server = ServerSettings(script=True, model="script", dataset="script", mode=settings.mode, workers=8)
    assert not settings.without_progress and new_coordinator(server, "job", iter(range(9)).__next__)


def table() -> str:
    """Return the table of docs/keras.md."""
    rows = ["| setting of `downpour train` | in a script |", "|---|---|"]
    same = [f"`{flag(name)}`" for name in TrainSettings.model_fields if name in RunSettings.model_fields]
    rows.append(f"| {', '.join(same)} | the same |")
    rows += [f"| – | `{flag(name)}`: {reason} |" for name, reason in OF_A_SCRIPT.items()]
    by_reason: dict[str, list[str]] = {}
    for name in TrainSettings.model_fields:
        if name in NOT_OF_A_SCRIPT:
            by_reason.setdefault(NOT_OF_A_SCRIPT[name], []).append(f"`{flag(name)}`")
    rows += [f"| {', '.join(names)} | {reason} |" for reason, names in by_reason.items()]
    rows.append(f"| the values of `--mode`: {', '.join(f'`{row.example}`' for row in MODES.values())} | the same |")
    return "\n".join(rows) + "\n"


def test_the_documentation_shows_the_table() -> None:
    text = Path(PAGE).read_text()
    assert BEGIN in text and END in text
    shown = text.split(BEGIN)[1].split(END)[0]
    assert shown == table(), f"docs/keras.md must contain:\n{table()}"
