"""The English notes of a job: what happened while it ran, and why it ended."""

from __future__ import annotations

NOTES = {
    # what operators do
    "paused": "paused: no samples are leased until it is resumed",
    "resumed": "resumed",
    "worker_added": "a worker is added: the job wants {workers}",
    "changed": "changed from version {version} on: {change}",
    "setting": "{name} {value} (was {before})",
    "several_settings": "{first}, {rest}",
    "name_mode": "mode",
    "name_staleness_policy": "compensation",
    "name_learning_rate": "learning rate",
    "checkpoint_requested": "checkpoint {number} was requested: it has version {version}",
    "draining": "draining: {reason}",
    "asked_to_stop": "asked to stop",
    "operator_requested": "the operator requested it",
    "user_requested": "the user requested it",
    "no_worker_left": "no worker is left",
    "stopped_at_once": "stopped at once: {reason}",
    "stopped_before_training": "stopped before training began: there is nothing to save",
    "drained_while_recovering": (
        "{reason} while the job recovered, and no model is saved: its last checkpoint can be resumed"
    ),
    # workers
    "gave_up": "worker {worker} gave up: {reason}",
    "gave_up_again": "worker {worker} gave up for the same reason",
    "no_heartbeat": "worker {worker} has sent no heartbeat: its samples are leased again",
    "no_progress": (
        "worker {worker} sends heartbeats but has made no progress for {seconds} s: its samples are leased again"
    ),
    "no_progress_for_others": (
        "worker {worker} sends heartbeats but has made no progress for {seconds} s, and others wait for it: its "
        "session has ended"
    ),
    "leader_absent": "worker {worker} has been absent from fit for {seconds} s, and it decides for all",
    "part_absent": (
        "worker {worker} has been absent from fit for {seconds} s, and its part of the data was not used in this "
        "epoch: its log states the reason. Correct it, or use a LeasedDataset, whose samples other workers take over"
    ),
    "no_worker_to_save": "no worker is left to save the model: the last checkpoint can be resumed",
    "not_saved_in_time": "no worker saved the model within {seconds} s: the last checkpoint can be resumed",
    "no_worker_for": "no worker for {seconds} s: start one, or allow more with --idle-timeout-s",
    "samples_unused": (
        "every sample of an epoch must be used; {unused} of {samples} were not, and no callback has stopped the "
        "training. Report this, with the logs of the workers"
    ),
    "saved_and_partly_evaluated": (
        "the model is saved and evaluated on the first {samples} of {total} test samples: there was no time for more"
    ),
    "saved_and_not_evaluated": "the model is saved and not evaluated: there was no time for more",
    # shards and recovery
    "shard_lost_waits": (
        "shard {shard} was lost: the job waits up to {seconds} s for it, and then resumes from the last checkpoint"
    ),
    "shard_lost_no_checkpoints": "shard {shard} was lost, and no checkpoints are written (--checkpoint-every off)",
    "shard_lost_in_drain": "shard {shard} was lost while the job was drained",
    "shard_lost_in_drain_resumable": (
        "shard {shard} was lost while the job was drained; its last checkpoint can be resumed"
    ),
    "shard_lost_after_end": "shard {shard} was lost after the end of the job: its trace may lack the newest records",
    "shard_not_confirmed": (
        "shard {shard} has not confirmed the end of the job: its trace may lack the newest records"
    ),
    "shards_not_back": "shards {shards} did not reconnect within {seconds} s: the job can be resumed",
    "starts_over": "there is no checkpoint to resume from: the job starts over",
    "resumed_from": "resumed from checkpoint {number}: version {version}",
    "resumed_from_used": "resumed from checkpoint {number}: version {version}, {used} of {total} samples used",
    "not_resumable": "the job cannot be resumed from its checkpoint: {reason}",
    "no_checkpoint_readable": (
        "no checkpoint of this run can be read ({tried} tried): move {folder} away to start over, or choose another "
        "--run-dir"
    ),
    "checkpoint_refused": "checkpoint refused, the one before is used: {reason}",
    "trace_lacks_one": ("the trace of shard {shard} lacks 1 record of earlier updates, which the disk has lost"),
    "trace_lacks": ("the trace of shard {shard} lacks {count} records of earlier updates, which the disk has lost"),
    # files
    "settings_not_written": "the settings stay as they are: {file} cannot be written: {reason}",
    "fit_state_not_written": "the state of fit could not be written, training continues: {reason}",
    "no_checkpoint_written": "no checkpoint could be written, training continues: {reason}",
    "checkpoints_again": "checkpoints can be written again",
    "generation_not_written": "the generation cannot be written, the job continues: {reason}",
    "run_directory_waits": "the run directory cannot be written, the job waits: {reason}",
    "run_directory_removed": "the run directory was removed, and nothing of the run can be kept: {folder}",
    "run_directory_not_locked": (
        "the run directory cannot be locked ({reason}): nothing prevents a second server from using it"
    ),
    "no_latest_link": "there is no link `latest` to the run directory: {reason}",
    "initial_weights_not_written": ("the run cannot be replayed: its initial weights were not written: {reason}"),
    "model_not_written": "the trained model cannot be written: {reason}; make room, and resume the job",
    "trace_not_written": "the trace cannot be written, training continues: {reason}",
    "trace_again": "the trace is written again",
    "file_not_written": "{file} cannot be written: {reason}",
    "tensorboard_not_written": "TensorBoard's file cannot be written, training continues: {reason}",
    "tensorboard_again": "TensorBoard's file is written again",
    # phases
    **{
        f"phase_{name}": name
        for name in "waiting initialising warming training draining finishing ended failed recovering".split()
    },
    # training
    "loss_risen": (
        "the training loss has risen from {first} to {mean}: the learning rate is too large; try a tenth of it, or "
        "fewer workers"
    ),
}
