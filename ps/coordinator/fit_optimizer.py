"""A job's settings with the optimizer that a script's workers bring. Pure."""

from __future__ import annotations

from pydantic import ValidationError

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import Unsupported
from downpour.ps.config import ServerSettings
from downpour.ps.core.hyperparameters import known_hyperparameters, resolve
from downpour.ps.core.update_rules import OPTIMIZERS


def with_optimizer(settings: ServerSettings, carried: pb.OptimizerSpec) -> ServerSettings:
    """The settings with the script's optimizer.

    Raises:
        Unsupported: There is no such optimizer, or it does not take these hyper-parameters.
    """
    try:
        resolve(carried.name, carried.hyperparameters)
    except (ValueError, TypeError) as error:
        raise Unsupported(f"the servers have {', '.join(OPTIMIZERS)}: {error}") from error
    own = {**dict.fromkeys(known_hyperparameters()), **carried.hyperparameters}
    try:
        return ServerSettings.model_validate({**settings.model_dump(), **own, "optimizer": carried.name})
    except ValidationError as error:
        raise Unsupported("; ".join(str(each["msg"]) for each in error.errors())) from error
