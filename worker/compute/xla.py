"""Which compiled form of a function is the fastest here: tried, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Log = Callable[[str], None]
BURST, FEWEST_ROUNDS, MOST_ROUNDS, BUDGET_S = 3, 3, 12, 0.5


def quiet(message: str) -> None:
    """Logs nothing."""


def clock_for(threads: int) -> Callable[[], float]:
    """The clock to time a function with that uses so many threads.

    One thread is timed by the processor time of the process: what a neighbour takes of the core does not count,
    and workers that start together do not disturb each other. More threads wait for each other: wall clock.
    """
    return time.process_time if threads == 1 else time.perf_counter


def median_times(forms: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """The time of a call of each form in seconds: they take turns, so that they see the same machine.

    A turn is a burst of calls, of which the first finds cold caches and does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in forms}
    start, rounds = time.perf_counter(), 0
    while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() < start + BUDGET_S):
        rounds += 1
        for name, call in forms.items():
            call()
            before = clock()
            for _ in range(BURST - 1):
                call()
            times[name].append((clock() - before) / (BURST - 1))
    return {name: median(measured) for name, measured in times.items()}


def choose(
    wanted: str,
    forms: Mapping[str, Callable[[], object]],
    clock: Callable[[], float],
    log: Log,
) -> tuple[bool, dict[str, float]]:
    """Compiles the forms `plain` and `xla` and says whether to use XLA, and their times in seconds.

    Args:
        wanted: `on`, `off`, or `auto` for what is faster.
        forms: Calls that may compile on their first call.
        clock: To time with.
        log: Told why XLA cannot be used, where it cannot.
    """
    chosen = {"on": ["xla"], "off": ["plain"]}.get(wanted, ["plain", "xla"])
    for name in list(chosen):
        try:
            forms[name]()
        # XLA refuses some operations, with errors of many types; then there is still the plain form.
        except Exception as error:
            if wanted != "auto" or name != "xla":
                raise
            log(f"XLA cannot compile this model, which goes on without: {str(error).splitlines()[0]}")
            chosen.remove(name)
    times = median_times({name: forms[name] for name in chosen}, clock)
    return min(times, key=lambda name: times[name]) == "xla", times
