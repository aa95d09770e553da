"""Puts servers and workers on machines: the command line, the plan, the launchers."""
