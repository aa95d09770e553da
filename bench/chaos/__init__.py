"""`downpour bench chaos`: kills processes of running jobs and checks that every update was applied exactly once.

It may import every package of `downpour`; nothing but tests imports it.
"""
