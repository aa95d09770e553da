"""The batches whose gradients a train step adds up until it applies an optimizer, which pushes their sum.

Such a step is one of the script's own, or that of an optimizer with `gradient_accumulation_steps`. A sum cannot be
divided: if one of its batches must not be pushed, none of them may.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable

NEVER = -(1 << 62)  # the place of no batch


class AddedGradients:
    """The places, among the batches of one worker, at which optimizers were applied or a session has ended.

    Attributes:
        batches_per_push: The number of batches whose gradients are added up for a push; 0 if it is not known yet.
        earlier: The number of batches that an earlier call of `fit` has added up without a push.
    """

    def __init__(self, batches_per_push: int = 0, since_push: int = 0, is_unknown: bool = False) -> None:
        """Create the record of a call of `fit` that has used no batch yet.

        Args:
            batches_per_push: The number of batches of a push; 0 if it is not known. It is then the number between the
                last two pushes.
            since_push: The number of batches that are added up already, by an earlier call of `fit`.
            is_unknown: Whether the train step adds up gradients of a number of batches that is not known.
        """
        self.batches_per_push, self._measures = batches_per_push, not batches_per_push
        self._is_unknown, self.earlier = is_unknown, since_push
        self._leased = self._begun = 0
        self._current: Hashable = None
        self._applied = -since_push  # the batch in whose step an optimizer was applied last
        self._applied_by: dict[bytes, int] = {}  # the same of each optimizer
        self._void = NEVER  # the last batch that must be part of no push

    @property
    def unpushed(self) -> int:
        """The number of batches of this call of `fit` since the last push."""
        return self._begun - max(0, self._applied)

    @property
    def next_lease(self) -> tuple[int, int]:
        """The numbers of batches of the next lease until the next push, and of every later push.

        They are 1 and 0 if they are not known, and both are 0 if every batch is pushed.
        """
        each = self.batches_per_push
        if not each and self._is_unknown:
            return 1, 0
        return (each - (self._leased - self._applied) % each, each) if each > 1 else (0, 0)

    def follow(self, earlier: AddedGradients) -> None:
        """Continue the sums that an earlier call of `fit` with the same train step has left."""
        if self._measures:
            self.batches_per_push, self._applied = earlier.batches_per_push, earlier._applied - earlier._begun
            self.earlier = -self._applied
        self._applied_by = {name: place - earlier._begun for name, place in earlier._applied_by.items()}
        self._void = max(NEVER, earlier._void - earlier._begun)

    def leased(self, batches: int) -> None:
        """Count the batches of a lease."""
        self._leased += batches

    def begin(self, batch: Hashable) -> None:
        """Count a batch once, when its step applies the first optimizer or ends without."""
        self._begun += batch != self._current
        self._current = batch

    def apply(self, optimizer: bytes, valid: bool) -> bool:
        """Record that the step of the current batch applies an optimizer; return whether the sum may be pushed.

        Args:
            optimizer: What distinguishes the optimizer from the others of the step.
            valid: Whether the session of the current batch lasts.
        """
        sound = valid and self._void <= self._applied_by.get(optimizer, NEVER)
        if self._measures and sound and self._applied < self._begun:
            self.batches_per_push = self._begun - self._applied
        self._applied_by[optimizer] = self._applied = self._begun
        return sound

    def void_batch(self) -> None:
        """Record that the current batch was leased in a session that has ended."""
        self._leased += 1  # it was read before the session ended
        self._void = self._begun

    def void(self) -> None:
        """Record that the session has ended, and that what is added up belongs to it."""
        if self._begun > self._applied:
            self._void = self._begun

    def clear(self) -> None:
        """Record that no batch is leased that has not begun."""
        self._leased = self._begun


def warn_of_unpushed(batches: int, unpushed: int, per_push: int, earlier: int = 0) -> None:
    """Print a warning if more gradients were added up and not pushed than one process leaves at the end of `fit`.

    Args:
        batches: The number of batches of all workers.
        unpushed: The number of batches that all workers have used since their last pushes.
        per_push: The number of batches of a push.
        earlier: The number of batches that an earlier call of `fit` has left.
    """
    left = (earlier + batches) % per_push if per_push else 0
    if per_push > 1 and unpushed > left:
        print(
            f"downpour: {unpushed:,} of {batches:,} batches are not part of an update. Each worker adds up the "
            f"gradients of its own batches and pushes after every {per_push}; one process would leave "
            f"{left}. Fewer workers or more epochs leave a smaller part.",
            file=sys.stderr,
            flush=True,
        )
