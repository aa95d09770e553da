"""The page's logic without a browser: its modules run in Node.js on the block that the page gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from downpour.deploy.dashboard.live import MessageBuilder
from downpour.deploy.dashboard.page_data import mode_facts, page_data
from downpour.deploy.dashboard.page_files import FOLDER
from downpour.deploy.dashboard.recorded_run import load_run
from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import to_proto
from downpour.protos.sentences.sentence import Sentence, joined, sentence, to_json
from downpour.ps.trace.format import DTYPE
from tests.support.pure.recorded_trace import CLOCKS_S, write_run

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed; the browser tests cover the same")

SEEK_LIMIT_MS = 200
PRELUDE = """
import { readFileSync } from "node:fs";
import { decode } from "./decode.js";
import { LiveJob } from "./live.js";
import { Run } from "./run.js";
import { State } from "./state.js";
import { marksAt, stride } from "./marks.js";
import { predictedStaleness, geometric } from "./predict.js";
import { contrast, staleColor, textOn } from "./colors.js";
import { layout, placeOf } from "./layout.js";
import { columnsOf, rangeOf, valuesAt } from "./chart.js";
import { digitsFor, ticks } from "./axes.js";
import { memberships, transferred } from "./quantities.js";
import { readView, writeView, speedText } from "./view.js";
import { sentenceText, setTexts } from "./texts.js";
const given = JSON.parse(readFileSync("given.json", "utf8"));
const run = given.block ? new Run(await decode(readFileSync(given.block))) : null;
const result = await (async () => {
"""
Evaluate = Callable[..., Any]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Runs statements that `return` a value; they see the page's modules, `run` and `given`."""
    folder = tmp_path / "page"
    shutil.copytree(FOLDER, folder)
    (folder / "package.json").write_text('{"type": "module"}')

    def of(code: str, trace_folder: Path | None = None, **given: Any) -> Any:
        if trace_folder is not None:
            (folder / "block").write_bytes(page_data(load_run(trace_folder)))
            given["block"] = "block"
        (folder / "given.json").write_text(json.dumps(given))
        (folder / "test.js").write_text(f"{PRELUDE}{code}\n}})();\nconsole.log(JSON.stringify(result));\n")
        done = subprocess.run(
            [str(NODE), "test.js"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return of


def test_a_change_of_mode_sets_the_bound_the_clocks_and_the_prediction(evaluate: Evaluate, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    write_run(folder, pushes=200, workers=2, shards=1, mode="async")
    change = {"number": 1, "before": {"mode": "async"}, "after": {"mode": "ssp:0"}, "version": 100, "elapsed_s": 1.0}
    (folder / "changes.json").write_text(json.dumps({"changes": [change, change | {"number": 2, "version": None}]}))
    found = evaluate(
        "const at = run.events.find((event) => event.kind === 'change').before;"
        "const waits = [...run.waitUntil].map(Number.isFinite);"
        "return {modes: run.modes, slack: run.slack, version: run.versionAt(at),"
        " before: waits.slice(0, at - 1).some(Boolean), after: waits.slice(at).some(Boolean)};",
        folder,
    )
    assert found == {"modes": ["async", "ssp:0"], "slack": 0, "version": 100, "before": False, "after": True}


def test_every_moment_equals_the_trace(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=700, workers=4)
    positions = [0, 700, 1, 37, 36, 350, 349, 699, 100, 0]
    states = evaluate(
        """
        const state = new State(run);
        return given.positions.map((position) => {
          state.seek(position);
          return {version: run.versionAt(position), applied: state.applied, dropped: state.dropped,
            samples: state.samples,
            staleness: state.workers.map((worker) => [...worker.staleness]), rate: state.learningRate(),
            updates: state.workers.map((worker) => worker.updates), lives: state.workers.map((worker) => worker.life)};
        });
        """,
        tmp_path / "run",
        positions=positions,
    )
    for position, state in zip(positions, states, strict=True):
        passed = trace[:position]
        applied = passed[passed["outcome"] == 0]
        assert state["version"] == (passed["version"][-1] if position else 0)
        assert (state["applied"], state["dropped"]) == (len(applied), position - len(applied))
        assert state["samples"] == passed["samples"].sum()
        assert state["rate"] == (applied["learning_rate"][-1] if len(applied) else None)
        for worker in range(4):
            own = applied["staleness"][applied["worker"] == worker]
            counts = np.bincount(own, minlength=len(state["staleness"][worker]))
            np.testing.assert_array_equal(state["staleness"][worker], counts)
            assert state["updates"][worker] == len(own)
    assert states[0]["lives"] == ["joining"] * 3 + ["absent"]
    assert states[1]["lives"] == ["left"] * 4


def test_a_step_is_divided_into_computing_transfer_and_both_waits(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=60, workers=2, shards=1, mode="ssp:1")
    rows = np.flatnonzero(trace["worker"] == 0)
    row, before = rows[9], rows[8]
    step_s = trace["time_s"][row] - trace["time_s"][before]
    trace["compute_s"][row], trace["wait_s"][row] = step_s / 2, step_s / 4
    np.save(tmp_path / "run" / "trace.npy", trace)
    step, waited, times = evaluate(
        "const step = run.stepOf(0, 9); return [step, run.waitUntil[given.before], [...run.times]];",
        tmp_path / "run",
        before=int(before),
    )
    assert step["row"] == row and [step["begins"], step["ends"]] == pytest.approx([times[before], times[row]])
    assert step["from"] == pytest.approx(waited if waited is not None else step["begins"])
    assert step["ends"] - step["arrived"] == pytest.approx(step_s / 4, abs=2e-6)
    available = step["arrived"] - step["from"]
    assert step["computed"] - step["compute"] == pytest.approx(min(step_s / 2, available), abs=2e-6)
    assert step["compute"] - step["from"] == pytest.approx(step["arrived"] - step["computed"], abs=2e-6)


def test_speedup_and_efficiency_are_shares_of_the_time_that_workers_compute(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=400, workers=3, shards=1)
    speedup, efficiency, at_start = evaluate(
        "const state = new State(run).seek(run.count); const found = [state.speedup(), state.efficiency()];"
        "return [...found, state.seek(0).speedup()];",
        tmp_path / "run",
    )
    computed, times_s = float(trace["compute_s"].sum()), trace["time_s"] - CLOCKS_S[0]
    wall_s, late_s = float(times_s[-1]), float(times_s[99])  # the third worker joins before record 100
    assert speedup == pytest.approx(computed / wall_s, rel=1e-3)
    assert efficiency == pytest.approx(computed / (3 * wall_s - late_s), rel=0.02)
    assert at_start is None


def test_a_trace_without_durations_has_no_speedup_and_whole_steps(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=50, workers=2, shards=1)
    trace["compute_s"] = 0
    np.save(tmp_path / "run" / "trace.npy", trace)
    found = evaluate(
        "const state = new State(run).seek(run.count), step = run.stepOf(0, 3);"
        "return [state.speedup(), state.efficiency(), step.compute === step.begins && step.computed === step.ends];",
        tmp_path / "run",
    )
    assert found == [None, None, True]


def test_a_worker_whose_push_has_arrived_waits_at_the_barrier(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=60, workers=2, shards=1, mode="bsp")
    row = int(np.flatnonzero(trace["worker"] == 0)[9])
    trace["wait_s"][row] = 0.5 * (trace["time_s"][row] - trace["time_s"][row - 1])
    np.save(tmp_path / "run" / "trace.npy", trace)
    found = evaluate(
        "const state = new State(run).seek(given.row), ends = run.times[given.row], arrived = run.arrivedAt(given.row);"
        "return [arrived - 1e-5, (arrived + ends) / 2].map((seconds) => state.activities(seconds)[0]);",
        tmp_path / "run",
        row=row,
    )
    assert found == ["computing", "waiting"]


def test_a_worker_that_is_gone_with_work_is_told_from_one_that_has_left(tmp_path: Path, evaluate: Evaluate) -> None:
    write_run(tmp_path / "run", pushes=60, workers=2, shards=1)
    found = evaluate(
        "const events = [{kind: 'join', worker: 0, before: 0}, {kind: 'join', worker: 1, before: 0},"
        " {kind: 'rest', worker: 1, before: 30}, {kind: 'leave', worker: 0, before: 40},"
        " {kind: 'leave', worker: 1, before: 45}];"
        "const other = new Run({header: {...run.header, events}, tables: run.tables});"
        "return other.events.filter((each) => each.kind === 'leave').map((each) => each.working);",
        tmp_path / "run",
    )
    assert found == [True, False]


def test_mean_and_largest_staleness_are_exact_beyond_the_histogram(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=100, workers=2, shards=1)
    trace["staleness"][50] = 5000
    np.save(tmp_path / "run" / "trace.npy", trace)
    found = evaluate(
        """
        const state = new State(run).seek(run.count);
        return [state.meanStaleness(), Math.max(...state.workers.map((worker) => worker.stalest)),
          state.workers[0].staleness.length];
        """,
        tmp_path / "run",
    )
    assert found[0] == pytest.approx(trace["staleness"][trace["outcome"] == 0].mean())
    assert found[1] == 5000 and found[2] <= 1024


def test_any_version_of_a_long_run_is_reached_with_little_work(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=20_000, workers=8, shards=2)
    versions = [int(v) for v in np.random.default_rng(1).integers(1, trace["version"][-1], 30)]
    found = evaluate(
        """
        const state = new State(run);
        return given.versions.map((version) => {
          const began = process.cpuUsage(); // the time of the clock contains that of other processes
          state.seek(run.positionAtVersion(version));
          const reached = run.versionAt(state.position);
          state.activities(run.timeAt(state.position));
          return [reached, process.cpuUsage(began).user / 1000];
        });
        """,
        tmp_path / "run",
        versions=versions,
    )
    assert [version for version, _ in found] == versions
    assert np.median([took for _, took in found]) <= SEEK_LIMIT_MS


def test_waits_follow_from_the_clocks_of_ssp(tmp_path: Path, evaluate: Evaluate) -> None:
    slack = 1
    trace = write_run(tmp_path / "run", pushes=300, workers=3, mode=f"ssp:{slack}")
    until = evaluate("return [...run.waitUntil];", tmp_path / "run")
    clocks = {0: 0, 1: 0}
    waiting: dict[int, int] = {}
    expected: list[int | None] = [None] * len(trace)
    for row, worker in enumerate(trace["worker"]):
        if row == 75:
            clocks[2] = min(clocks.values())
        clocks[int(worker)] += 1
        for other, since in list(waiting.items()):
            if clocks[other] - min(clocks.values()) <= slack:
                expected[since] = row
                del waiting[other]
        if clocks[int(worker)] - min(clocks.values()) > slack:
            waiting[int(worker)] = row
    assert any(row is not None for row in expected)
    seconds = evaluate("return [...run.times];", tmp_path / "run")
    for row, (free, found) in enumerate(zip(expected, until, strict=True)):
        if free is not None and row not in waiting.values():
            assert found == pytest.approx(seconds[free]), row
        elif row not in waiting.values():
            assert found is None, row


def test_marks_are_few_and_carry_the_staleness_of_their_push(tmp_path: Path, evaluate: Evaluate) -> None:
    trace = write_run(tmp_path / "run", pushes=500, workers=4, shards=2)
    found = evaluate(
        """
        const all = [];
        for (const speed of [1 / 256, 1 / 16, 1, 64])
          for (let i = 0; i <= 400; i += 1) all.push(marksAt(run, run.duration * i / 400, speed));
        const drop = run.push.outcome.indexOf(2);
        return {all, fall: marksAt(run, run.times[drop] + 1e-5, 1 / 256), drop};
        """,
        tmp_path / "run",
    )
    for marks in found["all"]:
        places = [(mark["worker"], mark["shard"], mark["kind"]) for mark in marks]
        assert len(places) == len(set(places)) <= 3 * 4 * 2
        for mark in marks:
            assert 0 <= mark["progress"] < 1
            assert mark["staleness"] == trace["staleness"][mark["row"]]
            assert mark["worker"] == trace["worker"][mark["row"]]
    assert {mark["kind"] for marks in found["all"] for mark in marks} == {"push", "pull", "drop"}
    assert ("drop", found["drop"]) in {(mark["kind"], mark["row"]) for mark in found["fall"]}


def test_a_push_arrives_when_it_is_applied(tmp_path: Path, evaluate: Evaluate) -> None:
    write_run(tmp_path / "run", pushes=200, workers=2, shards=1)
    arriving = evaluate(
        """
        const rows = [...run.rows[0]].slice(5, 60).filter((row) => run.times[row] - run.times[row - 1] > 1e-3);
        return rows.map((row) => [row, marksAt(run, run.times[row] - 1e-6, 1 / 256).filter(
          (mark) => mark.worker === 0 && mark.kind === "push")]);
        """,
        tmp_path / "run",
    )
    assert len(arriving) > 20
    for row, marks in arriving:
        assert [mark["row"] for mark in marks] == [row]
        assert marks[0]["progress"] > 0.99


def test_predictions_are_those_of_the_theory(evaluate: Evaluate) -> None:
    code = """
        const of = (mode, share, workers, settings = {}) =>
          predictedStaleness({facts: given.modes[mode], workers, share, settings}, 4000);
        const plain = (found) => found && {...found, probabilities: [...found.probabilities]};
        return {c3: plain(of("async", 1 / 8, 8)), c4: [4, 2, 1, 1].map((rate) => of("async", rate / 8, 4).mean),
          c10: of("ssp:2", 1 / 3, 3).bound, bsp: of("bsp", 1 / 4, 4).mean,
          kasync: of("kasync:2", 1 / 8, 8).mean,
          none: [of("ringmaster:4", 0.5, 2), of("async", 0, 2),
            of("async", 0.5, 2, {fetch_every: 5, push_every: 1})]};
    """
    modes = ("async", "ssp:2", "bsp", "kasync:2", "ringmaster:4")
    found = evaluate(code, modes={mode: mode_facts(mode) for mode in modes})
    p = np.array(found["c3"]["probabilities"])
    tau = np.arange(len(p))
    assert p.sum() == pytest.approx(1)
    mean = float((p * tau).sum())
    assert mean == pytest.approx(7)
    assert (found["c3"]["mean"], found["c3"]["equal"]) == (7, 7)
    assert float((p * (tau - mean) ** 2).sum()) == pytest.approx(56, rel=1e-6)
    assert float(p[8:].sum()) == pytest.approx(0.3436, abs=1e-4)
    assert found["c4"] == [1, 3, 7, 7]
    assert (found["c10"], found["bsp"], found["kasync"], found["none"]) == (10, 0, 3, [None, None, None])


def test_the_view_survives_in_the_address(evaluate: Evaluate) -> None:
    views = evaluate(
        """
        const text = writeView(
          {at: 12, v: null, speed: 1 / 16, x: "updates", span: "all", lang: "es", theme: "dark", play: false});
        const odd = readView("#at=-1&speed=3&x=<script>&lang=xx&theme=1&play=yes");
        return [text, readView("#" + text), odd, readView("#v=1800").v];
        """
    )
    text, read, odd, version = views
    assert text == "at=12&speed=0.0625&x=updates&span=all&lang=es&theme=dark"
    assert read["at"] == 12 and read["theme"] == "dark" and read["lang"] == "es"
    assert odd == {
        "at": None,
        "v": None,
        "speed": 1,
        "x": "time",
        "span": "near",
        "lang": None,
        "theme": "auto",
        "play": False,
    }
    assert version == 1800


def test_text_can_be_read_on_every_colour_in_both_themes(evaluate: Evaluate) -> None:
    """WCAG AA: 4.5 for text, 3 for what is drawn."""
    style = (FOLDER / "style.css").read_text()
    blocks = [style[style.index(":root {") :], style[style.index(':root[data-theme="dark"] {') :]]
    themes = []
    for block in blocks:
        body = block[block.index("{") + 1 : block.index("}")]
        pairs = (part.split(":") for part in body.split(";") if part.strip().startswith("--"))
        themes.append({name.strip()[2:]: value.strip() for name, value in pairs})
    assert set(themes[0]) == set(themes[1])
    texts = [
        ("text", "back"), ("text", "surface"), ("muted", "back"), ("muted", "surface"), ("accent-text", "accent"),
        ("server-text", "server-back"), ("server-text", "shard-back"), ("text", "shard-back"), ("text", "worker-back"),
        ("text", "data-back"), ("text", "data-used"),
    ]  # fmt: skip
    drawn = [
        (name, "surface") for name in ("accent", "predicted", "drop", "train", "validation", "test", "worker", "server")
    ]
    for theme in themes:
        given = [[theme[one], theme[other]] for one, other in texts + drawn]
        found = evaluate(
            """
            const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
            return given.pairs.map(([one, other]) => contrast(rgb(one), rgb(other)));
            """,
            pairs=given,
        )
        for pair, value in zip(texts + drawn, found, strict=True):
            assert value >= (4.5 if pair in texts else 3), pair


def test_the_number_on_a_mark_can_be_read(evaluate: Evaluate) -> None:
    found = evaluate(
        """
        return Array.from({length: 101}, (_, i) => staleColor(i, 100)).map((color) =>
          contrast(color, textOn(color) === "#000" ? [0, 0, 0] : [255, 255, 255]));
        """
    )
    assert min(found) >= 4.5


@pytest.mark.parametrize("width", [300, 390, 768, 1400])
def test_boxes_are_inside_the_picture_and_apart(evaluate: Evaluate, width: int) -> None:
    cases = [[shards, workers] for shards in (1, 2, 5, 16) for workers in (1, 2, 4, 9, 64, 200)]
    found = evaluate(
        "return given.cases.map(([shards, workers]) => layout(given.width, shards, workers));", cases=cases, width=width
    )
    for (shards, workers), boxes in zip(cases, found, strict=True):
        assert len(boxes["shards"]) == shards and len(boxes["workers"]) == min(workers, 64)
        every = boxes["shards"] + boxes["workers"] + boxes["data"]
        for box in [*every, boxes["server"]]:
            assert box["x"] >= 0 and box["y"] >= 0 and box["width"] > 0
            assert box["x"] + box["width"] <= width + 1e-6 and box["y"] + box["height"] <= boxes["height"]
        for at, one in enumerate(every):
            for other in every[at + 1 :]:
                apart = (
                    one["x"] + one["width"] <= other["x"] + 1e-6
                    or other["x"] + other["width"] <= one["x"] + 1e-6
                    or one["y"] + one["height"] <= other["y"] + 1e-6
                    or other["y"] + other["height"] <= one["y"] + 1e-6
                )
                assert apart, (shards, workers, one, other)


@pytest.mark.parametrize("width", [300, 390, 768, 1400])
def test_a_mark_passes_behind_every_box_that_it_crosses(evaluate: Evaluate, width: int) -> None:
    """On a narrow page workers are in several rows; their boxes would be hard to read below discs and triangles."""
    cases = [[shards, workers] for shards in (1, 2, 5) for workers in (1, 2, 3, 4, 5, 8)]
    found = evaluate(
        """
        const inside = (box, {x, y}) => x > box.x && x < box.x + box.width && y > box.y && y < box.y + box.height;
        return given.cases.map(([shards, workers]) => {
          const boxes = layout(given.width, shards, workers);
          const crossed = new Set();
          boxes.workers.forEach((_, worker) => boxes.shards.forEach((__, shard) => {
            for (const kind of ["push", "pull"]) for (let step = 0; step <= 100; step++) {
              const place = placeOf({kind, worker, shard, progress: step / 100}, boxes);
              for (const box of [...boxes.shards, ...boxes.workers, ...boxes.data])
                if (inside(box, place)) crossed.add(box);
            }
          }));
          return [crossed.size, [...crossed].filter((box) => !boxes.covers.includes(box)).length];
        });
        """,
        cases=cases,
        width=width,
    )
    assert not any(uncovered for _, uncovered in found)
    assert any(crossed for crossed, _ in found) is (width < 800)  # eight workers have two rows in 768 pixels


def test_the_columns_of_a_chart_contain_every_finite_value_of_every_line_in_order(evaluate: Evaluate) -> None:
    found = evaluate(
        "const line = {x: [0, 1, 1, 2, 5], y: [3, NaN, 4, 5, 6]}; const points = {x: [-1, 2, 3], y: [7, 8, Infinity]};"
        "const [xs, ...columns] = columnsOf([line, points], {low: 0, high: 6});"
        "const pairs = (column) => xs.flatMap((x, i) => column[i] === undefined ? [] : [[x, column[i]]]);"
        "return {xs, line: pairs(columns[0]), points: pairs(columns[1]), none: columnsOf([], {low: 0, high: 1})};"
    )
    assert found["xs"] == sorted(found["xs"]) == [-1, 0, 1, 1, 2, 3, 5, 6]
    assert found["line"] == [[0, 3], [1, 4], [2, 5], [5, 6]]
    assert found["points"] == [[-1, 7], [2, 8]]
    assert found["none"] == [[0, 1]]


def test_the_range_of_a_chart_contains_its_lines_and_is_never_empty(evaluate: Evaluate) -> None:
    found = evaluate(
        "const range = (y, zero) => rangeOf([{y}, {y: [1e9], scale: false}], zero);"
        "return [range([1, 3], true), range([1, 3], false), range([0], true), range([NaN], false), range([0.1], true)];"
    )
    assert found[0][0] == 0 and 3 < found[0][1] < 4 and 0 < found[1][0] < 1
    assert all(low < high for low, high in found)


def test_the_values_at_a_pointer_are_the_newest_ones(evaluate: Evaluate) -> None:
    found = evaluate(
        "const lines = [{x: [1, 2, 4], y: [10, 20, 40], label: 'a'}, {x: [3], y: [5], label: 'b'}, {x: [0], y: [0]}];"
        "return [0, 3.5, 9].map((x) => valuesAt(lines, x, String));"
    )
    assert found == ["a 10 · b 5", "a 20 · b 5", "a 40 · b 5"]


def test_the_time_of_members_and_the_bytes_are_those_of_the_state(evaluate: Evaluate, tmp_path: Path) -> None:
    write_run(tmp_path / "run", pushes=400, workers=3)
    found = evaluate(
        "const state = new State(run).seek(run.count);"
        "const {x, pushed, pulled} = transferred(run);"
        "return {present: state.present, sum: memberships(run).reduce((sum, [from, to]) => sum + to - from, 0),"
        " pushed: pushed.at(-1), pulled: pulled.at(-1), rises: pushed.every((value, i) => !i || value > pushed[i - 1]),"
        " same: x.length === pushed.length};",
        tmp_path / "run",
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["sum"] == pytest.approx(found["present"])
    assert found["pushed"] == pytest.approx(summary["bytes_pushed"]) and found["rises"] and found["same"]
    assert found["pulled"] == pytest.approx(summary["bytes_pulled"])


def test_a_sentence_of_the_server_is_said_in_the_language_that_is_set(evaluate: Evaluate) -> None:
    problem = sentence("flag", flag="--mode", problem=sentence("one_of", choices="async, bsp"))
    given: list[str] = [
        sentence("change_not_made", reason=joined([problem, "[Errno 5] x"], "several_problems")),
        sentence("made_checkpoint", number="3", version=1234567),
        "free text",
        Sentence("text of a newer server", "newer", {}),
    ]
    found = evaluate(
        "const read = (name) => JSON.parse(readFileSync(`texts/${name}.json`, 'utf8'));"
        "return ['en', 'es'].map((name) => { setTexts(name, read(name)); return given.sentences.map(sentenceText); });",
        sentences=[to_json(each) for each in given],
    )
    assert found[0] == list(map(str, given))
    assert found[1] == [
        "el cambio no se hizo: --mode debe ser uno de async, bsp; [Errno 5] x",
        "el punto de control 3 tiene la versión 1.234.567", "free text", "text of a newer server",
    ]  # fmt: skip


def test_pauses_and_checkpoints_of_a_running_job_are_events(evaluate: Evaluate) -> None:
    progress = pb.Progress(phase="training", shards=1, elapsed_s=3.0, notes=["paused", "free text"])
    progress.sentences.extend(map(to_proto, (sentence("paused"), "free text")))
    progress.events.add(kind="checkpoint", elapsed_s=1.5, number=4, version=77)
    progress.events.add(kind="paused", elapsed_s=2.5)
    again = pb.Progress(phase="training", shards=1, events=progress.events)
    found = evaluate(
        "const job = new LiveJob();"
        "const {run: first} = await job.take(given.messages[0], () => null);"
        "const {run: second} = await job.take(given.messages[1], () => null);"
        "return [first, second].map((run) => run.events.filter((event) => event.kind !== 'phase'));",
        messages=[MessageBuilder().build(progress), MessageBuilder().build(again)],
    )
    assert [(event["kind"], event["seconds"]) for event in found[0]] == [
        ("checkpoint", 1.5), ("paused", 2.5), ("note", 3.0),
    ]  # fmt: skip
    assert (found[0][0]["number"], found[0][0]["version"], found[0][2]["text"]) == (4, 77, "free text")
    assert len(found[1]) == len(found[0])


def test_ticks_are_round_and_inside(evaluate: Evaluate) -> None:
    found = evaluate("return [ticks(0, 7.8, 5), ticks(-0.1, 2.4, 4), ticks(3, 3, 4), ticks(0, 3564, 6)];")
    assert found == [[0, 2, 4, 6], [0, 1, 2], [3], [0, 1000, 2000, 3000]]


def test_a_running_job_that_is_taken_in_parts_is_the_run_of_its_trace(tmp_path: Path, evaluate: Evaluate) -> None:
    traces = [write_run(tmp_path / "run", pushes=600, workers=3, shards=2)] + [load_run(tmp_path / "run").traces[1]]
    builder, messages = MessageBuilder(), []
    for begin in range(0, 600, 200):
        records = [
            pb.TraceRecords(shard=shard, records=trace[begin : begin + 200].tobytes())
            for shard, trace in enumerate(traces)
        ]
        workers = [pb.WorkerProgress(worker=worker, incarnation=1, state="training") for worker in range(3)]
        messages.append(
            builder.build(
                pb.Progress(phase="training", mode="async", shards=2, elapsed_s=1.0, records=records, workers=workers)
            )
        )
    found = evaluate(
        "const job = new LiveJob(); let [pauses, taken] = [0, null];"
        "for (const message of given.messages) taken = (await job.take(message, async () => { pauses += 1; })).run;"
        "const {header, tables} = taken; const whole = new Run({header, tables});"
        "const state = new State(taken).seek(taken.count);"
        "const names = ['workers', 'rows', 'steps', 'times', 'shardTimes', 'sameOnShard', 'smooth', 'waitUntil'];"
        "const same = taken.sameOnShard[1].filter((row) => row >= 0).length;"
        "return {pauses, count: taken.count, versions: [...taken.push.version], same,"
        " differing: names.filter((name) => JSON.stringify(taken[name]) !== JSON.stringify(whole[name])),"
        " pushes: state.workers.map((worker) => worker.pushes), leases: taken.leases.size};",
        messages=messages,
    )
    assert found["count"] == 600 and found["differing"] == []
    assert found["versions"] == traces[0]["version"].tolist()
    assert found["same"] > 0 and sum(found["pushes"]) == 600
    assert found["pauses"] >= 3 * 5, "the work on each message is divided"


def test_a_worker_that_is_gone_keeps_its_counts_and_the_page_counts_removed_records(evaluate: Evaluate) -> None:
    def message(version: int, *updates: int) -> dict[str, Any]:
        trace = np.zeros(1, DTYPE)
        trace["version"], trace["worker"], trace["time_s"], trace["seq"] = version, 0, version, version
        workers = [pb.WorkerProgress(worker=at, incarnation=1, updates=count) for at, count in enumerate(updates)]
        records = [pb.TraceRecords(shard=0, records=trace.tobytes())]
        return MessageBuilder().build(
            pb.Progress(phase="training", mode="async", shards=1, version=version, elapsed_s=version, workers=workers,
                        records=records)
        )  # fmt: skip

    found = evaluate(
        "const job = new LiveJob(); let taken = null;"
        "for (const message of given.messages) taken = (await job.take(message, async () => {})).run;"
        "const state = new State(taken).seek(taken.count);"
        "const updates = state.workers.map((worker) => worker.updates);"
        "return {updates, applied: state.applied, window: taken.header.window};",
        messages=[message(100, 60, 40), message(130, 90)],
    )
    assert found == {"updates": [90, 40], "applied": 130, "window": {"first": 0, "records": 2, "of": 2}}


def test_the_time_without_a_process_is_not_part_of_a_step(tmp_path: Path, evaluate: Evaluate) -> None:
    write_run(tmp_path / "run", pushes=300, workers=2, shards=1)
    found = evaluate(
        "const {header, tables} = run; const rows = run.rows[0]; const at = 20;"
        "const incarnation = Uint32Array.from(tables.shard0.incarnation);"
        "for (const row of rows.slice(at)) incarnation[row] = 2;"
        "const time_us = tables.shard0.time_us.map((time, row) => time + (row >= rows[at] ? 9e6 : 0));"
        "const later = new Run({header, tables: {...tables, shard0: {...tables.shard0, incarnation, time_us}}});"
        "const step = later.stepOf(0, at);"
        "const after = step.begins - later.stepOf(0, at - 1).ends;"
        "return {long: step.ends - step.begins, median: later.steps[0], after};",
        tmp_path / "run",
    )
    assert found["long"] == pytest.approx(found["median"]) and found["after"] > 8


def test_marks_of_workers_in_step_do_not_travel_together(tmp_path: Path, evaluate: Evaluate) -> None:
    write_run(tmp_path / "run", pushes=4000, workers=8, shards=1)
    found = evaluate(
        "const shard0 = {...run.tables.shard0, worker: run.push.worker.map((_, row) => row % 8),"
        " time_us: run.push.time_us.map((_, row) => 1000 * row), wait_us: run.push.wait_us.map(() => 0)};"
        "const even = new Run({header: {...run.header, events: []}, tables: {...run.tables, shard0}});"
        "return Array.from({length: 200}, (_, i) => marksAt(even, 1 + i / 100, 1).length);",
        tmp_path / "run",
    )
    assert min(found) > 0, "there is no moment at which all marks have arrived"
    assert max(found) <= 8, "at most one mark of each worker travels"
