"""`downpour replay`: repeats a recorded run in one process and compares it with the record bit by bit.

It may import `protos`, all of `ps`, all of `worker`, `deploy.launch`, `deploy.runs` and `deploy.scripts`.
"""
