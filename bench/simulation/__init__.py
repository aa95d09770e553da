"""`downpour simulate`: the server's own shard and policies in virtual time.

It may import every package.
"""
