"""`downpour simulate`: runs the server's shard and policies in virtual time.

It may import every package of `downpour`; nothing but the benchmarks and tests imports it.
"""
