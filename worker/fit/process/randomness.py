"""One source of randomness for the scripts of all workers: the job seeds the generators that a script does not seed.

Every worker runs the whole script. A split that `np.random.default_rng()` draws must therefore be the same on each.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import random
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe


class Entropy:
    """A source of seeds in place of the operating system's: the same sequence on all workers, except within `fit`."""

    def __init__(self, seed: int) -> None:
        """Create a source of seeds that depends on the job's seed only.

        Args:
            seed: The seed of the job.
        """
        self._seed, self._count = seed, 0
        self._scope = "script"
        self._lock = threading.Lock()

    def begin(self, scope: str) -> None:
        """Begin another sequence, which the name `scope` determines together with the seed."""
        with self._lock:
            self._scope, self._count = scope, 0

    def bits(self, count: int) -> int:
        """Return the next number, an integer of `count` random bits."""
        with self._lock:
            self._count += 1
            name = f"{self._seed}/{self._scope}/{self._count}"
        length = -(-count // 8)
        return int.from_bytes(hashlib.shake_128(name.encode()).digest(length), "big") >> (8 * length - count)


class Randomness:
    """The random state of a worker's process: shared by all workers outside of `fit`, the worker's own within it."""

    def __init__(self, seed: int, rank: int, size: int, job: str) -> None:
        """Build the random state, which `install` puts into effect.

        Args:
            seed: The seed of the job.
            rank: The rank of the worker.
            size: The number of workers.
            job: The identifier of the job, which makes names of temporary files unique.
        """
        self._seed, self._rank, self._size, self._job = seed, rank, size, job
        self._entropy = Entropy(seed)

    def install(self) -> None:
        """Seed Python, NumPy and Keras, and make generators without a seed take one from the job's source."""
        keras.utils.set_random_seed(self._seed)
        _seed_generators(self._entropy)
        if self._size > 1:
            _share_generators_of_datasets(self._entropy)
            keep_order_of_datasets(tf.data.Dataset)
        self._name_files("script")

    @contextmanager
    def of_fit(self, call: int) -> Iterator[None]:
        """Return a context in which random numbers differ between workers; afterwards they are the same again.

        Worker 0 validates and runs callbacks, and every worker makes its own batches, which may draw random numbers.
        The state of worker 0 does not change when the context begins, so that a job of one worker draws the same
        numbers as plain Keras.

        Args:
            call: The number of the call of `fit`, from 1.
        """
        self._entropy.begin(f"fit {call}, worker {self._rank}")
        if self._rank:
            seed = self._entropy.bits(32)
            np.random.seed(seed)
            random.seed(seed)
            # Operations that are run, not traced; those of a traced train step have a seed of this worker already.
            _without_restart(lambda: tf.random.set_seed(seed))
        self._name_files(f"fit {call}, worker {self._rank}")
        try:
            yield
        finally:
            self._entropy.begin(f"after fit {call}")
            _without_restart(lambda: keras.utils.set_random_seed((self._seed + call) % 2**32))
            self._name_files(f"after fit {call}")

    def _name_files(self, scope: str) -> None:
        """Give temporary files and folders the same names on all workers."""
        files: Any = tempfile
        names = files._RandomNameSequence()
        _replace(names, "_rng", random.Random(f"{self._job}/{scope}"))
        _replace(names, "_rng_pid", os.getpid())
        _replace(tempfile, "_name_sequence", names)


class DataRandomness:
    """The random state, equal on all workers, of the code that makes batches in one call of `fit`.

    A generator, and the hooks of a `PyDataset` in which it shuffles, run on every worker. They must draw the same
    permutations, whatever other random numbers a worker draws in between.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Copy the current random state, which must be the same on all workers, or start from a seed.

        Args:
            seed: The seed; None to copy the current state.
        """
        own = _state()
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)
        self._state: Any = _state()
        _set_state(own)

    def iterate(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches of an iterator, each of which is made in this state."""
        while True:
            with self.drawing():
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Return a context in which Python and NumPy draw from this state instead of the worker's own."""
        own = _state()
        _set_state(self._state)
        try:
            yield
        finally:
            self._state = _state()
            _set_state(own)


def _without_restart(set_seed: Callable[[], None]) -> None:
    """Call a function that sets the seed of TensorFlow, but do not restart the random numbers of traced functions.

    `tf.random.set_seed` alone would make every `tf.function` repeat the numbers that it has drawn since it was traced.
    """
    name = "TFE_ContextClearCaches"
    clear = getattr(pywrap_tfe, name)
    _replace(pywrap_tfe, name, lambda _: None)
    try:
        set_seed()
    finally:
        _replace(pywrap_tfe, name, clear)


def _state() -> Any:
    return random.getstate(), np.random.get_state()


def _set_state(state: Any) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])


def _seed_generators(entropy: Entropy) -> None:
    """Make generators of Python and NumPy that are given no seed take one from `entropy`."""
    # All generators of NumPy take their seed from SeedSequence, which calls this function.
    _replace(np.random.bit_generator, "randbits", entropy.bits)
    seed_of_numpy, seed_of_python = np.random.seed, random.Random.seed

    def seed_numpy(seed: Any = None) -> None:
        seed_of_numpy(entropy.bits(32) if seed is None else seed)

    def seed_python(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed_of_python(self, entropy.bits(256) if a is None else a, version)

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=entropy.bits(128), version=4)

    _replace(np.random, "seed", seed_numpy)
    _replace(random.Random, "seed", seed_python)
    _replace(random, "seed", getattr(random, "_inst").seed)  # noqa: B009 - it has no public name
    _replace(uuid, "uuid4", uuid4)


def _replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def keep_order_of_datasets(dataset: Any) -> None:
    """Make a class of datasets ignore `deterministic=False`.

    Of a dataset that is divided by batch, all workers must make the same batches in the same order.

    Args:
        dataset: The class `tf.data.Dataset`.
    """
    for name in ("map", "interleave", "batch"):
        _replace(dataset, name, _in_order(getattr(dataset, name)))


def _in_order(own: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(own)

    @functools.wraps(own)
    def in_order(*args: Any, **kwargs: Any) -> Any:
        given = parameters.bind(*args, **kwargs).arguments
        return own(**{**given, "deterministic": True}) if given.get("deterministic") is False else own(*args, **kwargs)

    return in_order


def _share_generators_of_datasets(entropy: Entropy) -> None:
    """Make the generators of `tf.data.Dataset.from_generator` draw the same numbers on all workers.

    Each worker runs such a generator completely, and keeps its part of the batches.
    """
    own = tf.data.Dataset.from_generator

    @functools.wraps(own)
    def from_generator(generator: Any, *args: Any, **kwargs: Any) -> Any:
        if str(getattr(generator, "__module__", "")).split(".")[0] in ("keras", "downpour"):
            return own(generator, *args, **kwargs)  # its batches are this worker's own
        randomness = DataRandomness(entropy.bits(32))

        def shared(*arguments: Any) -> Iterator[Any]:
            with randomness.drawing():
                elements = iter(generator(*arguments))
            return randomness.iterate(elements)

        return own(shared, *args, **kwargs)

    _replace(tf.data.Dataset, "from_generator", staticmethod(from_generator))
