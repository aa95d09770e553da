"""The order of an epoch: passes that last several epochs, and parts that together contain every batch once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downpour.ps.core.epoch_order import epoch_range, part_bounds, place_of


@given(samples=st.integers(1, 200), batch=st.integers(1, 40), steps=st.integers(0, 60))
def test_the_epochs_of_a_pass_contain_every_sample_once(samples: int, batch: int, steps: int) -> None:
    first, epoch, seen = epoch_range(samples, batch, steps, 0), 0, list[int]()
    while (used := epoch_range(samples, batch, steps, epoch)).number == first.number:
        assert used.start < used.stop and (not steps or used.stop - used.start <= steps * batch)
        assert used.start % batch == 0
        seen, epoch = [*seen, *range(used.start, used.stop)], epoch + 1
    assert seen == list(range(samples))
    assert used == (1, 0, first.stop)


@given(samples=st.integers(1, 200), batch=st.integers(1, 40), parts=st.integers(1, 9))
def test_part_w_of_p_contains_the_batches_w_and_every_p_th_after_it(samples: int, batch: int, parts: int) -> None:
    bounds, seen = part_bounds(samples, batch, parts), set[int]()
    assert bounds[0] == 0 and bounds[-1] == samples and bounds == sorted(bounds)
    for part in range(parts):
        places = [place_of(start, batch, bounds) for start in range(bounds[part], bounds[part + 1], batch)]
        assert places == list(range(part * batch, samples, parts * batch))
        sizes = sum(min(batch, samples - place) for place in places)
        assert sizes == bounds[part + 1] - bounds[part]
        seen.update(places)
    assert seen == set(range(0, samples, batch))
