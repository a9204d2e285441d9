"""Why a device has refused something: hints made from its list, the file and the request."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mcumgrx.errors import DeviceError
from mcumgrx.mcuboot import Image, ImageFlag, parse_image, trailer_magic
from mcumgrx.messages.standard import ImageState, Slot, SlotInfo
from mcumgrx.protocol.codes import ImageErrorCode, SmpError, error_table
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.image.refusals import Asked, Doing, refusal_hint, tells

FILE = parse_image(build_image("1.1.0", payload_size=2000))
PADDED = parse_image((FILE.data.ljust(8192 - 16, b"\xff")) + trailer_magic(16))
XIP = parse_image(build_image("1.1.0", payload_size=64, flags=ImageFlag.ROM_FIXED, load_address=0x84000))


def slot(number: int, version: str, flags: str = "", image: int = 0, hash: bytes | None = None) -> Slot:
    """Flags as letters: active, confirmed, pending, permanent (m)."""
    return Slot(
        image,
        number,
        version,
        version.encode().ljust(32, b"\0") if hash is None else hash,
        bootable=True,
        active="a" in flags,
        confirmed="c" in flags,
        pending="p" in flags,
        permanent="m" in flags,
    )


GOOD = slot(0, "1.0.0", "ac")
CALM = ImageState((GOOD, slot(1, "0.9.0")))
ON_TRIAL = ImageState((slot(0, "1.0.0", "a"), slot(1, "0.9.0", "c")))
STUCK = ImageState((GOOD, slot(1, "0.9.0", "pm")))
TESTED = ImageState((GOOD, slot(1, "0.9.0", "p")))
NET_ON_TRIAL = ImageState((GOOD, slot(0, "2.0.0", "a", image=1), slot(1, "1.9.0", "c", image=1)))
SIZES = (SlotInfo(0, 0, 8192), SlotInfo(0, 1, 8192))

U, E, T, C = Doing.UPLOAD, Doing.ERASE, Doing.TEST, Doing.CONFIRM
NO_FREE, BAD_STATE = (1, ImageErrorCode.NO_FREE_SLOT), (None, SmpError.BAD_STATE)


def ask(doing: Doing, images: ImageState | None = CALM, image: Image | None = None, **more: Any) -> Asked:
    return Asked(doing, image=FILE if doing is U and image is None else image, images=images, **more)


# What is refused and with which error, what the hint has, and what it must not have.
TABLE = [
    (
        NO_FREE,
        ask(U, ON_TRIAL),
        "1.0.0 runs on trial, .* back to 0.9.0.*'mcumgrx image confirm'.*os reset",
        "marked",
    ),
    (BAD_STATE, ask(U, ON_TRIAL), "runs on trial", "marked"),
    (NO_FREE, ask(E, NET_ON_TRIAL, number=1), "image confirm 322e302e30", None),
    (NO_FREE, ask(U, STUCK), "slot 1 holds 0.9.0, which is marked to stay.*debugger", "trial|confirm"),
    (BAD_STATE, ask(E, STUCK), "0.9.0, which is marked to stay.*recovery", "trial|confirm"),
    (NO_FREE, ask(U, TESTED), "0.9.0, which is marked for a test boot", "confirm"),
    (NO_FREE, ask(U), "1.0.0 runs and is confirmed, and nothing is marked", "trial|'mcumgrx image confirm"),
    (NO_FREE, ask(E, slot=0), "slot 0 holds 1.0.0, which runs", None),
    (NO_FREE, ask(U, ImageState(())), "no image that runs", None),
    (BAD_STATE, ask(T, TESTED), "0.9.0 in slot 1 is marked for a test boot already.*'mcumgrx image erase'", None),
    ((1, 28), ask(C, STUCK), "marked to stay already", None),
    ((1, 28), ask(C, ImageState((GOOD, slot(1, "2.0", "p", image=1)))), "image erase --slot 3", None),
    ((None, 3), ask(U), "most likely the file of 2,656 bytes is too large for the slot, or .*--chunk 64", "image 0"),
    ((None, 3), ask(U, number=2), "the device has no image 2, or the file", None),
    ((None, 3), ask(U, slots=SIZES), "2,656 bytes is too large for a slot of 8,192", None),
    ((None, 1), ask(U), "flash cannot be written or erased, or the file of 2,656 bytes is too large", None),
    ((None, 1), ask(E), "flash cannot be erased", None),
    ((None, 1), ask(T, hash=bytes(64)), "hashes of 256 bits, and this one has 512", None),
    ((None, 2), ask(U), "--chunk 64", None),
    ((None, 5), ask(U, number=1), "no image 1", None),
    ((1, 10), ask(U), "'mcumgrx image slots'", None),
    ((1, 12), ask(U, slots=SIZES), "2,656 of 8,192 bytes may reach into the end of the slot", None),
    ((1, 13), ask(U, image=PADDED), "padded.*swaps using offset.*--trim", None),
    ((1, 13), ask(U, slots=SIZES), r"fills the slot \(2,656 of 8,192 bytes\).*flash", "padded"),
    ((1, 13), ask(E), "device's log", "file"),
    ((1, 30), ask(U, image=PADDED), "has 2,656 bytes without: 'mcumgrx dfu FILE --trim'", None),
    ((1, 30), ask(U), "the file has 2,656 bytes.*image slots", "pad"),
    ((1, 30), ask(U, slots=(SlotInfo(0, 1, 2000),)), "2,656 bytes, the slot 2,000", "pad"),
    ((1, 30), ask(U, slots=SIZES), "keeps some of them for the bootloader", "pad"),
    ((1, 23), ask(T, hash=slot(1, "0.9.0").hash), "the trailer at the end of slot 1 is damaged.*image erase", "signed"),
    ((1, 23), ask(T, image=PADDED), "alignment 16.*--trim", None),
    ((1, 23), ask(U), "a good image here", "sign"),
    ((1, 25), ask(U, image=XIP), "address 0x84000: send the one that the build made for slot 1", None),
    ((1, 27), ask(U), "1.0.0 runs, and the file is 1.1.0: leave out --upgrade-only", "downgrade guard"),
    ((1, 8), ask(T, hash=bytes(32)), "'mcumgrx image list'", None),
    ((1, 8), ask(T, ImageState((slot(0, "1.0.0", "ac", hash=bytes(64)),)), hash=bytes(32)), "512 bits", None),
    ((1, 32), ask(C, NET_ON_TRIAL, hash=slot(0, "2.0.0").hash), "its own application.*image 1", None),
    ((1, 32), ask(C, hash=slot(1, "0.9.0").hash), "confirms only what runs.*image test 302e39", None),
]


def refusal(group: int | None, rc: int) -> DeviceError:
    table = SmpError if group is None else error_table(group)
    return DeviceError("no", group=group, rc=rc, code=table and table.find(rc))


@pytest.mark.parametrize(("code", "asked", "said", "not_said"), TABLE)
def test_hints_come_from_the_state(code: tuple[int | None, int], asked: Asked, said: str, not_said: str | None) -> None:
    error = refusal(*code)
    assert tells(error)
    hint = refusal_hint(error, asked)
    assert hint is not None
    assert re.search(said, hint)
    assert not_said is None or not re.search(not_said, hint)


@pytest.mark.parametrize("code", [(1, 1), (None, 10), (None, 8), (8, 9), (1, 99)])
def test_other_errors_are_left_to_their_own_hint(code: tuple[int | None, int]) -> None:
    error = refusal(*code)
    assert not tells(error)
    assert refusal_hint(error, ask(U)) is None


def test_without_a_list_nothing_is_guessed() -> None:
    assert refusal_hint(refusal(1, 9), ask(U, None)) is None
    assert refusal_hint(refusal(1, 28), ask(C, None)) is None
