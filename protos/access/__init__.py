"""The tokens of the jobs that this user runs on this machine.

It may import nothing of the project.
"""
