"""`downpour replay`: repeats a recorded run in one process and compares it with the record bit by bit.

It may import every package of `downpour`; nothing but tests imports it.
"""
