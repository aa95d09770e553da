"""The path of pulls and pushes: transports, the request handler, and the shard on its event loop.

It imports `ps.storage`, `ps.trace`, `ps.core` and `downpour.protos`.
"""
