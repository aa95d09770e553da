"""How a worker may end that no server has told it."""


class Diverged(Exception):
    """Too many gradients in a row were not finite."""


class JobFailed(Exception):
    """The coordinator ended the job without a result."""


class Stopped(Exception):
    """The worker was asked to leave while it waited for the coordinator."""
