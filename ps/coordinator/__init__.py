"""The course of a job: membership, leases, phases, evaluations and the end, as a pure state machine.

It imports `ps.core`, `ps.config` and `downpour.protos`; it knows no clock, no files and no network.
"""
