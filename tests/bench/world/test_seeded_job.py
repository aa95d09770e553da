"""The jobs of seeds: what the flags leave open follows from the seed, and a printed command repeats the job."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from downpour.bench.world.faults import written
from downpour.bench.world.profiles import CUTS, NAMES, OF_CUTS, PROFILES, SUBSET, WITHOUT, drawn, profile_of
from downpour.bench.world.seeded_job import COMMAND, SimulateJobSettings, reproduction, shape_of
from downpour.protos.settings import parse

SEEDS = range(1, 50)


@pytest.mark.parametrize(
    "flags",
    [{}, {"count": 4}, {"faults": "cut,kill", "count": 4}, {"mode": "bsp", "shards": 2}, {"profile": "damage"}],
    ids=str,
)
def test_a_printed_command_describes_the_same_job(flags: dict[str, Any]) -> None:
    """The job of the command had other links, models and ways of training, drawn after the faults."""
    settings = SimulateJobSettings(**flags)
    for seed in SEEDS:
        shape = shape_of(seed, settings)
        for faults in (written(shape.faults), "auto" if settings.faults == "auto" else settings.faults):
            command = shlex.split(reproduction(seed, settings, faults))
            repeated = parse(SimulateJobSettings, command[len(COMMAND.split()) :], COMMAND)
            assert shape_of(seed, repeated) == shape


def test_half_of_the_seeds_have_a_profile_and_every_profile_occurs() -> None:
    names = [drawn(seed) for seed in range(1, 1000)]
    assert set(names) == set(NAMES) and 0.4 < names.count(WITHOUT) / len(names) < 0.6


def test_the_jobs_of_a_profile_have_its_kinds_of_faults_and_its_settings() -> None:
    for name, profile in (*PROFILES.items(), (CUTS, OF_CUTS)):
        for seed in SEEDS:
            shape = shape_of(seed, SimulateJobSettings(profile=name))
            assert {fault.kind for fault in shape.faults} <= set(profile.kinds)
            assert len(shape.faults) in profile.counts
            assert all(shape.settings[setting] in values for setting, values in profile.choices.items())
    kinds = {found.kinds[0] for seed in SEEDS if (found := profile_of(seed, SUBSET)) is not None}
    assert len(kinds) > 10


def test_flags_outweigh_a_profile() -> None:
    for seed in SEEDS:
        given: dict[str, Any] = {"mode": "async", "shards": 1, "workers": 4, "count": 1}
        shape = shape_of(seed, SimulateJobSettings(profile="barriers", **given))
        assert {name: shape.settings[name] for name in ("mode", "shards", "workers")} == dict(list(given.items())[:3])
        assert len(shape.faults) == 1


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of none, subset"):
        SimulateJobSettings(profile="everything")
