"""`downpour bench chaos`: processes of a running job are killed, and conservation is checked.

It may import every package.
"""
