"""Files of a run: atomic files, checkpoints and the run directory.

It imports `ps.trace`, `ps.core` and `downpour.protos`.
"""
