"""`downpour validate`: compares the server with predictions from the literature.

It may import every package of `downpour`; only tests import it.
"""
