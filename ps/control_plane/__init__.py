"""The coordinator over gRPC: the servicer, the link to other shards, checkpoints and recovery.

It imports `ps.coordinator`, `ps.data_plane` and what these import.
"""
