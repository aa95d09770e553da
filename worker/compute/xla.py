"""The choice between the plain and the XLA form of a function, by timing both on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Log = Callable[[str], None]
BURST, FEWEST_ROUNDS, MOST_ROUNDS, BUDGET_S = 3, 3, 12, 0.5


def quiet(message: str) -> None:
    """Accept a message of the log and ignore it."""


def clock_for(threads: int) -> Callable[[], float]:
    """Return the clock that measures a function which uses this number of threads.

    One thread is measured by the CPU time of the process, which other processes on the core do not change, so that
    workers that start together do not disturb each other. Several threads, which wait for each other, are measured by
    wall-clock time.
    """
    return time.process_time if threads == 1 else time.perf_counter


def median_times(forms: Mapping[str, Callable[[], object]], clock: Callable[[], float]) -> dict[str, float]:
    """Return the median time of a call of each form in seconds; the forms take turns, so that conditions are equal.

    A turn consists of several calls, of which the first is not measured because caches are cold.
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
    """Compile the forms `plain` and `xla`; return whether to use XLA, and their times in seconds.

    Args:
        wanted: `on`, `off`, or `auto` for the faster one.
        forms: Calls that may compile on their first call.
        clock: The clock that measures a call.
        log: A callback that receives the reason if XLA cannot compile the function.
    """
    chosen = {"on": ["xla"], "off": ["plain"]}.get(wanted, ["plain", "xla"])
    for name in list(chosen):
        try:
            forms[name]()
        # XLA rejects some operations with errors of many types; the plain form remains.
        except Exception as error:
            if wanted != "auto" or name != "xla":
                raise
            log(f"XLA cannot compile this model, which is trained without it: {str(error).splitlines()[0]}")
            chosen.remove(name)
    times = median_times({name: forms[name] for name in chosen}, clock)
    return min(times, key=lambda name: times[name]) == "xla", times
