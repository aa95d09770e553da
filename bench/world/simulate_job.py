"""`downpour simulate-job`: runs whole jobs with faults in simulated worlds and checks them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from downpour.bench.world.faults import KINDS, draw, parse_faults, written
from downpour.bench.world.job import faults_needed, run_job
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.deploy.launch.child import tie_by_kernel
from downpour.deploy.launch.environment import python_path
from downpour.protos.logs import counted
from downpour.protos.settings import Settings, parse, to_flags
from downpour.protos.system.progress import tracked

COMMAND = "downpour simulate-job"
SHOWN_LINES = 60
BATCH_SEEDS = 20  # seeds that a process of the pool runs at a time


MODES = (
    "async", "async", "async", "ssp:1", "ssp:3", "bsp", "kasync:2", "softsync:2", "backup:1", "ringmaster:6",
    "rennala:2", "localsgd:2",
)  # fmt: skip


# Besides plain gradients; with "async" only.
VARIANTS: tuple[tuple[tuple[str, Any], ...], ...] = (
    (), (), (), (), (), (),
    (("overlap", True),),
    (("push_every", 2),),
    (("overlap", True), ("staleness_policy", "dc_asgd")),
    (("staleness_policy", "delay_adaptive:1"), ("schedule", "linear:12")),
)  # fmt: skip
RESTARTS_S = (0.3, 0.3, 0.3, 8.0)  # mean times until a process runs again: a launcher, and an operator
OFTEN = (*KINDS, "kill", "killat", "killat", "reset", "reset", "lose", "lose")  # most recovery code handles these kinds


def _seed_range(value: str) -> str:
    first, dots, last = value.partition("..")
    if not dots or not first.isdecimal() or not last.isdecimal() or int(first) > int(last):
        raise ValueError("must be A..B, the first and the last seed")
    return value


def _kinds(value: str) -> str:
    if value not in ("auto", "none") and ":" not in value:
        unknown = set(value.split(",")) - set(KINDS)
        if unknown:
            raise ValueError(f"must be auto, none, faults KIND:TARGET@AT[+SECONDS], or kinds of {', '.join(KINDS)}")
    elif ":" in value:
        parse_faults(value)
    return value


class SimulateJobSettings(Settings):
    """Run whole jobs in a simulated world with faults, and check that nothing is lost."""

    seed: int | None = Field(None, ge=0, description="Seed of one job (default: 1).")
    seeds: Annotated[str, AfterValidator(_seed_range)] | None = Field(
        None, description="Range of seeds A..B, one job each."
    )
    shards: int | None = Field(None, ge=1, le=8, description="Number of shards (default: drawn from the seed).")
    workers: int | None = Field(None, ge=1, le=16, description="Number of workers (default: drawn from the seed).")
    epochs: int | None = Field(None, ge=1, le=7, description="Number of epochs (default: drawn from the seed).")
    samples: int | None = Field(None, ge=4, le=4096, description="Samples per epoch (default: drawn from the seed).")
    mode: str | None = Field(None, description="Consistency mode (default: drawn from the seed).")
    faults: Annotated[str, AfterValidator(_kinds)] = Field(
        "auto", description="Faults: auto, none, kinds such as kill,reset, or faults KIND:TARGET@AT[+SECONDS]."
    )
    count: int | None = Field(None, ge=0, le=50, description="Number of faults (default: drawn from the seed).")
    processes: int = Field(0, ge=0, le=256, description="Number of processes for a range of seeds. 0: one per core.")
    budget_s: float = Field(
        0.0, ge=0, description="Stop a range of seeds after this processor time of each process, in seconds. 0: never."
    )
    stop: bool = Field(False, description="Stop a range of seeds at the first failure.")
    shrink: bool = Field(True, description="Remove the faults without which a job still fails.")
    repeat: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Run a single job so often, each time in a new process, and compare the digests.",
    )
    journal: bool = Field(False, description="Show the journal of a single job even if the job has not failed.")


def shape_of(seed: int, settings: SimulateJobSettings) -> JobShape:
    """Return the job of a seed, which determines everything that the settings do not."""
    rng = random.Random(f"shape {seed}")
    drawn: dict[str, Any] = {
        "shards": rng.choice((1, 1, 2, 3)),
        "workers": rng.choice((1, 2, 3, 3, 4)),
        "epochs": rng.choice((1, 2, 2, 3)),
        "mode": rng.choice(MODES),
    }
    samples = rng.choice((24, 48, 49, 62))
    job = {name: getattr(settings, name) or value for name, value in drawn.items()}
    own = {
        "batch_size": rng.choice((3, 4, 8)),
        "lease_batches": rng.choice((1, 2, 5)),
        "checkpoint_every": rng.choice(("0.2s", "1s", "7", "off")),
        "session_s": rng.choice((2.0, 5.0, 10.0)),
    }
    fixed = {
        "seed": seed % 2**32, "learning_rate": 0.125, "optimizer": "sgd", "transport": "grpc", "record": "off",
        "tensorboard": False, "validation_split": rng.choice((0.0, 0.1)),
    }  # fmt: skip
    kinds = OFTEN if settings.faults == "auto" else settings.faults.split(",")
    count = rng.choice((0, 1, 2, 3, 3, 5)) if settings.count is None else settings.count
    if settings.faults == "none":
        faults = []
    elif ":" in settings.faults:
        faults = parse_faults(settings.faults)
    else:
        faults = draw(rng, job["shards"], job["workers"], kinds, count)
    if job["mode"] not in ("async", settings.mode) and job["workers"] < 2:
        job["mode"] = "async"
    for setting, value in _variant(rng, job["mode"]):
        own[setting] = value
    padding, slow_links = rng.choice((0, 0, 0, 2_500_000)), rng.random() < 0.4
    return JobShape(
        {**job, **own, **fixed}, settings.samples or samples, tuple(faults), padding, slow_links,
        restart_s=random.Random(f"restart {seed}").choice(RESTARTS_S),
    )  # fmt: skip


def _variant(rng: random.Random, mode: str) -> tuple[tuple[str, Any], ...]:
    """Return the settings of a less frequent way of training."""
    chosen = rng.choice(VARIANTS)
    return chosen if mode == "async" else ()


def reproduction(seed: int, settings: SimulateJobSettings, faults: str) -> str:
    """Return the command that repeats a job."""
    names = ("shards", "workers", "epochs", "samples", "mode", *(("count",) if ":" not in faults else ()))
    flags = [f"--{name}={getattr(settings, name)}" for name in names if getattr(settings, name) is not None]
    return " ".join([COMMAND, f"--seed={seed}", *flags, f"--faults='{faults or 'none'}'"])


def simulate(settings: SimulateJobSettings) -> int:
    """Run the jobs that the settings describe; return the exit status."""
    if settings.seeds is not None:
        return _many(settings)
    seed = 1 if settings.seed is None else settings.seed
    if settings.repeat > 1:
        return _repeat(seed, settings)
    shape = shape_of(seed, settings)
    pin_to_one_core()
    begin = time.perf_counter()
    outcome = run_job(seed, shape)
    _describe(seed, shape, outcome, time.perf_counter() - begin)
    if settings.journal and not outcome.problems:
        print("\n".join(outcome.journal))
    return _report_failure(seed, settings, shape, outcome) if outcome.problems else 0


def _repeat(seed: int, settings: SimulateJobSettings) -> int:
    """Run a job several times, each in a new process, and return 1 if two runs have different digests."""
    single = settings.model_copy(update={"seed": seed, "repeat": 1, "journal": False, "shrink": False})
    flags = to_flags(single, SimulateJobSettings)
    with ThreadPoolExecutor(settings.processes or os.cpu_count()) as pool:
        try:
            found = pool.map(_digest_in_new_process, [flags] * settings.repeat)
            digests = Counter(tracked(found, f"runs of seed {seed}"))
        finally:
            pool.shutdown(cancel_futures=True)
    counts = ", ".join(f"{digest} {counted(count, 'time')}" for digest, count in digests.most_common())
    print(f"seed {seed}: {counted(settings.repeat, 'run')} with {counted(len(digests), 'digest')}: {counts}")
    return 0 if len(digests) == 1 else 1


def _digest_in_new_process(flags: Sequence[str]) -> str:
    """Run a job in a process with another order of hashes, which Ctrl-C does not reach, and return its digest.

    Raises:
        RuntimeError: The process has no result.
    """
    command = [sys.executable, "-P", "-m", "downpour.bench.world.simulate_job", *flags]
    environment = {**os.environ, "PYTHONPATH": python_path(os.environ.get("PYTHONPATH", ""))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True, check=False)
    digest = re.search(r"digest (\w+);", done.stdout)
    if digest is None:
        raise RuntimeError(f"a simulated job must print its digest; it printed:\n{done.stdout}{done.stderr}")
    return digest[1]


def _describe(seed: int, shape: JobShape, outcome: JobResult, seconds: float) -> None:
    job = shape.settings
    print(
        f"seed {seed}: {counted(job['workers'], 'worker')}, {counted(job['shards'], 'shard')}, "
        f"{counted(job['epochs'], 'epoch')}, {job['mode']}; "
        f"faults: {written(shape.faults) or 'none'}\n"
        f"{counted(outcome.events, 'event')}, {outcome.virtual_s:.1f} s of virtual time in {seconds:.2f} s; "
        f"digest {outcome.digest:08x}; exit code {outcome.status}"
    )


def _report_failure(seed: int, settings: SimulateJobSettings, shape: JobShape, outcome: JobResult) -> int:
    faults = faults_needed(seed, shape) if settings.shrink else shape.faults
    print(*outcome.journal[-SHOWN_LINES:], *(f"PROBLEM: {each}" for each in outcome.problems), sep="\n")
    print(f"reproduce with: {reproduction(seed, settings, written(faults))}")
    return 1


def _many(settings: SimulateJobSettings) -> int:
    assert settings.seeds is not None
    first, last = map(int, settings.seeds.split(".."))
    processes = settings.processes or os.cpu_count() or 1
    chunks = [range(start, min(start + BATCH_SEEDS, last + 1)) for start in range(first, last + 1, BATCH_SEEDS)]
    begin, jobs, cpu_s, failed = time.perf_counter(), 0, 0.0, 0
    with ProcessPoolExecutor(processes, initializer=_begin_process, initargs=(os.getpid(),)) as pool:
        for results, spent_s in pool.map(run_seeds, [(list(chunk), settings) for chunk in chunks]):
            jobs, cpu_s = jobs + len(results), cpu_s + spent_s
            for seed, problems in results:
                if problems:
                    failed += 1
                    print(f"seed {seed}: {problems[0]}\n  {reproduction(seed, settings, settings.faults)}", flush=True)
            if failed and settings.stop:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    seconds = time.perf_counter() - begin
    print(
        f"{counted(jobs, 'job')} in {seconds:.1f} s on {counted(processes, 'process', 'processes')} "
        f"and {cpu_s:.1f} s of processor time: "
        f"{60 * jobs / max(cpu_s, 1e-9):,.0f} jobs per core-minute; {failed} failed"
    )
    return 1 if failed else 0


def _begin_process(parent: int) -> None:
    if sys.platform == "linux":  # a process of the pool does not learn otherwise that its parent was killed
        tie_by_kernel(parent, signal.SIGTERM)
    pin_to_one_core()


def pin_to_one_core() -> None:
    """Bind this process to one core, where a switch between its threads takes microseconds instead of milliseconds."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def run_seeds(work: tuple[list[int], SimulateJobSettings]) -> tuple[list[tuple[int, list[str]]], float]:
    """Run several seeds in this process; return each with its problems, and the processor time in seconds."""
    seeds, settings = work
    results, spent_s = [], time.process_time()
    for seed in seeds:
        if settings.budget_s and time.process_time() > settings.budget_s:
            break
        results.append((seed, run_job(seed, shape_of(seed, settings), keep_journal=False).problems))
        if results[-1][1] and settings.stop:
            break
    return results, time.process_time() - spent_s


def main(argv: list[str]) -> int:
    """Run the command with its flags, and return its exit status."""
    return simulate(parse(SimulateJobSettings, argv, COMMAND))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
