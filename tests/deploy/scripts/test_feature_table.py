"""What a job of `downpour train` and a script have in common, feature by feature, with the tests that prove both.

The rows name settings and tests. What the table says of them comes from the classes of settings and the registries: a
setting belongs to one row, so that a new one cannot be given to one kind of job alone without a reason.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache

import pytest

from downpour.deploy.config import TrainSettings
from downpour.deploy.scripts.script_settings import NOT_OF_A_SCRIPT, RunSettings
from downpour.protos.codecs.codec import CODECS
from downpour.protos.settings import flag
from downpour.protos.transports import TRANSPORTS
from downpour.ps.core.consistency import MODES
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- features: begin -->\n", "<!-- features: end -->\n"
REGISTRIES = {"mode": [row.example for row in MODES.values()], "codec": list(CODECS), "transport": list(TRANSPORTS)}


@dataclass(frozen=True)
class Feature:
    """One row: what a job does, the settings of it, and the tests of both kinds of jobs.

    Attributes:
        name: What a job does.
        settings: The names of the settings that only concern it.
        train: Tests with `downpour train`, `file.py::test`.
        script: Tests with scripts.
        differs: How a script differs, and why; empty if it does not.
    """

    name: str
    settings: str = ""
    train: str = ""
    script: str = ""
    differs: str = ""


FEATURES = [
    Feature(
        "checkpoints, resuming a run, restarts of dead servers and workers",
        "checkpoint_every checkpoint_keep resume server_restarts worker_restarts",
        "test_failover.py::test_a_restored_job_continues_bit_by_bit",
        "test_server_death.py::test_a_killed_server_loses_and_doubles_no_sample "
        "test_resumed_scripts.py::test_complete_calls_return_at_once_and_the_interrupted_one_goes_on",
    ),
    Feature(
        "each sample of an epoch is used once",
        "",
        "test_chaos.py::test_killed_processes_lose_no_update",
        "test_leased_arrays.py::test_the_samples_of_a_killed_worker_are_used_by_the_others "
        "test_leased_py_dataset.py::test_each_batch_of_an_epoch_is_made_once_over_all_workers",
        "for arrays, tensors and a `PyDataset` of known length; other data can only be read forward",
    ),
    Feature(
        "a faster worker takes more samples",
        "lease_batches",
        "test_come_and_go.py::test_a_worker_that_joins_in_the_middle_takes_its_share",
        "test_leased_dataset.py::test_workers_share_an_epoch_without_an_overlap",
        "for the same data",
    ),
    Feature(
        "modes, local steps, intervals of pushes and pulls, compensation of staleness",
        "mode push_every fetch_every overlap staleness_policy version_memory warm_start momentum_correction",
        "test_pipelined_steps.py",
        "test_server_death.py::test_local_steps_lose_and_double_no_sample_when_a_server_is_killed "
        "test_own_steps.py::test_every_batch_is_pushed_once_in_the_order_of_its_lease",
    ),
    Feature(
        "replay, bit for bit, also up to a version",
        "record",
        "test_replay_runs.py::test_a_run_is_replayed_bit_by_bit",
        "test_replay_scripts.py::test_a_script_of_three_workers_is_replayed_bit_by_bit "
        "test_replay_scripts.py::test_the_weights_of_a_version_are_those_of_the_checkpoint",
        "if it depends neither on the time nor on the operating system's random numbers; otherwise the first push that "
        "differs is named",
    ),
    Feature(
        "workers that hang, lost sessions, servers that are away",
        "session_s reconnect_s idle_timeout_s drain_timeout_s",
        "test_failover.py::test_a_worker_that_hangs_loses_its_lease",
        "test_suspended.py::test_a_worker_that_stops_in_a_batch_for_ever_does_not_hold_up_the_others "
        "test_suspended.py::test_a_server_that_was_suspended_for_longer_than_a_call_may_last",
        "a step that does not end cannot be interrupted from outside, because it is the script's own code: the others "
        "use its samples, and its process is ended when the script of worker 0 has ended",
    ),
    Feature(
        "`model.keras` in the run directory, `downpour evaluate` and `downpour export`",
        "runs_dir",
        "test_own_models.py",
        "test_fitted_model.py",
    ),
    Feature(
        "validation, spread over the workers",
        "spread_validation",
        "test_coordinator.py::test_an_epoch_is_evaluated_on_weights_that_every_shard_has_pinned",
        "test_spread_validation.py::test_every_worker_validates_a_part_and_the_logs_are_those_of_one_process",
        "with this option, after an epoch, because Keras's loop trains on when it has the logs; `downpour train` "
        "validates while training continues",
    ),
    Feature("XLA by measurement", "xla", "test_gradient.py::test_finite_differences"),
    Feature(
        "weights that the step reads where they were received",
        "",
        "test_zero_copy.py",
        "test_keras_run.py::test_the_models_weights_are_its_own_memory",
        "with one copy more and their assignment to the variables, which are the script's own; measured in "
        "[keras.md](keras.md#speed)",
    ),
    Feature(
        "logs, metrics, TensorBoard, dashboard",
        "log_format metrics_port tensorboard dashboard verbose",
        "test_operations.py",
        "test_script_settings.py::test_a_setting_reaches_every_process_that_has_it",
    ),
    Feature(
        "TLS and token",
        "tls_dir token_file",
        "test_security.py",
        "test_script_settings.py::test_a_script_trains_with_tls_a_token_and_corrected_momentum",
    ),
    Feature(
        "gradients: largest norm, limit of those that are not finite, codec, transport",
        "clip_norm nonfinite_limit codec transport",
        "test_end_to_end.py",
        "test_script_settings.py::test_a_setting_reaches_every_process_that_has_it",
    ),
    Feature(
        "processes of the cluster",
        "workers shards seed threads gpus_per_worker dry_run",
        "test_small_job.py",
        "test_script_settings.py::test_a_setting_reaches_every_process_that_has_it",
    ),
    Feature(
        "`LocalCluster` in a notebook: progress, interrupt, resume, a second `fit`, callbacks",
        "",
        "",
        "test_notebook.py::test_an_interactive_process_trains_on_a_cluster_then_in_plain_keras "
        "test_notebook.py::test_callbacks_run_in_the_program_and_what_they_set_reaches_the_workers "
        "test_notebook.py::test_a_notebook_shows_one_line_that_is_redrawn",
    ),
    Feature(
        "model, data, optimizer, learning rate, length of training",
        "model weights dataset scale epochs batch_size validation_split early_stopping optimizer schedule warm_up "
        "learning_rate weight_decay momentum initial_accumulator_value epsilon rho beta_1 beta_2 learning_rate_power "
        "l1_regularization_strength l2_regularization_strength l2_shrinkage_regularization_strength beta",
        "test_own_models.py",
        "test_keras_run.py::test_one_worker_with_servers_makes_the_updates_of_plain_keras",
    ),
]


def script_cell(feature: Feature) -> str:
    """Return what a script has of a feature, by the classes of settings."""
    names = feature.settings.split()
    absent: dict[str, list[str]] = {}
    for name in names:
        if name not in RunSettings.model_fields:
            absent.setdefault(NOT_OF_A_SCRIPT[name], []).append(f"`{flag(name)}`")
    if len(absent) > 2:
        return "The script defines them."
    reasons = [f"without {', '.join(flags)}: {reason}" for reason, flags in absent.items()]
    if reasons and len(names) == len(sum(absent.values(), [])):
        return "no. " + " ".join(absent)
    return "; ".join([*([f"yes, {feature.differs}"] if feature.differs else ["yes"]), *reasons])


def table() -> str:
    """Return the table of docs/guarantees.md."""
    heads = ("feature", "settings", "a script", "tests with `downpour train`", "tests with a script")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for feature in FEATURES:
        settings = []
        for name in feature.settings.split():
            values = f" ({', '.join(f'`{value}`' for value in REGISTRIES[name])})" if name in REGISTRIES else ""
            settings.append(f"`{flag(name)}`{values}")
        tests = [", ".join(f"`{test}`" for test in each.split()) for each in (feature.train, feature.script)]
        cells = (feature.name, ", ".join(settings), script_cell(feature), *(each or "–" for each in tests))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


@cache
def functions_in(file: str) -> set[str]:
    """Return the names of the tests in the files of a name."""
    found = list((ROOT / "tests").rglob(file))
    assert found, f"there is no {file}"
    return {
        node.name
        for path in found
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_setting_of_both_kinds_of_jobs_belongs_to_one_feature() -> None:
    counts = Counter(name for feature in FEATURES for name in feature.settings.split())
    assert set(counts) == set(TrainSettings.model_fields) | set(RunSettings.model_fields)
    assert set(counts.values()) == {1}, "a setting in two rows"


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_of_a_script_is_proved_by_tests_that_exist(feature: Feature) -> None:
    has_it = not script_cell(feature).startswith("no.")
    assert bool(feature.script) == has_it, "a test with a script for what a script has"
    for test in [*feature.train.split(), *feature.script.split()]:
        file, _, name = test.partition("::")
        assert not name or name in functions_in(file), f"{file} has no {name}"
        assert functions_in(file)


def test_the_documentation_shows_the_table() -> None:
    text = PAGE.read_text()
    assert BEGIN in text and END in text
    assert text.split(BEGIN)[1].split(END)[0] == table(), f"docs/guarantees.md must contain:\n{table()}"
