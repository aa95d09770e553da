"""Sentences for users with a code and values, so that a program can show them in another language.

`sentence.py` builds them, and `choices.py` what a message says of an unknown name; the other modules are the registry
of their English forms. The folder may import nothing of the project; `protos.errors` turns sentences into messages.
"""
