"""The notes of a job: bounded, because all of them are part of every status."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from downpour.protos import parameter_server_pb2 as pb
from downpour.ps.coordinator.job import FIRST_NOTES, MAX_NOTE_CHARACTERS, MAX_NOTES, JobNotes


def test_any_number_of_notes_of_any_length_fits_into_a_status() -> None:
    notes = JobNotes()
    for number in range(3 * MAX_NOTES):
        notes.append(f"{number}: " + "x" * 5_000)
    assert len(notes) == MAX_NOTES and max(map(len, notes)) == MAX_NOTE_CHARACTERS
    assert pb.Progress(notes=notes).ByteSize() < 4 << 20
    assert notes[0].startswith("0: ") and notes.newest.startswith(f"{3 * MAX_NOTES - 1}: ")


def test_a_repeated_note_is_kept_once() -> None:
    notes = JobNotes(["paused"])
    for text in ("paused", "paused", "resumed", "paused"):
        notes.append(text)
    assert notes == ["paused", "resumed", "paused"]


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(0, 2 * MAX_NOTES))
def test_a_reader_receives_every_note_that_is_kept_once_and_in_order(steps: list[int], before: int) -> None:
    notes, number, seen = JobNotes(), 0, 0
    received: list[str] = []

    def add(count: int) -> None:
        nonlocal number
        for _ in range(count):
            notes.append(f"note {number}")
            number += 1

    add(before)
    for step in steps:
        received += notes.since(seen)
        seen = notes.total
        add(step)
    received += notes.since(seen)
    numbers = [int(note.split()[1]) for note in received]
    assert numbers == sorted(set(numbers)) and notes.total == number
    if before <= MAX_NOTES - sum(steps):
        assert numbers == list(range(number))
    elif number:
        assert numbers[:FIRST_NOTES] == list(range(min(FIRST_NOTES, number))) and numbers[-1] == number - 1


def test_workers_that_give_up_for_one_reason_state_it_once() -> None:
    notes = JobNotes()
    for worker, reason in enumerate(("a", "a", "b", "b", "a")):
        notes.append(notes.of_failure(worker, reason))
        notes.append("a note of something else")
    about_giving_up = [note for note in notes if "gave up" in note]
    assert about_giving_up == [
        "worker 0 gave up: a",
        "worker 1 gave up for the same reason",
        "worker 2 gave up: b",
        "worker 3 gave up for the same reason",
        "worker 4 gave up: a",
    ]
