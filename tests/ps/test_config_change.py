"""Settings that change while a job runs: what can change, what is refused and why, and how a run continues."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.errors import InvalidRequest
from downpour.ps.config import ServerSettings
from downpour.ps.config_change import Change, apply_change, continued, new_change, original
from downpour.ps.core.consistency import MODES

GRADIENT_MODES = [row.example for name, row in MODES.items() if name not in ("easgd", "localsgd")]


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**{"workers": 4, "learning_rate": 0.1, **given})


wanted_changes = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from([mode for mode in GRADIENT_MODES if mode != "ringmaster:8"]),
            "staleness_policy": st.sampled_from(["none", "inverse", "dc_asgd"]),
            "learning_rate": st.sampled_from([0.1, 0.05, 0.001]),
        },
    ).filter(bool),
    max_size=6,
)


@given(wanted_changes)
def test_a_run_continues_with_its_changes_and_knows_how_it_began(wanted: list[dict[str, Any]]) -> None:
    begun = now = settings()
    changes: list[Change] = []
    for each in wanted:
        change = new_change(now, each, len(changes) + 1)
        if change is not None:
            changes.append(change)
            now = apply_change(now, change)
        assert all(getattr(now, name) == value for name, value in each.items())
        assert new_change(now, each, 99) is None  # a request that is repeated changes nothing
    assert continued(begun, changes) == now
    assert original(now, changes) == begun


def test_a_setting_that_is_given_again_keeps_its_value() -> None:
    change = new_change(settings(), {"mode": "bsp", "learning_rate": 0.5}, 1)
    assert change is not None
    again = continued(settings(learning_rate=0.3), [change])
    assert (again.mode, again.learning_rate) == ("bsp", 0.3)


@pytest.mark.parametrize(
    ("now", "wanted", "reason"),
    [
        ({}, {}, "must give a mode, a compensation or a learning rate"),
        ({}, {"mode": "spp:3"}, "--mode must be"),
        ({}, {"mode": "ssp"}, "--mode must be"),
        ({}, {"mode": "kasync:9"}, "waits for 9 workers"),
        ({}, {"staleness_policy": "fresh"}, "--staleness-policy must be"),
        ({}, {"mode": "localsgd:4"}, "in mode localsgd:4 they push a difference"),
        ({"mode": "localsgd:4"}, {"mode": "async"}, "in mode localsgd:4 they push a difference"),
        ({"mode": "easgd:0.5,4"}, {"learning_rate": 0.5}, "push a replica"),
        ({"overlap": True}, {"mode": "bsp"}, "--overlap computes from weights one exchange old"),
        ({"push_every": 4}, {"learning_rate": 0.5}, "keep the learning rate that the workers started with"),
        ({"script": True}, {"learning_rate": 0.5}, "that of its own optimizer"),
        ({}, {"learning_rate": -1.0}, "--learning-rate must be greater than 0"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_the_reason(
    now: dict[str, Any], wanted: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        new_change(settings(**now), wanted, 1)
