"""The path of pulls and pushes: transports, the request handler, and the shard on its event loop.

A request passes through its transport (`grpc_stream`, `shared_memory` or `tcp/`), `request_handler`, `shard_runtime`
and `ps.core.shard`, in that order. This package may import `ps.storage` and what that may import.
"""
