"""What the settings of a job imply for its weights and its pushes."""

from __future__ import annotations

from dataclasses import dataclass

from downpour.ps.config import ServerSettings

OWN_PUSH_FIRST = ("async", "ssp", "bsp", "localsgd")  # modes whose workers wait until their push is applied
REPLICAS = ("localsgd", "geo", "easgd")  # modes in which a push is a difference of weights, not a gradient


@dataclass(frozen=True)
class JobTraits:
    """The properties of a job that its checks depend on.

    Attributes:
        sums: Whether each update is one push with one rate, so that the weights count the samples.
        replicas: Whether a push is a difference of weights, not a gradient.
        corrects: Whether stale gradients are corrected.
        reads_own_pushes: Whether a worker's next gradient comes from weights that contain its push.
        slack: The slack of SSP; None in other modes.
        most_samples: The largest number of samples in a push.
    """

    sums: bool
    replicas: bool
    corrects: bool
    reads_own_pushes: bool
    slack: int | None
    most_samples: int

    @classmethod
    def of(cls, settings: ServerSettings) -> JobTraits:
        """Return the properties of a job with these settings."""
        mode, _, parameter = settings.mode.partition(":")
        plain = settings.staleness_policy == "none" and settings.schedule == "constant"
        steps = int(parameter or 1) if mode in REPLICAS else settings.push_every
        return cls(
            sums=plain and mode in ("async", "ssp"),
            replicas=mode in REPLICAS,
            corrects=settings.staleness_policy == "dc_asgd",
            reads_own_pushes=mode in OWN_PUSH_FIRST and not settings.overlap,
            slack=int(parameter) if mode == "ssp" else None,
            most_samples=settings.batch_size * steps,
        )
