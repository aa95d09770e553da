"""MNIST as package data, and the script that builds its file.

The script may import `worker.catalog`; nothing else imports this folder.
"""
