"""The TCP transport of a shard: its listener, its connections, and the memory of their payloads.

It may import `downpour.protos`, `downpour.protos.tcp`, and what `downpour.ps.data_plane` may import and is.
"""
