"""The arithmetic, the flags and the results of the comparisons; nothing here trains or is timed."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.bench.__main__ import BENCHES
from downpour.bench.comparison import order, plan_epochs, ratios, spread, table
from downpour.bench.competitors.competitors import COMPETITORS
from downpour.bench.machine import facts
from downpour.bench.training import baselines, quality, seeds


@given(
    samples=st.integers(1, 10**7),
    batch_size=st.integers(1, 512),
    steps=st.integers(1, 50),
    available=st.integers(1, 60_000),
)
def test_an_epoch_is_whole_calls_that_the_dataset_has(samples, batch_size, steps, available):
    call = batch_size * steps
    if call > available:
        with pytest.raises(ValueError, match="must fit into the dataset"):
            plan_epochs(samples, batch_size, steps, available)
        return
    epoch_samples, epochs = plan_epochs(samples, batch_size, steps, available)
    assert epoch_samples % call == 0
    assert 0 < epoch_samples <= available
    assert samples <= epoch_samples * epochs < samples + call * (epochs + 1)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least 1. Received: 0"):
        plan_epochs(0, 32, 20, 60_000)


def test_two_epochs_of_the_reference():
    assert plan_epochs(114_000, 32, 20, 60_000) == (57_600, 2)


@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=9))
def test_the_quartiles_enclose_the_median(values):
    found = spread(values)
    assert min(values) <= found["q1"] <= found["median"] <= found["q3"] <= max(values)


def _run(repeat, rate):
    return {
        "repeat": repeat,
        "samples_per_s": rate,
        "samples": 640,
        "wall_s": 640 / rate,
        "loss": 1.0,
        "accuracy": 0.5,
    }


def test_a_ratio_is_taken_within_a_repeat():
    # The second repeat saw a machine half as fast, the third did not end for `fit`.
    runs = {
        "downpour": [_run(0, 800.0), _run(1, 400.0), _run(2, 800.0)],
        "fit": [_run(0, 400.0), _run(1, 200.0)],
        "tf_ps": [],
    }
    assert ratios(runs, "downpour") == {"fit": {"median": 2.0, "q1": 2.0, "q3": 2.0}}
    assert ratios(runs, "downpour_grpc") == {}


@given(st.lists(st.text(min_size=1), min_size=1, max_size=7, unique=True))
def test_in_as_many_repeats_as_names_each_name_has_each_place(names):
    orders = [order(names, repeat) for repeat in range(len(names))]
    assert all(set(place) == set(names) for place in zip(*orders, strict=True))


def test_results_have_what_is_needed_to_judge_and_to_repeat_them(tmp_path):
    runs = {name: [_run(repeat, 100.0 + repeat) for repeat in range(3)] for name in COMPETITORS}
    measured = {
        "job": {},
        "batch_size": 32,
        "epoch_samples": 640,
        "samples": 640,
        **baselines.collect(runs),
        "failures": [],
    }
    results = {
        "command": "downpour bench baselines",
        "machine": facts(),
        "repeats": 3,
        "models": {"cnn": measured},
    }
    baselines.write(results, tmp_path / "new")
    read = json.loads((tmp_path / "new" / "results.json").read_text())
    assert read == results
    competitors = read["models"]["cnn"]["competitors"]
    assert list(competitors) == list(COMPETITORS)
    assert all(row["samples_per_s"] == {"median": 101.0, "q1": 100.5, "q3": 101.5} for row in competitors.values())
    assert set(read["models"]["cnn"]["ratios"]) == set(baselines.OURS)
    report = (tmp_path / "new" / "report.md").read_text()
    assert all(row.what in report for row in COMPETITORS.values())


def test_a_competitor_that_failed_is_absent_from_the_table():
    runs = {"downpour": [], "fit": [_run(0, 100.0)], "tf_ps": [_run(0, 50.0)]}
    collected = baselines.collect(runs)
    assert collected["ratios"] == {}
    text = table({"batch_size": 32, **collected})
    assert len(text.splitlines()) == 4
    assert "nan" not in text


def test_flags_are_complete_after_parsing():
    flags = baselines.parse([])
    assert (flags.models, flags.repeats) == (["sigmoid100", "cnn"], 3)
    assert flags.competitors == list(COMPETITORS)
    quick = baselines.parse(["--quick", "--competitors", "fit,tf_ps"])
    assert (quick.models, quick.repeats, quick.competitors) == (["sigmoid100"], 1, ["fit", "tf_ps"])
    assert baselines.parse(["--quick", "--model", "both", "--repeats", "2"]).repeats == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--competitors", "fit,torch"], "received torch"),
        (["--samples", "0"], "must be a whole number, at least 1; received '0'"),
        (["--model", "resnet"], "must be one of sigmoid100, cnn, both; received 'resnet'"),
    ],
)
def test_an_invalid_flag_is_quoted_in_the_message(argv, message, capsys):
    with pytest.raises(SystemExit) as ended:
        baselines.parse(argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_every_model_has_a_default_for_everything():
    assert set(baselines.SAMPLES) == set(baselines.QUICK_SAMPLES) == set(baselines.LEARNING_RATES)


@pytest.mark.parametrize(
    ("text", "expected"), [("0-4", [0, 1, 2, 3, 4]), ("2,4,8", [2, 4, 8]), ("7,0-2", [7, 0, 1, 2])]
)
def test_numbers_are_ranges_and_lists(text, expected):
    assert seeds.numbers(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "4-0", "1,1", "0-2,2"])
def test_bad_numbers_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        quality.parse([f"--seeds={text}"])
    assert repr(text) in capsys.readouterr().err


def test_arguments_after_two_dashes_are_passed_to_train():
    flags = quality.parse(["--seeds", "1", "--", "--mode", "ssp"])
    assert (flags.seeds, flags.train_flags) == ([1], ("--mode", "ssp"))
    assert quality.parse([]).train_flags == ()


def _accuracies(*values):
    return [
        {"seed": seed, "test_accuracy": value, "samples_per_s": 1.0, "mean_staleness": None}
        for seed, value in enumerate(values)
    ]


def test_a_mean_below_keras_by_more_than_is_allowed_fails():
    rows = quality.judge(
        {
            "keras": _accuracies(0.960, 0.962),
            "2": _accuracies(0.960, 0.9595),
            "4": _accuracies(0.958, 0.957),
            "16": _accuracies(0.1, 0.1),
        }
    )
    assert {name: row["passed"] for name, row in rows.items()} == {
        "keras": None,
        "2": False,
        "4": True,
        "16": None,
    }
    assert rows["2"]["gap"] == pytest.approx(0.00125)
    text = quality.table(rows)
    assert text.count("FAILED") == 1
    assert text.count("passed") == 1


def test_only_seeds_that_keras_finished_count():
    rows = quality.judge({"keras": _accuracies(0.96), "2": _accuracies(0.96, 0.1)})
    assert (rows["2"]["gap"], rows["2"]["passed"]) == (0.0, True)
    assert quality.judge({"keras": [], "2": _accuracies(0.9)}) == {}


def test_the_machine_facts_contain_no_path():
    found = facts()
    assert int(found["cores"]) >= 1
    assert {"cpu", "memory_gib", "python", "tensorflow", "keras", "numpy", "grpcio"} <= set(found)
    assert "/" not in "".join(str(value) for name, value in found.items() if name != "cpu")


def test_every_bench_is_listed_and_an_unknown_one_refused():
    command = [sys.executable, "-m", "downpour.bench"]
    listed = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert all(name in listed.stdout for name in BENCHES)
    unknown = subprocess.run([*command, "speed"], capture_output=True, text=True, timeout=60)
    assert unknown.returncode == 2
    assert "unknown benchmark speed (did you mean speedup?)" in unknown.stderr
