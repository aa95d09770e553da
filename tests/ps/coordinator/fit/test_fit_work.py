"""The stages of a script's calls of `fit` on the coordinator, and the workers that are admitted to them."""

from __future__ import annotations

import pytest

from downpour.protos import parameter_server_pb2 as pb
from downpour.protos.errors import JobConflict, LayoutMismatch, Unsupported
from downpour.protos.layout import TRAINED, Layout
from downpour.ps.coordinator.phase import Phase
from tests.support.pure.pure_fit import PureFit


def test_the_next_call_of_fit_begins_a_generation_when_all_workers_have_left_the_one_before() -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0)
    assert not job.work.may_register(job.request(0, fit_call=2))
    job.finish_fit()
    assert job.work.may_register(job.request(0, fit_call=2))
    job.start(fit_call=2)
    assert (job.work.fit_call, job.state.generation, job.state.phase) == (2, 2, Phase.TRAINING)
    assert list(job.work.decisions) == [] and job.work.epochs_done == 1


def test_a_late_worker_receives_the_decisions_of_the_completed_calls() -> None:
    job = PureFit()
    job.start()
    job.finish_epoch(0, logs={"loss": 1.0})
    assert job.work.past_reply(job.request(1)) is None
    job.finish_fit()
    first = job.work.past_reply(job.request(1))
    job.start(fit_call=2)
    assert first is not None and first == job.work.past_reply(job.request(1))
    assert [decision.logs["loss"] for decision in first.decisions] == [1.0]


def test_the_next_call_does_not_wait_for_a_worker_that_the_last_one_has_ended_without() -> None:
    job = PureFit(workers=3, lease_samples=2)
    job.start(3)
    job.coordinator.leave(2, job.now)
    job.deliver()
    assert job.work.starters == 3
    job.finish_fit(2)
    job.start(2, fit_call=2)
    assert (job.work.starters, job.state.phase) == (2, Phase.TRAINING)


def test_worker_0_learns_whether_the_last_epoch_is_at_its_end() -> None:
    job = PureFit()
    job.start()
    job.begin_epoch()
    for worker in (0, 1):
        job.meet(worker, 0, (1.0,))
    assert not job.work.epoch_ending
    job.meet(0, 0, (1.0,), decision=pb.Decision())
    assert job.work.epoch_ending and not job.work.epoch_begun
    job.pass_barrier(pb.EPOCH_END)
    assert not job.work.epoch_ending


def initialised(job: PureFit) -> None:
    event = pb.ShardEvent(initialised=True, initialisation=job.state.shards.initialisation)
    job.coordinator.shard_event(0, event, job.now)
    job.deliver()


def test_training_begins_when_worker_0_has_sent_the_slots_too() -> None:
    """The shards have weights before worker 0 assigns the slots of an earlier call."""
    job = PureFit()
    job.join(0)
    job.join(1)
    assert job.ready(0).initialise and not job.ready(1).start
    initialised(job)
    assert not job.ready(1).start and job.phase() == Phase.INITIALISING
    assert job.ready(0, initialised=True).start and job.ready(1).start


def test_a_worker_0_that_dies_before_it_has_sent_the_slots_sends_all_again() -> None:
    job = PureFit()
    job.join(0)
    job.join(1)
    assert job.ready(0).initialise
    initialised(job)
    job.coordinator.leave(0, job.now)
    job.deliver()
    assert not job.ready(1).initialise  # it may have no slots of the calls before
    initialised_before = job.state.shards.initialised
    job.join(0)
    assert not initialised_before and job.ready(0).initialise
    initialised(job)
    assert not job.ready(1).start and job.ready(0, initialised=True).start


@pytest.mark.parametrize("fit_call", [0, 2])
def test_a_call_of_fit_that_is_not_due_is_refused(fit_call: int) -> None:
    job = PureFit()
    with pytest.raises((JobConflict, Unsupported)):
        job.join(0, fit_call=fit_call)
    assert job.work.fit_call == 0 and not len(job.state.membership)


def test_names_of_weights_may_differ_but_not_their_shapes() -> None:
    job = PureFit()
    job.join(0)
    job.join(1, layout=Layout.of([("other_name", (6,), TRAINED)]).to_proto())
    with pytest.raises(LayoutMismatch, match="the same weights on all workers"):
        job.join(2, layout=Layout.of([("w", (7,), TRAINED)]).to_proto())
    assert len(job.state.membership) == 2


def with_data(**fingerprints: str) -> pb.DatasetInfo:
    return pb.DatasetInfo(name="script", checksum="c", train_samples=20, fingerprints=fingerprints)


def test_other_data_refuse_the_call_for_all_workers_and_the_next_call_may_begin() -> None:
    job = PureFit()
    job.join(0, data=with_data(x="float32[4] aa", y="int64[4] bb"))
    with pytest.raises(LayoutMismatch, match=r"x = float32\[4\] aa on one worker, float32\[4\] dd .* seed"):
        job.join(1, data=with_data(x="float32[4] dd", y="int64[4] bb"))
    for attempt in (lambda: job.ready(0), lambda: job.join(2, data=with_data(x="float32[4] aa", y="int64[4] bb"))):
        with pytest.raises(LayoutMismatch, match="before they are divided"):
            attempt()
    job.coordinator.leave(0, job.now)
    job.work.tick(1e9)
    assert not job.state.notes
    job.start(fit_call=2)


def test_an_array_that_only_one_worker_has_is_named() -> None:
    job = PureFit()
    job.join(0, data=with_data(x="float32[4] aa"))
    with pytest.raises(LayoutMismatch, match=r"y = none on one worker, int64\[4\] bb on another"):
        job.join(1, data=with_data(x="float32[4] aa", y="int64[4] bb"))
