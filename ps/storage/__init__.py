"""The files of a run: atomic files, checkpoints and the run directory.

This package may import `ps.trace` and what that may import.
"""
