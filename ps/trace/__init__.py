"""What is recorded of every push: the trace, the log of calls for replay, and running metrics.

It imports `ps.core` and `downpour.protos`.
"""
