"""The coordinator over gRPC: the servicer, the links to the other shards, checkpoints and recovery.

`effects` delivers the commands of the pure coordinator to the shards, and the shards' events to the coordinator. This
package may import `ps.coordinator`, `ps.data_plane` and what these may import.
"""
