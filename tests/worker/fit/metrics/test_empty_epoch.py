"""The logs of an epoch in which no worker has trained."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.epochs import Epochs


def test_an_epoch_without_batches_has_no_loss_of_zero() -> None:
    """Such as one that begins when the job drains: a callback would take 0.0 for the best loss of all."""
    epochs: Any = SimpleNamespace(_pull=lambda pin: None)
    logs = Epochs._reduced(epochs, pb.BarrierReply(complete=True), {"loss": 0.0, "per_class": [0.0, 0.0]})
    assert math.isnan(logs["loss"]) and logs["per_class"] == [0.0, 0.0]
