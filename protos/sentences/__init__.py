"""Sentences for users with a code and values, so that a program can show them in another language.

`sentence.py` builds them; the other modules are the registry of their English forms. The folder may import nothing of
the project; `protos.errors` sends what it builds.
"""
