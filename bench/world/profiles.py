"""Profiles of simulated jobs: a few kinds of faults together with the jobs that they affect most.

If every job drew its faults from all kinds, faults that only a combination of several events reveals would be rare.
Half of the seeds therefore draw from few kinds, which is known as swarm testing: A. Groce et al., "Swarm Testing",
ISSTA 2012.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from downpour.bench.world.faults import ALL, DRAWN, SERVERS, WORKERS

WITHOUT, SUBSET = "none", "subset"
FOCUSED_SHARE = 0.5  # fraction of the seeds that have a profile of `OFTEN`
LARGE_MODEL_BYTES = 2_500_000  # several messages of an upload
BARRIERS = ("bsp", "bsp", "softsync:2", "softsync:2", "kasync:2", "backup:1", "rennala:2", "ssp:1")


@dataclass(frozen=True)
class Profile:
    """A family of faults, and what its jobs have in common.

    Attributes:
        kinds: The kinds of faults; a kind that occurs several times is drawn more often.
        counts: The numbers of faults to choose from.
        choices: The values to choose from, by the name of a setting.
        large_model: Whether the uploaded model has the size of several messages.
        slow_links: Whether the latencies between machines differ; None if the seed decides.
        among: The processes that the faults affect; see `downpour.bench.world.faults.draw`.
    """

    kinds: Sequence[str]
    counts: Sequence[int] = (2, 3)
    choices: dict[str, Sequence[Any]] = field(default_factory=dict)
    large_model: bool = False
    slow_links: bool | None = None
    among: str = ALL


PROFILES: dict[str, Profile] = {
    "barriers": Profile(
        ("kill", "kill", "stop", "hang"), (2, 3, 4), {"mode": BARRIERS, "workers": (2, 3, 3), "shards": (1, 2, 2)}
    ),
    "calls": Profile(("resetcall", "killcall"), (3, 5), large_model=True),
    "resets": Profile(("resetcall", "resetcall", "lose"), (2, 4, 6), large_model=True, among=WORKERS),
    "damage": Profile(("damage", "damage", "damage", "kill"), (2, 3), {"checkpoint_every": ("0.2s",)}),
    "partitions": Profile(
        ("cut", "stop", "kill"),
        (2, 3),
        {"shards": (2, 3, 3), "checkpoint_every": ("0.2s",)},
        slow_links=True,
        among=SERVERS,
    ),  # fmt: skip
    "power": Profile(("power", "powerat", "change", "damage"), (1, 2, 3), {"mode": ("async", "async", "ssp:3")}),
    "disks": Profile(("full", "readonly", "kill", "power"), (2, 3), {"checkpoint_every": ("0.2s", "1s")}),
    "signals": Profile(
        ("term", "termall", "kill", "kill"), (1, 2, 3), {"shards": (1, 2, 2, 3), "checkpoint_every": ("0.2s",)}
    ),
    "changes": Profile(
        ("change", "change", "checkpoint", "pause", "kill"),
        (1, 2, 3),
        {"mode": ("async",), "overlap": (True,), "staleness_policy": ("dc_asgd", "none")},
    ),  # fmt: skip
}
# Shards that are stopped between the messages of a cut. These seeds would have no profile otherwise, so that the jobs
# of all others stay as they were.
CUTS, CUTS_SHARE = "cuts", 0.05
OF_CUTS = Profile(
    ("stopcall",), (2, 3), {"shards": (2, 2, 3), "checkpoint_every": ("0.2s",)}, slow_links=True, among=SERVERS
)
NAMES = (WITHOUT, SUBSET, *PROFILES, CUTS)
OFTEN = (*PROFILES, SUBSET, "barriers", "partitions")  # which need the most coincidences


def drawn(seed: int) -> str:
    """Return the name of the profile of a seed."""
    rng = random.Random(f"profile {seed}")
    share = rng.random()
    if share < FOCUSED_SHARE:
        return rng.choice(OFTEN)
    return CUTS if share < FOCUSED_SHARE + CUTS_SHARE else WITHOUT


def profile_of(seed: int, name: str) -> Profile | None:
    """Return a profile by its name; None if the name is `WITHOUT`. The kinds of `SUBSET` are drawn from the seed."""
    if name == SUBSET:
        rng = random.Random(f"subset {seed}")
        return Profile(rng.sample(DRAWN, rng.randint(1, 3)), (2, 3, 4))
    return OF_CUTS if name == CUTS else PROFILES.get(name)


def settings_of(seed: int, profile: Profile) -> dict[str, Any]:
    """Return the settings that a profile determines for a seed."""
    rng = random.Random(f"settings {seed}")
    return {name: rng.choice(values) for name, values in profile.choices.items()}
