"""`downpour simulate`: runs the server's shard and policies in virtual time.

It may import `protos`, `ps.core`, `ps.core.rules`, the settings of `ps`, and `bench`.
"""
