"""The playground's training: gradients are right, states can be reached again, and every story is true."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from downpour.deploy.playground.config import PRESETS, setup_of
from downpour.deploy.playground.engine import Engine, Setup
from downpour.deploy.playground.network import DATA, PlaneNetwork, data_of
from downpour.deploy.playground.page_files import FOLDER, files
from downpour.deploy.playground.snapshots import Snapshots


def preset(name: str, pushes: int, **changed: object) -> Engine:
    return Engine(dataclasses.replace(PRESETS[name], **changed)).run(pushes)  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden", [(), (3,), (4, 2)])
def test_the_gradient_is_that_of_finite_differences(hidden: tuple[int, ...]) -> None:
    network, (points, labels) = PlaneNetwork(hidden), data_of("spiral", 0.1, 0)
    flat = network.initial(3)
    found = network.gradient(flat, points, labels)
    for at in range(network.size):
        step = np.zeros(network.size, np.float32)
        step[at] = 1e-2
        slope = (network.loss(flat + step, points, labels) - network.loss(flat - step, points, labels)) / 2e-2
        assert found[at] == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize("name", DATA)
def test_data_have_two_classes_of_about_the_same_size(name: str) -> None:
    points, labels = data_of(name, 0.0, 1)
    assert 0.4 < labels.mean() < 0.6 and np.abs(points).max() < 6.5


@pytest.mark.parametrize(("name", "learned"), [("and", True), ("or", True), ("xor", False)])
def test_one_neuron_learns_and_and_or_but_not_xor(name: str, learned: bool) -> None:
    for seed in range(3):
        accuracy = Engine(Setup(data=name, hidden=(), workers=1, seed=seed)).run(1000).accuracy()
        assert (accuracy > 0.95) if learned else (accuracy < 0.75)


def test_the_page_offers_all_data() -> None:
    offered = re.search(r'<select name="data">(.*?)</select>', (FOLDER / "index.html").read_text())
    assert offered and offered[1].split("<option>")[1:] == list(DATA)


@pytest.mark.parametrize("mode", ["async", "bsp", "ssp:1", "kasync:2", "softsync:2", "backup:2", "ringmaster:3"])
def test_a_state_is_reached_again_and_every_push_has_an_outcome(mode: str) -> None:
    setup = Setup(mode=mode, workers=3, straggler=3.0, compensation="inverse")
    one, two = Engine(setup).run(150), Engine(setup).run(60).run(90)
    assert one.weights.tobytes() == two.weights.tobytes() and one.events == two.events
    assert len(one.events) + len(one.shard.pending) == one.pushes == 150
    for worker in range(3):
        mine = [each for each in one.intervals if each.worker == worker]
        assert all(a.stop == pytest.approx(b.start) for a, b in zip(mine, mine[1:], strict=False))


def test_eight_workers_with_a_high_rate_do_not_learn_and_compensation_mends_it() -> None:
    for seed in range(3):
        plain, compensated = preset("too_high", 1500, seed=seed), preset("compensated", 1500, seed=seed)
        assert plain.loss() > 5 * compensated.loss() and compensated.accuracy() >= 0.93
        counts = plain.staleness()
        assert sum(k * v for k, v in counts.items()) / sum(counts.values()) == pytest.approx(7, abs=0.1)


def test_a_barrier_waits_for_the_straggler_and_async_does_not() -> None:
    bsp, free = preset("bsp_straggler", 400), preset("async_straggler", 400)
    assert bsp.share("wait", [1, 2, 3]) > 0.8 and free.share("wait") == 0
    free.run(3000)
    while free.time > bsp.time:
        bsp.run(4)
    assert free.loss() < bsp.loss()
    mean = {w: sum(k * v for k, v in c.items()) / sum(c.values()) for w in range(4) if (c := free.staleness(w))}
    assert mean[0] > 5 * max(mean[1], mean[2], mean[3])


def test_xor_needs_a_hidden_layer() -> None:
    assert preset("xor_neuron", 3000).loss() == pytest.approx(np.log(2), abs=0.05)
    assert preset("xor_hidden", 3000).loss() < 0.05


def rises(**changed: object) -> float:
    """Return by how much the loss rises in total, in intervals of five pushes."""
    engine, losses = preset("momentum", 0, **changed), []
    for _ in range(120):
        losses.append(engine.run(5).loss())
    return float(np.maximum(0, np.diff(losses)).sum())


def test_asynchrony_overshoots_like_momentum() -> None:
    for seed in range(2):
        plain, momentum = rises(workers=1, seed=seed), rises(workers=1, momentum=0.875, seed=seed)
        assert plain < 0.1 and momentum > 3 * plain and rises(seed=seed) > 10 * plain


def test_ssp_bounds_the_spread_of_the_clocks() -> None:
    assert preset("ssp", 1000).spread == 3  # a step begins at most 2 ahead, and is 3 ahead when it ends
    assert preset("ssp", 1000, mode="async").spread > 50
    assert 0 < preset("ssp", 60).share("wait") < preset("ssp", 60, mode="bsp").share("wait")


def test_every_preset_has_a_title_and_two_sentences_in_both_languages() -> None:
    texts = {name: json.loads((FOLDER / "texts" / f"{name}.json").read_text()) for name in ("en", "es")}
    assert set(texts["en"]) == set(texts["es"])
    for language in texts.values():
        for name in PRESETS:
            assert language[f"preset_{name}"]
            assert len(re.findall(r"[.](?: |$)", language[f"story_{name}"])) == 2, name
    every = b"\n".join(content for name, content in files().items() if name.endswith((".js", ".html"))).decode()
    used = set(re.findall(r'\bt\("(\w+)"', every)) | set(re.findall(r'data-(?:text|label|title)="(\w+)"', every))
    used |= set(re.findall(r'\? "(\w+)" : "(\w+)"', every)[0]) | {"pause", "play", "staleness_async", "staleness_key"}
    used |= {f"state_{name}" for name in ("compute", "wait", "transfer")}
    used |= {f"{kind}_{name}" for kind in ("preset", "story") for name in PRESETS}
    assert set(texts["en"]) - used == set(), "texts that nothing shows"
    for key, text in texts["en"].items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", texts["es"][key])), key


def test_snapshots_contain_every_push_once() -> None:
    engine = Engine(Setup(workers=3))
    shots = Snapshots(engine)
    first = shots.first()
    assert len(first["points"]) == 400 and len(first["weights"]) == engine.network.size
    seen = [event for _ in range(5) for event in Snapshots.take(_advanced(shots, engine))["events"]]
    assert [tuple(event) for event in seen] == [dataclasses.astuple(event) for event in engine.events]
    json.dumps(shots.take(), allow_nan=False)


def _advanced(shots: Snapshots, engine: Engine) -> Snapshots:
    engine.run(20)
    return shots


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"mode": "bspp"}, "must be"),
        ({"mode": "localsgd:4"}, "mode must be one of async, bsp"),
        ({"mode": "kasync:9"}, "mode kasync:9 needs 9 workers"),
        ({"workers": "1000"}, "workers must be 1 to 32"),
        ({"workers": "x"}, "workers must be a number"),
        ({"hidden": "4,99"}, "hidden must be at most"),
        ({"hidden": "<b>"}, "hidden must be numbers of units"),
        ({"learning_rate": "nan"}, "η must be above 0"),
        ({"momentum": "1"}, "momentum must be"),
        ({"data": "moons"}, "data must be one of"),
    ],
)
def test_what_is_not_possible_is_refused_with_the_reason(query: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        setup_of(query)
