"""Job tokens of this user on this machine, and checks of TLS settings.

It may import nothing of the project.
"""
