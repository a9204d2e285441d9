"""The size of messages: what is tried after what, and how it grows again."""

from __future__ import annotations

import pytest

from mcumgrx.link.profile import LinkProfile
from mcumgrx.transfer.plan import ImageUpload, UploadPlan
from mcumgrx.transfer.sizes import MessageSize, probe_sizes
from mcumgrx.transfer.window import Window
from mcumgrx.transport import Limits


@pytest.mark.parametrize(
    ("largest", "safe", "least", "expected"),
    [
        (2044, 89, 75, [2044, 89, 75]),  # console serial: one line, then what the opening needs
        (2475, 244, 75, [2475, 244, 128, 75]),  # Bluetooth LE: one write
        (1472, 256, 20, [1472, 256, 128, 64]),
        (89, 89, 75, [89, 75]),
        (60, 89, 75, [75]),
        (128, 128, 128, [128]),
    ],
)
def test_what_is_tried_after_what(largest: int, safe: int, least: int, expected: list[int]) -> None:
    assert probe_sizes(largest, safe, least) == expected


def sizes(largest: int, safe: int, current: int | None = None) -> MessageSize:
    """Of an upload that needs messages of 75 bytes at least."""
    plan = UploadPlan(bytes(5000), ImageUpload(), message_bytes=largest)
    plan.least_bytes = 75
    profile = LinkProfile(proven_bytes=largest if current is None else current)
    return MessageSize(plan, Window(3), profile, Limits(safe))


def answered(size: MessageSize, count: int) -> bool:
    """So many answers; whether the last of them changed the size, and no other did."""
    for _ in range(count - 1):
        assert not size.answered()
    return size.answered()


def test_it_goes_down_the_probe_sizes_to_the_last() -> None:
    size = sizes(2475, 244)
    seen = [size.current]
    while size.failed():
        seen.append(size.current)
    assert seen == [2475, 244, 128, 75]
    assert not size.failed()


def test_it_grows_again_and_comes_back_at_once_where_that_fails() -> None:
    size = sizes(1000, 100, 100)
    assert answered(size, 32)
    assert size.current == 200
    assert size.failed()
    assert size.current == 100  # what had worked, not a rung below
    assert answered(size, 64)  # more patiently now
    assert size.current == 200
    for _ in range(2):
        assert not size.answered()  # 200 has arrived
    assert answered(size, 62)
    assert size.current == 400
    assert answered(size, 64)
    assert answered(size, 64)
    assert size.current == 1000
    assert not answered(size, 1000)


def test_what_had_arrived_may_get_lost_all_the_same() -> None:
    size = sizes(1000, 100, 100)
    answered(size, 32)
    size.answered()
    assert size.current == 200
    assert size.failed()
    assert size.current == 100
    assert size.failed()
    assert size.current == 75
