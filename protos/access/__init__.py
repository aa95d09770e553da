"""The tokens of the jobs that this user runs on this machine. May import nothing of the project."""
