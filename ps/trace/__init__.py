"""What is recorded of every push: the trace, the call log for replay, and running metrics.

This package may import `protos`, `ps.core`, `ps.core.rules` and the settings of `ps`.
"""
