"""The plan for several images at once: each situation of two images, and what is refused. No device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest

from mcumgrx.cli.dfu import PlanView
from mcumgrx.errors import PlanRefused, UsageError
from mcumgrx.flows import DeviceState, DfuPolicy, Mode, Plan, make_plan
from mcumgrx.flows.plan import Confirm, Erase, Mark, Prove, Reset, Upload
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
from mcumgrx.sim.images import build_image


def built(version: str, image: int = 0, needs: Mapping[int, str] | None = None) -> Image:
    return parse_image(build_image(version, payload_size=1024, image=image, needs=needs))


APP, NET = built("1.1.0"), built("2.1.0", 1)
FILES = {0: APP, 1: NET}
OLD = {number: hashlib.sha256(b"old %d" % number).digest() for number in range(4)}
THIRD = hashlib.sha256(b"third").digest()
VERSIONS = {0: ("1.0.0", "1.1.0"), 1: ("2.0.0", "2.1.0"), 2: ("3.0.0", "3.1.0")}


def slots(number: int, situation: str) -> tuple[Slot, ...]:
    """The slots of one image in a situation with regard to its new file."""
    old, version = VERSIONS[number]
    image = FILES.get(number, APP)

    def slot(which: int, version: str, hash: bytes, flags: str) -> Slot:
        return Slot(
            number,
            which,
            version,
            hash,
            bootable=True,
            active="a" in flags,
            confirmed="c" in flags,
            pending="p" in flags,
            permanent="m" in flags,
        )

    running = slot(0, old, OLD[number], "ac")
    return {
        "old": (running,),
        "staged": (running, slot(1, version, image.hash, "")),
        "test": (running, slot(1, version, image.hash, "p")),
        "perm": (running, slot(1, version, image.hash, "pm")),
        "trial": (slot(0, version, image.hash, "a"), slot(1, old, OLD[number], "c")),
        "done": (slot(0, version, image.hash, "ac"), slot(1, old, OLD[number], "")),
        "third": (slot(0, "0.5.0", THIRD, "a"), slot(1, old, OLD[number], "c")),
        "unlisted": (),
    }[situation]


def device(*situations: str, mode: int = BootloaderMode.SWAP_MOVE, sizes: bool = False) -> DeviceState:
    listed = tuple(slot for number, one in enumerate(situations) for slot in slots(number, one))
    infos = tuple(SlotInfo(number, side, 500_000) for number in range(len(situations)) for side in (0, 1))
    return DeviceState(ImageState(listed, 0), infos if sizes else None, Bootloader("MCUboot", mode))


def letters(plan: Plan) -> str:
    """U0 uploads image 0, t1 marks image 1 for a test, p1 to stay, R resets, P01 proves both, C1 confirms one."""
    text = []
    for kind, letter in ((Erase, "E"), (Upload, "U"), (Mark, "M"), (Reset, "R"), (Prove, "P"), (Confirm, "C")):
        if kind is Reset:
            text += ["R"] if plan.has(Reset) else []
            continue
        for number, step in plan.tasks(kind):
            shown = ("p" if step.permanent else "t") if isinstance(step, Mark) else letter
            text.append(f"{shown}{number}")
    return " ".join(text) or "-"


# Test and confirm on a bootloader that swaps: rows are image 0, columns are image 1.
COLUMNS = ("old", "staged", "test", "perm", "trial", "done")
SWAP = """
    old U0 U1 t1 t0 R P0 P1 C1 C0 | U0 t1 t0 R P0 P1 C1 C0 | U0 t0 R P0 P1 C1 C0 | U0 t0 R P0 P1 C0 | ! | U0 t0 R P0 C0
    staged U1 t1 t0 R P0 P1 C1 C0 | t1 t0 R P0 P1 C1 C0 | t0 R P0 P1 C1 C0 | t0 R P0 P1 C0 | ! | t0 R P0 C0
    test U1 t1 R P0 P1 C1 C0 | t1 R P0 P1 C1 C0 | R P0 P1 C1 C0 | R P0 P1 C0 | ! | R P0 C0
    perm U1 t1 R P0 P1 C1 | t1 R P0 P1 C1 | R P0 P1 C1 | R P0 P1 | ! | R P0
    trial U1 t1 R P0 P1 C1 C0 | t1 R P0 P1 C1 C0 | R P0 P1 C1 C0 | R P0 P1 C0 | C1 C0 | C0
    done U1 p1 R P1 | p1 R P1 | R P1 C1 | R P1 | C1 | -
"""
CELLS = [
    pytest.param(row.split()[0], column, cell.strip(), id=f"{row.split()[0]}-{column}")
    for row in SWAP.strip().splitlines()
    for column, cell in zip(COLUMNS, row.strip().split(maxsplit=1)[1].split("|"), strict=True)
]


@pytest.mark.parametrize(("first", "second", "expected"), CELLS)
def test_every_pair_of_situations(first: str, second: str, expected: str) -> None:
    if expected == "!":
        with pytest.raises(PlanRefused, match=r"^image 1: 2\.1\.0 runs on trial, and the reset") as refusal:
            make_plan(FILES, device(first, second), DfuPolicy())
        assert f"image confirm {NET.hash.hex()}" in (refusal.value.hint or "")
        return
    plan = make_plan(FILES, device(first, second), DfuPolicy())
    assert letters(plan) == expected
    if not plan.steps:
        assert len(plan.notes) == 2
    fields = json.loads(json.dumps(plan.as_dict()))
    assert [(one["image"], one["to_version"], one["hash"]) for one in fields["images"]] == [
        (0, "1.1.0", APP.hash.hex()),
        (1, "2.1.0", NET.hash.hex()),
    ]
    assert len(PlanView("serial:/dev/ttyACM0", plan).lines()) <= 12


@pytest.mark.parametrize(
    ("mode", "how", "expected"),
    [
        (BootloaderMode.SWAP_MOVE, Mode.CONFIRM_ONLY, "U0 U1 p1 p0 R P0 P1"),
        (BootloaderMode.SWAP_MOVE, Mode.TEST_ONLY, "U0 U1 t1 t0 R P0 P1"),
        (BootloaderMode.SWAP_MOVE, Mode.UPLOAD_ONLY, "U0 U1"),
        (BootloaderMode.OVERWRITE, Mode.TEST_AND_CONFIRM, "U0 U1 p1 p0 R P0 P1"),
        (BootloaderMode.DIRECT_XIP, Mode.TEST_AND_CONFIRM, "U0 U1 R P0 P1"),
        (BootloaderMode.DIRECT_XIP_REVERT, Mode.TEST_AND_CONFIRM, "U0 U1 t1 t0 R P0 P1 C1 C0"),
        (BootloaderMode.UNKNOWN, Mode.TEST_AND_CONFIRM, "U0 U1 t1 t0 R P0 P1 C1 C0"),
    ],
)
def test_every_bootloader_and_mode(mode: int, how: Mode, expected: str) -> None:
    assert letters(make_plan(FILES, device("old", "old", mode=mode), DfuPolicy(how))) == expected


def test_one_file_by_its_number_is_planned_as_one_file() -> None:
    state = device("old", "old")
    assert make_plan({1: NET}, state, DfuPolicy()) == make_plan(NET, state, DfuPolicy(image=1))


def test_the_plan_says_of_each_image_what_is_done_and_why() -> None:
    plan = make_plan(FILES, device("old", "staged"), DfuPolicy(erase=False))
    assert plan.texts == (
        f"upload 1.1.0 ({APP.size:,} bytes) to slot 1 of image 0",
        "mark image 1, then image 0 for a test boot",
        "reset the device and wait for it to return",
        "prove that 1.1.0 of image 0 and 2.1.0 of image 1 run",
        "confirm 2.1.0 of image 1 and 1.1.0 of image 0, so that they stay",
    )
    assert plan.notes == ("image 1: 2.1.0 is already in slot 1: no upload",)
    assert plan.parts[1].notes == ("2.1.0 is already in slot 1: no upload",)
    assert PlanView("sim:", make_plan(FILES, device("done", "old"), DfuPolicy())).lines()[1:3] == [
        "image 0  1.1.0 is already running and confirmed",
        f"image 1  2.0.0 -> 2.1.0 (hash {NET.hash.hex()[:8]})",
    ]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_plan_fits_a_small_terminal(count: int) -> None:
    files = {number: built("9.0.0", number) for number in range(count)}
    old = tuple(Slot(number, 0, "1.0.0", OLD[0], active=True, confirmed=True) for number in range(count))
    plan = make_plan(files, DeviceState(ImageState(old, 0), None), DfuPolicy(erase=True))
    assert len(PlanView("sim:", plan).lines()) <= 12
    assert letters(plan).split()[: 2 * count] == [f"{kind}{number}" for kind in "EU" for number in range(count)]


def test_what_is_true_of_all_is_said_once() -> None:
    plan = make_plan(FILES, device("old", "old", mode=BootloaderMode.OVERWRITE), DfuPolicy())
    assert plan.warnings == ("this bootloader overwrites the old image: there is no way back",)


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(files: Mapping[int, Image], state: DeviceState, **policy: object) -> PlanRefused:
    with pytest.raises(PlanRefused) as refusal:
        make_plan(files, state, DfuPolicy(**policy))  # type: ignore[arg-type]
    assert refusal.value.hint
    return refusal.value


def test_another_image_on_trial_is_named_with_its_number() -> None:
    refusal = refused(FILES, device("old", "third"))
    assert refusal.message.startswith("image 1: the running image 0.5.0 is not confirmed")
    assert f"image confirm {THIRD.hex()}" in (refusal.hint or "")


def test_a_bootloader_that_does_not_swap_ends_every_trial() -> None:
    state = device("trial", "old", mode=BootloaderMode.DIRECT_XIP_REVERT)
    assert refused(FILES, state).message.startswith("image 0: 1.1.0 runs on trial")


def test_an_image_that_the_device_has_not() -> None:
    assert refused(FILES, device("old", sizes=True)).message == "image 1: the device has no image 1"
    assert refused(FILES, device("old")).message == "image 1: the device lists no image 1"


def test_an_image_on_trial_that_is_not_among_the_files_would_be_held_up() -> None:
    state = device("third", "old", "old")
    refusal = refused({1: NET, 2: built("3.1.0", 2)}, state)
    assert "0.5.0 of image 0 runs on trial, and the installation of image 1 would put off its end" in refusal.message


def test_needs_are_met_by_the_files_of_the_same_update() -> None:
    state = device("old", "old")
    files = {0: built("1.1.0", needs={1: "2.1.0"}), 1: built("2.1.0", 1, needs={0: "1.1.0"})}
    assert letters(make_plan(files, state, DfuPolicy())) == "U0 U1 t1 t0 R P0 P1 C1 C0"
    unmet = {0: built("1.1.0", needs={1: "2.2.0"}), 1: NET}
    assert refused(unmet, state).message == (
        "image 0: the file needs image 1 at version 2.2.0 or later, but the file for it is 2.1.0"
    )
    assert "2.2.0" in make_plan(unmet, state, DfuPolicy(Mode.UPLOAD_ONLY)).warnings[0]
    # What runs does not count where a file takes its place.
    older = {0: built("1.1.0", needs={1: "2.0.0"}), 1: built("1.9.0", 1)}
    assert "but the file for it is 1.9.0" in refused(older, state).message
    assert "0=FILE 1=FILE" in (refused({0: unmet[0]}, state).hint or "")


def test_a_core_that_is_never_listed_is_marked_to_stay_and_said_to_be_unproven() -> None:
    plan = make_plan(FILES, device("old", "unlisted", sizes=True), DfuPolicy())
    assert letters(plan) == "U0 U1 p1 t0 R P0 P1 C0"
    assert plan.tasks(Prove)[1][1] == Prove("2.1.0", listed=False)
    assert any(text.startswith("image 1: the device does not list what runs of image 1") for text in plan.warnings)


# -- the order ---------------------------------------------------------------------------------------------------------

NET_CORE = parse_image(
    build_image(
        "2.1.0",
        payload=b"".join(word.to_bytes(4, "little") for word in (0x2100_4000, *[0x0100_8B01] * 15)) + bytes(1000),
        image=1,
    )
)


@pytest.mark.parametrize(
    ("order", "first", "second", "expected", "asks"),
    [
        ((), "old", "old", "U0 U1 t1 t0 R P0 P1 C1 C0", False),
        ((1, 0), "old", "old", "U1 U0 t1 t0 R P0 P1 C1 C0", False),
        ((0, 1), "old", "old", "U0 U1 t0 t1 R P0 P1 C1 C0", True),
        ((0, 1), "old", "staged", "U0 t0 t1 R P0 P1 C1 C0", True),
        ((0, 1), "old", "test", "U0 t0 R P0 P1 C1 C0", False),  # nothing is marked after it
        ((0, 1), "trial", "old", "U1 t1 R P0 P1 C1 C0", False),
        ((), "test", "old", "U1 t1 R P0 P1 C1 C0", False),
    ],
)
def test_images_are_uploaded_and_marked_in_the_order_that_is_wanted(
    order: tuple[int, ...], first: str, second: str, expected: str, asks: bool
) -> None:
    plan = make_plan(FILES, device(first, second), DfuPolicy(image_order=order))
    assert letters(plan) == expected
    assert bool(plan.no_way_back) == asks
    if asks:
        assert plan.no_way_back[0].startswith("image 0 is marked before image 1: the bootloader of an nRF5340")
        assert plan.no_way_back[0] in plan.warnings


def test_a_network_core_after_an_application_that_is_marked_already_has_to_be_agreed_to() -> None:
    plan = make_plan({0: APP, 1: NET_CORE}, device("test", "old"), DfuPolicy())
    assert letters(plan) == "U1 t1 R P0 P1 C1 C0"
    assert "image 0 has been marked before image 1" in plan.no_way_back[0]
    assert not make_plan({0: APP, 1: NET_CORE}, device("old", "old"), DfuPolicy()).no_way_back


def test_an_order_of_three_images() -> None:
    files = {0: APP, 1: NET, 2: built("3.1.0", 2)}
    plan = make_plan(files, device("old", "old", "old"), DfuPolicy(image_order=(1, 0, 2)))
    assert letters(plan).startswith("U1 U0 U2 t1 t0 t2 R")
    assert "image 0 is marked before image 2" in plan.no_way_back[0]
    assert plan.texts[0].startswith("upload 2.1.0")


@pytest.mark.parametrize("order", [(0,), (1, 0, 2), (1, 2)])
def test_an_order_of_other_images_is_refused(order: tuple[int, ...]) -> None:
    refusal = refused(FILES, device("old", "old", "old"), image_order=order)
    assert "has to name images 0 and 1" in refusal.message
    assert "--image-order 1,0" in (refusal.hint or "")


def test_an_order_of_one_image() -> None:
    assert make_plan(APP, device("old"), DfuPolicy(image_order=(0,))).has(Upload)
    with pytest.raises(PlanRefused, match="has to name image 0, which"):
        make_plan(APP, device("old"), DfuPolicy(image_order=(1, 0)))


@pytest.mark.parametrize("order", [(1, 1), (0, -1)])
def test_an_order_that_is_none(order: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="image_order must name each image once"):
        DfuPolicy(image_order=order)
