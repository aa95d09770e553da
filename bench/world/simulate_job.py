"""`downpour simulate-job`: runs whole jobs with faults in simulated worlds and checks them."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from downpour.bench.world.faults import written
from downpour.bench.world.job import faults_needed, run_job
from downpour.bench.world.job_shape import JobResult, JobShape
from downpour.bench.world.seeded_job import COMMAND, SimulateJobSettings, reproduction, shape_of
from downpour.deploy.launch.child import tie_by_kernel
from downpour.deploy.launch.environment import python_path
from downpour.protos.sentences.sentence import counted
from downpour.protos.settings import parse, to_flags
from downpour.protos.system.progress import tracked

SHOWN_LINES = 60
BATCH_SEEDS = 20  # seeds that a process of the pool runs at a time


def simulate(settings: SimulateJobSettings) -> int:
    """Run the jobs that the settings describe; return the exit status."""
    if settings.seeds is not None:
        return _many(settings)
    seed = 1 if settings.seed is None else settings.seed
    if settings.repeat > 1:
        return _repeat(seed, settings)
    shape = shape_of(seed, settings)
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
    gc.freeze()  # the modules are not looked through for the garbage of each job


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
