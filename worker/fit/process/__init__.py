"""Gives all workers of a script the same randomness and time, separate views of files, and runs the script.

It may import nothing of the project.
"""
