"""Numbers, incarnations, sessions and their end."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downpour.protos.errors import UnknownWorker
from downpour.ps.coordinator.membership import Membership


def make(session_s: float = 10.0) -> Membership:
    return Membership(session_s, itertools.count(100).__next__)


def test_numbers_are_given_in_order_and_not_again() -> None:
    members = make()
    assert [members.join(None, "", 0, 0.0).worker for _ in range(3)] == [0, 1, 2]
    members.leave(1)
    assert members.join(None, "", 0, 0.0).worker == 3
    assert members.join(1, "", 0, 0.0).incarnation == 2


def test_a_session_is_valid_while_it_is_renewed() -> None:
    members = make(session_s=5.0)
    first, second = members.join(None, "", 0, 0.0), members.join(None, "", 0, 0.0)
    members.renew(first, 4.0)
    assert members.expired(4.9) == []
    assert members.expired(5.0) == [second]
    assert members.expired(9.0) == [first, second]


def test_a_broken_connection_shortens_a_session_and_never_lengthens_it() -> None:
    members = make(session_s=5.0)
    member = members.join(None, "", 0, 0.0)
    members.shorten(member.worker, 4.0, 2.0)
    assert member.expires_at == 5.0
    members.shorten(member.worker, 1.0, 2.0)
    assert member.expires_at == 3.0
    members.renew(member, 2.0)
    assert member.expires_at == 7.0
    members.shorten(99, 1.0, 2.0)


def test_a_session_that_ended_is_unknown_whoever_has_the_number_now() -> None:
    members = make()
    old = members.join(0, "", 0, 0.0)
    members.leave(0)
    new = members.join(0, "", 0, 0.0)
    assert members.of_session(new.session) is new
    with pytest.raises(UnknownWorker, match="register again"):
        members.of_session(old.session)


@given(st.lists(st.tuples(st.sampled_from(["join", "take", "leave"]), st.integers(0, 3)), max_size=40))
def test_views_count_up_and_no_incarnation_comes_twice(steps: list[tuple[str, int]]) -> None:
    members = make()
    seen: set[tuple[int, int]] = set()
    number = 0
    for step, worker in steps:
        if step == "leave":
            changed = members.leave(worker) is not None
        else:
            if step == "take":
                number += members.leave(worker) is not None
            member = members.join(worker if step == "take" else None, "", 0, 0.0)
            assert (member.worker, member.incarnation) not in seen
            seen.add((member.worker, member.incarnation))
            changed = True
        number += changed
        view = members.view()
        assert view.number == members.number == number
        assert [m.worker for m in view.members] == sorted({m.worker for m in view.members})
        assert {m.session for m in view.members} == {m.session for m in members.members}
        assert len(members) == len(view.members)
