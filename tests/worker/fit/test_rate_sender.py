"""Worker 0 sends its learning rates when they differ from those that were sent, for as many updates as may come."""

from __future__ import annotations

from typing import Any, cast

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import DownpourError, Fenced, InvalidRequest, UnknownWorker, Unreachable
from downpour.worker.exchange.outage import CoordinatorGone
from downpour.worker.fit.rate_sender import UNKNOWN_STEPS, RateSender


class Optimizers:
    """Optimizers whose rates are the request for them, as a table: the steps to come, and the newer updates."""

    def __init__(self) -> None:
        self.changed = self.always = True

    def new_rates(self, steps: int, newer: int, with_schedule: bool) -> list[pb.LearningRates]:
        changed, self.changed = self.changed, self.changed and self.always
        return [pb.LearningRates(updates=[steps, newer], rates=[with_schedule, 0])] if changed else []

    def forget_sent(self) -> None:
        self.changed = True

    def rates_since_barrier(self) -> list[pb.LearningRates]:
        return [pb.LearningRates(rates=[0.5])]


class Member:
    """A worker that records the tables it sends."""

    def __init__(self) -> None:
        self.versions = [0, 0]
        self.sent: list[pb.LearningRates] = []
        self.error: DownpourError | None = None

    def set_learning_rates(self, rates: list[pb.LearningRates]) -> None:
        if self.error is not None:
            raise self.error
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


@pytest.mark.parametrize("error", [UnknownWorker("the session has ended."), Fenced("fenced."), Unreachable("away.")])
def test_a_session_that_is_lost_in_an_epoch_raises_nothing_and_the_rates_are_sent_in_the_next(
    error: DownpourError,
) -> None:
    """The script's own step or callback would raise it, although the next push begins another session."""
    sender, optimizers, member = sender_of(10)
    member.error, optimizers.always = error, False
    sender.send_in_epoch()
    assert member.sent == []
    member.error = None
    sender.send_in_epoch()
    assert len(member.sent) == 1


@pytest.mark.parametrize("error", [UnknownWorker("the session has ended."), Unreachable("away.")])
def test_a_session_that_is_lost_at_a_barrier_is_begun_again_there(error: DownpourError) -> None:
    sender, optimizers, member = sender_of(10)
    member.error = error
    optimizers.always = False
    for send in (sender.send, sender.send_again):
        with pytest.raises(type(error)):
            send()
        assert optimizers.changed


@pytest.mark.parametrize("error", [CoordinatorGone("gone for good."), InvalidRequest("not a table.")])
def test_what_no_other_session_mends_is_raised(error: DownpourError) -> None:
    sender, _, member = sender_of(10)
    member.error = error
    with pytest.raises(type(error)):
        sender.send_in_epoch()
