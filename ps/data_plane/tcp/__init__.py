"""The TCP transport of a shard: its listener, its connections, and the memory of their payloads.

It may import `ps.data_plane` and what that may import.
"""
