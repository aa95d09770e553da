"""Worker 0 sends its learning rates when they differ from those that were sent, for as many updates as may come."""

from __future__ import annotations

from typing import Any, cast

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.worker.fit.rate_sender import UNKNOWN_STEPS, RateSender


class Optimizers:
    """Optimizers whose rates are the request for them, as a table: the steps to come, and the newer updates."""

    def __init__(self) -> None:
        self.changed = True

    def new_rates(self, steps: int, newer: int, with_schedule: bool) -> list[pb.LearningRates]:
        return [pb.LearningRates(updates=[steps, newer], rates=[with_schedule, 0])] if self.changed else []

    def rates_since_barrier(self) -> list[pb.LearningRates]:
        return [pb.LearningRates(rates=[0.5])]


class Member:
    """A worker that records the tables it sends."""

    def __init__(self) -> None:
        self.versions = [0, 0]
        self.sent: list[pb.LearningRates] = []

    def set_learning_rates(self, rates: list[pb.LearningRates]) -> None:
        self.sent += rates


def sender_of(steps: int | None) -> tuple[RateSender, Optimizers, Member]:
    optimizers, member = Optimizers(), Member()
    return RateSender(cast(Any, optimizers), cast(Any, member), steps), optimizers, member


def test_rates_are_sent_for_two_epochs_and_only_if_they_have_changed() -> None:
    sender, optimizers, member = sender_of(10)
    sender.send(with_schedule=True)
    optimizers.changed = False
    sender.send()
    assert member.sent == [pb.LearningRates(updates=[20, 0], rates=[1, 0])]


def test_an_epoch_that_is_longer_than_expected_extends_the_tables() -> None:
    """The other workers push as well, so that the updates since the last barrier may exceed an epoch's steps."""
    sender, _, member = sender_of(10)
    member.versions = [25, 3]
    sender.send()
    assert list(member.sent[-1].updates) == [50, 25]
    sender.pulled()
    sender.send()
    assert list(member.sent[-1].updates) == [50, 0]


@pytest.mark.parametrize(("expected", "steps"), [(0, UNKNOWN_STEPS), (7, 7)])
def test_the_length_of_an_epoch_is_that_of_the_last_one_once_it_is_known(expected: int, steps: int) -> None:
    sender, _, member = sender_of(None)
    sender.expect(expected)
    sender.send()
    assert member.sent[-1].updates[0] == 2 * steps


def test_servers_that_have_returned_to_an_earlier_state_receive_the_rates_since_the_barrier() -> None:
    sender, optimizers, member = sender_of(10)
    optimizers.changed = False
    sender.send_again()
    assert member.sent == [pb.LearningRates(rates=[0.5])]
