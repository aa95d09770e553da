"""`downpour validate`: predictions of the literature beside what the server does.

It may import every package.
"""
