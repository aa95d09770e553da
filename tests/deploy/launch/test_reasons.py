"""Each reason for which workers end is shown once, in whatever order the coordinator and the processes report it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from downpour.deploy.launch.reasons import Reasons

WHY = "gradients must be finite; received 10 in a row with NaN or Inf. Try a tenth of the learning rate."
NOTE = "worker {} gave up: " + WHY
AGAIN = "worker {} gave up for the same reason"


def ended(reasons: Reasons, worker: int, reason: str = f"downpour worker: {WHY}") -> str:
    return reasons.at_end(worker, f"worker-{worker} stopped", reason, f"worker-{worker} stopped for the same reason")


@pytest.mark.parametrize("second", [NOTE, AGAIN])
def test_a_reason_is_shown_once_and_each_worker_is_named_once(second: str) -> None:
    """The end of a process and the note of it may come in any order; the coordinator's notes keep theirs."""
    events: dict[str, Callable[[Reasons], str]] = {
        "note 0": lambda reasons: reasons.in_note(NOTE.format(0)),
        "note 1": lambda reasons: reasons.in_note(second.format(1)),
        "end 0": lambda reasons: ended(reasons, 0),
        "end 1": lambda reasons: ended(reasons, 1),
    }
    for order in permutations(events):
        if order.index("note 0") > order.index("note 1"):
            continue
        reasons = Reasons()
        shown = [text for name in order if (text := events[name](reasons))]
        assert "\n".join(shown).count(WHY) == 1, order
        assert len(shown) == 2 and {text[7] for text in shown} == {"0", "1"}, (order, shown)


def test_another_reason_is_shown() -> None:
    reasons = Reasons()
    reasons.in_note(NOTE.format(0))
    assert ended(reasons, 0, "the server is gone") == "worker-0 stopped: the server is gone"
    assert reasons.in_note("worker 1 gave up: no memory") == "worker 1 gave up: no memory"


@pytest.mark.parametrize("printed", [WHY, f"ValueError: {WHY}", f"first line\n{WHY}", f"downpour: {WHY}"])
def test_a_reason_is_known_with_its_class_and_with_earlier_lines(printed: str) -> None:
    reasons = Reasons()
    reasons.in_note(NOTE.format(0))
    assert reasons.has(printed)
    assert not reasons.has("") and not reasons.has("the learning rate.") and not reasons.has(f"{WHY} No.")


def test_a_long_reason_of_which_the_coordinator_keeps_the_beginning_is_known() -> None:
    reasons = Reasons()
    reasons.in_note("worker 0 gave up: " + "x" * 500)
    assert reasons.has("x" * 700)


def test_a_worker_that_is_restarted_is_named_each_time_and_its_reason_is_shown_once() -> None:
    reasons = Reasons()
    assert reasons.at_restart(1, "worker-1 exited with status 1", WHY) == f"worker-1 exited with status 1: {WHY}"
    assert reasons.in_note(NOTE.format(1)) == ""
    assert reasons.at_restart(1, "worker-1 exited with status 1", WHY).endswith("status 1 for the same reason")


def test_what_a_visible_worker_prints_is_not_repeated() -> None:
    """An error of a script is raised on all workers, and worker 0 shows it."""
    reasons = Reasons({0})
    assert reasons.in_note(NOTE.format(1)) == "" and reasons.in_note(NOTE.format(0)) == ""
    assert ended(reasons, 1) == "worker-1 stopped for the same reason"
    assert reasons.in_note("resumed from checkpoint 2") == "resumed from checkpoint 2"
