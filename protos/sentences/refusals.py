"""The English reasons for which a request of a user is refused, and the answers to one that is carried out."""

from __future__ import annotations

REFUSALS = {
    # the coordinator
    "pause_needs_training": "a job can be paused or resumed while it trains; this one is {phase}.",
    "pause_needs_leases": "a job can be paused if its samples are leased; those of this script are not.",
    "change_needs_training": "the settings of a job can change while it trains; this one is {phase}.",
    "change_pending": "an earlier change is not made yet: {change}. Try again in a moment.",
    "change_empty": "a change must give a mode, a compensation or a learning rate; received none of them.",
    "change_too_long": "a setting must have at most {most} characters; received more.",
    "change_not_made": "the change was not made: {reason}",
    "change_late": "the change must be made within {seconds} s; it has not been made yet, and is still pending.",
    "checkpoint_needs_training": "a checkpoint can be taken while the job trains; this one is {phase}.",
    "checkpoint_needs_leases": "a checkpoint can be taken if samples are leased; those of this script are not.",
    "checkpoint_not_written": "the checkpoint could not be written: {reason}",
    "checkpoint_late": (
        "the checkpoint must be made within {seconds} s; it has not been made yet, and is still pending."
    ),
    "worker_needs_training": "a worker can be added while the job trains; this one is {phase}.",
    "workers_of_script": (
        "the number of a script's workers is fixed by --workers, because its processes divide their work by rank and "
        "size. Start the script again with more."
    ),
    "no_launcher": (
        "the launcher of the job must run to start a worker; no launcher watches this job. Start one with `downpour "
        "worker --server ADDRESS`, or with docker compose --scale worker=N."
    ),
    "unreachable": "no parameter server answers at {address}: {reason}",
    "unreachable_hint": "no parameter server answers at {address}: {reason}. {hint}",
    "no_answer": "no answer from {address} in time",
    "no_answer_because": "no answer from {address} in time: {reason}",
    "no_parameter_server": "what answers at {address} is no parameter server",
    "stream_ended": "{address} ended the stream",
    "hint_tls": "The server must have TLS, with a certificate of the authority in this process's --tls-dir.",
    "hint_no_tls": "A server with TLS closes a connection without: give --tls-dir.",
    "cause_not_grpc": "what answers is no gRPC server",
    "cause_handshake": "the TLS handshake failed",
    "cause_refused": "the connection was refused",
    "cause_reset": "the connection was reset",
    "cause_closed": "the connection was closed",
    "cause_no_route": "there is no route to the host",
    "cause_no_network": "the network is unreachable",
    "cause_no_name": "the name cannot be resolved",
    "cause_timed_out": "the connection timed out",
    # the dashboard
    "unknown_action": "action must be one of {actions}; received {received}",
    "drain_needs_training": "a job can be drained while it trains; this one is {phase}",
    "set_empty": "set must give {settings}, or several; received none",
    "not_a_text": "{name} must be a text; received {received}",
    "not_positive": "{name} must be a number above 0; received {received}",
    "not_in_range": "{name} must be a number above {above} and at most {most}; received {received}",
    "no_such_worker": "worker must be the number of a worker that is in the job now; received {received}",
    "other_machine": "a worker must run on this machine, {here}; this one runs on {there}",
    "other_program": "process {pid} must be that of worker {worker}; it is another program",
    "other_user": "worker {worker}, process {pid}, must be a process of this user: {reason}",
    "secret_needed": "the secret of this dashboard is needed: open the address that it printed",
    "own_page_needed": "the request must be JSON from the dashboard's own page",
    "object_needed": "the request must be a JSON object",
    # what was done
    "drains": "the job drains: no new samples are leased, and what has been trained is saved",
    "pauses": "the job pauses after the samples that are leased",
    "resumes": "the job resumes",
    "made_change": "from version {version} on: {change}",
    "same_settings": "the settings have these values already",
    "made_checkpoint": "checkpoint {number} has version {version}",
    "starts_worker": "a worker is started: the job wants {workers}",
    "killed": "worker {worker} was killed, process {pid}",
    "stalled": "worker {worker} was stopped for {seconds} s",
    "slowed": "worker {worker} was slowed down {factor} times for {seconds} s",
}
