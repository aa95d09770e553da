"""The English sentences on settings: values and combinations that cannot work, and those that are unwise."""

from __future__ import annotations

SETTINGS = {
    # single values
    "flag": "{flag} {problem}",
    "several_problems": "{first}; {rest}",
    "one_of": "must be one of {choices}",
    "one_of_near": "must be one of {choices} (did you mean {near}?)",
    "written": "must be written {form}",
    "written_with": "must be written {form} with {name} {must}",
    "whole_number": "a whole number of at least {least}",
    "number_or_zero": "a finite number of at least 0",
    "number_above_zero": "a finite number above 0",
    "number_of_batches": "a number of at least 0; with the suffix b, in units of the batch size (1b)",
    "number_auto_or_drop": "a number above 0, auto or drop",
    # combinations that cannot work
    "mode_needs_workers": (
        "--mode {mode} waits for {needed} workers at a time and needs at least that many; received --workers "
        "{workers}. It would wait without end"
    ),
    "weights_have_no_staleness": (
        "--mode {mode} exchanges weights, which have no staleness to compensate; received --staleness-policy {policy}. "
        "Leave it out"
    ),
    "momentum_is_in_workers": (
        "--momentum-correction takes from the momentum of the servers' updates, and in --mode {mode} the workers make "
        "them. Leave it out"
    ),
    "policy_corrects_gradients": (
        "--staleness-policy {policy} corrects gradients, and --mode {mode} pushes differences of weights. Use "
        "--staleness-policy {others}"
    ),
    "rate_is_constant": (
        "--mode {mode} makes its steps in the workers, at a constant learning rate; received --schedule {schedule} "
        "--warm-up {warm_up}. Leave both out"
    ),
    "no_momentum": (
        "--momentum-correction takes from an optimizer's momentum; received --optimizer {optimizer} without any. Use "
        "{others}, or set --momentum"
    ),
    "mode_has_steps": (
        "--mode {mode} prescribes the number of local steps; received --push-every {push_every} --fetch-every "
        "{fetch_every}. Leave both out"
    ),
    "overlap_and_mode": (
        "--overlap computes from weights one exchange old, and --mode {mode} cannot use such gradients. Use "
        "--no-overlap, or --mode {others}"
    ),
    "overlap_and_fetch": (
        "--overlap needs weights with every push; received --push-every {push_every} --fetch-every {fetch_every}. "
        "Leave --fetch-every out"
    ),
    "other_choice": "{first}, {rest}",
    "last_choice": "{first} or {rest}",
    # a change of a running job
    "workers_keep_weights": (
        "the mode and the learning rate can change while workers push gradients; in mode {mode} they push a {payload}, "
        "which they compute with the settings that they started with. Start a new job."
    ),
    "payload_replica": "replica",
    "payload_difference": "difference",
    "rate_of_script": (
        "the learning rate of a script is that of its own optimizer and callbacks; change it there, for example with "
        "keras.callbacks.LearningRateScheduler."
    ),
    "rate_of_local_steps": (
        "the learning rate can change if workers make no local steps; this job has --push-every {push_every}, whose "
        "steps keep the learning rate that the workers started with."
    ),
    # unwise combinations
    "optimizer_not_used": (
        "{mode} makes its steps in the workers, by plain gradient descent: --optimizer {optimizer} is not used"
    ),
    "slow_workers_weigh_less": ("{policy} reduces the weight of slow workers: their samples are under-represented"),
    "nothing_is_stale": "--staleness-policy {policy} changes nothing in mode {mode}: no gradient is stale",
    "step_diverges": (
        "a step of {step} (learning rate over 1 − momentum) at a staleness of {staleness} diverges where the curvature "
        "is above {curvature}: lower --learning-rate, use --momentum-correction or --staleness-policy delay_adaptive"
    ),
    "one_gradient_of_many": "an update of 1 gradient drops the work of more than half of {workers} workers",
    "gradients_of_many": ("an update of {count} gradients drops the work of more than half of {workers} workers"),
    "ksync_is_backup": (
        "a step that runs in a worker is not interrupted: ksync behaves like backup here, and late gradients are "
        "dropped"
    ),
    "softsync_repeats": (
        "softsync averages {count} pushes of {workers} workers: some will hold several gradients of one worker from "
        "the same weights; a count of at most {workers} avoids that"
    ),
    "softsync_of_one": (
        "softsync averages {count} pushes of 1 worker: some will hold several gradients of one worker from the same "
        "weights; a count of at most 1 avoids that"
    ),
    "ringmaster_drops": (
        "with {workers} equally fast workers staleness is {staleness}, and ringmaster drops what reaches {limit}: much "
        "work will be lost; a limit of {workers} or more keeps it"
    ),
    "rennala_is_slow": "rennala collects {count} gradients from {workers} workers for one step: steps will be few",
    "rennala_of_one": "rennala collects {count} gradients from 1 worker for one step: steps will be few",
    "easgd_diverges": (
        "easgd's moving rate α = η·RHO is {rate}: above (4 − 2ηh)/(4 − ηh), h the curvature, it diverges"
    ),
    # the playground
    "field_one_of": "{name} must be one of {choices}; received {received}",
    "field_in_range": "{name} must be {least} to {most}; received {received}",
    "field_number": "{name} must be a number; received {received}",
    "layers": "hidden must be at most {layers} layers of 1 to {units} units; received {received}",
    "hidden_numbers": "hidden must be numbers of units such as 4,2; received {received}",
    "mode_needs": "mode {mode} needs {needed} workers; received {received}",
    "rate_in_range": "η must be above 0 and at most 100; received {received}",
    "momentum_in_range": "momentum must be at least 0 and below 1; received {received}",
    "most_trainings": "at most {most} trainings can run at once",
}
