"""What both sides of the shared-memory transport share: anonymous memory, and the Unix socket of the headers.

It may import `protos`.
"""
