"""The course of a job as a pure state machine: membership, leases, phases, evaluations, barriers and the end.

`Coordinator` answers workers and shards. What differs between built-in training and a script's `fit` (`fit/`) is a
`Work`. Both share the state in `Job`, and append commands for the shards to the job's outbox; the caller of the
coordinator delivers them. This package may import `protos`, `ps.core`, `ps.core.rules` and the settings of `ps`; of
`protos`, only modules that are pure themselves, and `protos.settings`. Only `job_factory` also imports `fit/`. The
package reads no clock, no files and no network.
"""
