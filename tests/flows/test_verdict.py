"""What image lists mean, before and after a reset: a table, without a device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcumgrx.errors import Outcome
from mcumgrx.flows.verdict import Finding, Target, verdict
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import ImageState, Slot
from mcumgrx.sim.images import build_image

IMAGE = parse_image(build_image("1.1.0", payload_size=100))
NEW = IMAGE.hash
OLD = bytes(32)
OTHER = bytes([9]) * 32


def slot(image: int, number: int, hash: bytes, *flags: str) -> Slot:
    version = {NEW: "1.1.0", OLD: "1.0.0"}.get(hash, "7.0.0")
    return Slot(image, number, version, hash, **{flag: True for flag in flags})  # type: ignore[arg-type]


def images(*slots: Slot, split: int | None = 0) -> ImageState:
    return ImageState(slots, split)


A_OLD = slot(0, 0, OLD, "active", "confirmed")
B_NEW = slot(0, 1, NEW)
B_PENDING = slot(0, 1, NEW, "pending")
A_NEW = slot(0, 0, NEW, "active")
B_OLD = slot(0, 1, OLD, "confirmed")
BEFORE = images(A_OLD, B_PENDING)
# Of two cores, of which the second one's primary is listed, or not.
C_OLD, D_PENDING = slot(1, 0, OLD, "active", "confirmed"), slot(1, 1, NEW, "pending", "permanent")
C_NEW, D_OLD = slot(1, 0, NEW, "active", "confirmed"), slot(1, 1, OLD)


@pytest.mark.parametrize(
    ("number", "before", "after", "found", "outcome"),
    [
        # One image.
        (0, BEFORE, images(A_NEW, B_OLD), Finding.RUNS, None),
        (0, BEFORE, images(slot(0, 0, NEW, "active", "confirmed")), Finding.RUNS, None),
        (0, BEFORE, BEFORE, Finding.WAITING, Outcome.NEVER_SWAPPED),
        (0, BEFORE, images(slot(0, 0, OLD, "active"), B_PENDING), Finding.WAITING, Outcome.NEVER_SWAPPED),
        (0, images(A_OLD, B_NEW), images(A_OLD, B_NEW), Finding.WAITING, Outcome.NEVER_SWAPPED),
        (0, BEFORE, images(A_OLD, B_NEW), Finding.OVER, Outcome.REVERTED),
        (0, BEFORE, images(A_OLD), Finding.OVER, Outcome.REJECTED),
        (0, BEFORE, images(slot(0, 0, OTHER, "active")), Finding.OVER, Outcome.OTHER_IMAGE),
        (0, BEFORE, images(slot(0, 0, OLD)), Finding.COMING, Outcome.OTHER_IMAGE),
        (0, BEFORE, images(), Finding.COMING, Outcome.OTHER_IMAGE),
        # The bootloader's recovery, unless it looked like that before.
        (0, BEFORE, images(slot(0, 0, NEW), split=None), Finding.RECOVERY, None),
        (0, images(slot(0, 0, OLD), split=None), images(slot(0, 0, NEW), split=None), Finding.OVER, None),
        # Nothing is said to run, ever: what has left its slot may run or not.
        (0, images(B_PENDING), images(), Finding.OVER, Outcome.UNSEEN),
        # A second core, listed whole.
        (1, images(A_OLD, C_OLD, D_PENDING), images(A_OLD, C_NEW, D_OLD), Finding.RUNS, None),
        (1, images(A_OLD, C_OLD, D_PENDING), images(A_OLD, C_OLD, D_PENDING), Finding.WAITING, Outcome.NEVER_SWAPPED),
        (1, images(A_OLD, C_OLD, D_PENDING), images(A_OLD, C_OLD), Finding.OVER, Outcome.REJECTED),
        # That the image of the other core is as it was says nothing of this one.
        (1, images(A_OLD, C_OLD, D_PENDING), images(A_OLD), Finding.COMING, Outcome.OTHER_IMAGE),
        # Its primary is never listed.
        (1, images(A_OLD, D_PENDING), images(A_OLD), Finding.OVER, Outcome.UNSEEN),
        (1, images(A_OLD, D_PENDING), images(A_OLD, D_PENDING), Finding.WAITING, Outcome.NEVER_SWAPPED),
        (1, images(A_OLD, D_PENDING), images(A_OLD, slot(1, 1, NEW)), Finding.OVER, Outcome.UNSEEN),
        # A list without image numbers.
        (1, BEFORE, images(A_NEW, B_OLD), Finding.RUNS, None),
        (1, BEFORE, BEFORE, Finding.WAITING, Outcome.NEVER_SWAPPED),
        (1, BEFORE, images(A_OLD), Finding.OVER, Outcome.UNSEEN),
    ],
)
def test_lists(number: int, before: ImageState, after: ImageState, found: Finding, outcome: Outcome | None) -> None:
    target = Target(IMAGE, number)
    told = verdict(target, before, after, target.active(before))
    assert told.finding is found
    if outcome is not None:
        assert told.outcome is outcome
        assert "1.1.0" in told.text
        assert told.hint


def test_what_cannot_be_seen_is_not_blamed_on_anybody() -> None:
    told = verdict(Target(IMAGE, 1), images(A_OLD, D_PENDING), images(A_OLD), None)
    assert "it cannot be proven that it runs" in told.text
    assert "does not list what runs of image 1" in told.text
    assert "key" not in told.text + told.hint


def test_an_image_that_waits_beside_others_may_need_one_of_them() -> None:
    both = images(A_OLD, B_PENDING, C_OLD, replace(D_PENDING, hash=OTHER))
    assert "needs another one" in verdict(Target(IMAGE), both, both, A_OLD).hint
    assert "too large" in verdict(Target(IMAGE), BEFORE, BEFORE, A_OLD).hint
    assert "image erase'" in verdict(Target(IMAGE), BEFORE, BEFORE, A_OLD).hint
    # The slot of another image has to be named.
    assert "image erase --slot 3'" in verdict(Target(IMAGE, 1), both, images(A_OLD, C_OLD, D_PENDING), C_OLD).hint


@pytest.mark.parametrize("number", [0, 1])
def test_the_slots_of_the_other_core_are_not_taken_for_this_ones(number: int) -> None:
    # Both cores hold the file in their second slots, one of them marked.
    state = images(A_OLD, B_NEW, C_OLD, D_PENDING)
    target = Target(IMAGE, number)
    staged = target.staged(state)
    assert staged is not None
    assert staged.image == number
    assert (target.pending(state) is not None) == (number == 1)
    assert not target.confirmed(state)
