"""What is recorded of every push: the trace, the call log for replay, and running metrics.

This package may import `ps.core` and `downpour.protos`.
"""
