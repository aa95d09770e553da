"""Errors that end a worker and do not come from a server."""


class Diverged(Exception):
    """Too many gradients in a row were not finite."""


class JobFailed(Exception):
    """The coordinator ended the job without a result."""


class Stopped(Exception):
    """The worker received a signal to stop while it waited for the coordinator."""
