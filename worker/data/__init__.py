"""MNIST as package data, and the script that made it.

The script may import `worker.catalog`; nothing else imports this folder.
"""
