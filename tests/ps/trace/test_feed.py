"""The feed of new records: each watcher receives each record once and in order; without watchers no record is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.trace.feed import KEPT_BYTES, TraceFeed


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=8)), max_size=30), st.integers(1, 5))
def test_every_watcher_gets_every_record_once_and_in_order(parts: list[tuple[int, bytes]], every: int) -> None:
    feed = TraceFeed()
    got: dict[int, bytes] = {}
    with feed.subscribed() as quick, feed.subscribed() as slow:
        for number, (shard, records) in enumerate(parts):
            feed.publish(shard, records)
            if number % every == 0:
                taken, skipped = quick.take()
                assert skipped == 0
                for each, content in taken.items():
                    got[each] = got.get(each, b"") + content
        for each, content in quick.take()[0].items():
            got[each] = got.get(each, b"") + content
        late, _ = slow.take()
    sent = {shard: b"".join(part for number, part in parts if number == shard) for shard, _ in parts}
    assert got == sent == late


def test_no_record_is_kept_without_watchers() -> None:
    feed = TraceFeed()
    feed.publish(0, b"before")
    assert not feed.watched
    with feed.subscribed() as subscription:
        assert feed.watched
        assert subscription.take() == ({}, 0)
    assert not feed.watched


def test_a_slow_watcher_loses_the_oldest_records_and_is_informed() -> None:
    feed = TraceFeed()
    part = bytes(KEPT_BYTES // 4)
    with feed.subscribed() as subscription:
        for number in range(10):
            feed.publish(number, part)
        records, skipped = subscription.take()
    assert sum(map(len, records.values())) <= KEPT_BYTES
    assert sum(map(len, records.values())) + skipped == 10 * len(part)
    assert 9 in records and 0 not in records
