"""The simulated bootloader against what MCUboot's own bootutil did, recorded in tests/golden/mcuboot-boot.

The recordings hold every slot state after every step; flash operations are compared one by one where they were traced.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.mcuboot import ImageFlag, Version
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Bootloader, BootPolicy, Layout, Mode, SwapType
from mcumgrx.sim.flash import Flash, FlashError, FlashTiming, PowerCut
from mcumgrx.sim.images import build_image
from tests.support.boot_recordings import GOLDEN, Bench, Vectors, check_recording, cut_states, recordings, vectors
from tests.support.thinned import thinned

OTHER_COUNT = {
    ("swap_scratch", "w16", "largest image, test"),
    ("swap_scratch", "w16", "largest image in primary, small test upgrade"),
}
"""Same result with one flash operation less."""


def replay_steps(vectors: Vectors, scenario: dict[str, Any]) -> Iterator[str]:
    bench = Bench(vectors, scenario["layout"])
    for number, step in enumerate(scenario["steps"]):
        bench.trace.clear()
        before = bench.flash.writes_over_data
        result = bench.step(step)
        expect = step.get("expect")
        if expect is None:
            continue
        where = f"{scenario['name']} [{number}: {step['do']}]"
        for text in bench.differences(expect, result):
            yield f"{where}: {text}"
        over = bench.flash.writes_over_data - before
        if step["do"] == "boot" and over != expect.get("writes_over_data", 0):
            yield f"{where}: {over} writes over data, not {expect.get('writes_over_data', 0)}"
        if "trace" in expect and bench.trace != expect["trace"].split():
            yield f"{where}: trace\n    {' '.join(bench.trace)}\nnot {expect['trace']}"
        other_count = (vectors.name, scenario["layout"], scenario["name"]) in OTHER_COUNT
        if step["do"] == "boot" and not other_count and len(bench.trace) != expect.get("flash_ops", 0):
            yield f"{where}: {len(bench.trace)} flash operations, not {expect.get('flash_ops', 0)}"


def replay_cuts(vectors: Vectors, scenario: dict[str, Any]) -> Iterator[str]:
    """Cut the power before each flash operation in turn; boot again, and once more."""
    bench = Bench(vectors, scenario["layout"])
    for step in scenario["setup"]:
        bench.step(step)
    states = cut_states(bench.flash, bench.boot_loader.boot, torn=scenario["cut"] == "torn")
    wanted = {
        number: (index, scenario["outcomes"][index])
        for first, last, index in scenario["results"]
        for number in range(first, last + 1)
    }
    if list(wanted) != list(range(1, len(states) + 1)):
        yield f"{scenario['name']}: {len(states)} flash operations, not {len(wanted)}"
    bench.flash.watch = None
    ends: set[tuple[object, ...]] = set()
    ends_of = {number for first, last, _ in scenario["results"] for number in (first, last)}
    cuts = ends_of | set(thinned(wanted, scenario["name"]))
    for number, state in enumerate(states, 1):
        if number not in cuts:
            continue
        index, outcome = wanted[number]
        bench.flash.restore(state)
        result = bench.boot_loader.boot()
        end = index, result.slot, result.hash, hashlib.sha256(bench.flash.snapshot()).digest()
        if end in ends:
            continue
        found = list(bench.differences(outcome, result))
        after = bench.boots(bench.boot_loader.boot())
        if (after["image"] if after else None) != outcome["boots_after"]:
            found.append(f"then boots {after}, not {outcome['boots_after']}")
        if not found:
            ends.add(end)  # as good as this one are all that end in the same way
        for text in found:
            yield f"{scenario['name']} [cut before {number} of {scenario['flash_ops']}]: {text}"


@pytest.mark.parametrize(("name", "layout"), recordings(GOLDEN))
def test_does_what_bootutil_did(name: str, layout: str) -> None:
    check_recording(vectors(name), layout, replay_steps, replay_cuts)


def test_every_recording_is_replayed() -> None:
    counts = {path.stem: len(vectors(path.stem).data["scenarios"]) for path in GOLDEN.glob("*.json")}
    assert counts == {
        "direct_xip": 104,
        "direct_xip_buildnum": 3,
        "direct_xip_revert": 121,
        "overwrite": 145,
        "overwrite_downgrade": 35,
        "overwrite_downgrade_buildnum": 3,
        "overwrite_full": 20,
        "ram_load": 72,
        "ram_load_revert": 71,
        "single_slot": 34,
        "swap_move": 208,
        "swap_move_bootstrap": 18,
        "swap_move_downgrade": 20,
        "swap_move_novalidate": 16,
        "swap_offset": 174,
        "swap_offset_downgrade": 21,
        "swap_scratch": 149,
        "swap_scratch_downgrade": 20,
    }


def test_the_documentation_counts_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    for path in GOLDEN.glob("*.json"):
        assert f"| `{path.stem}` | {len(vectors(path.stem).data['scenarios'])} |" in page


@pytest.mark.parametrize(("name", "layout"), recordings(GOLDEN))
def test_slot_geometry_is_the_recorded_one(name: str, layout: str) -> None:
    bench = Bench(vectors(name), layout)
    recorded = bench.layout
    trailer = bench.boot_loader.trailer
    assert bench.boot_loader.max_image_size == recorded["max_image_total"]
    assert trailer.size == recorded["trailer_size"]
    assert trailer.max_align == recorded["max_align"]
    assert {
        "magic": trailer.magic_offset,
        "image_ok": trailer.image_ok_offset,
        "copy_done": trailer.copy_done_offset,
        "swap_info": trailer.swap_info_offset,
        "swap_size": trailer.swap_size_offset,
    } == recorded["offsets"]
    assert bench.boot_loader.upload_offset == recorded.get("secondary_image_offset", 0)


@pytest.mark.parametrize("name", ["swap_move", "swap_offset", "swap_scratch", "overwrite"])
def test_swap_type_follows_the_recorded_table(name: str) -> None:
    """All 729 pairs of trailers."""
    recorded = vectors(name)
    bench = Bench(recorded, "w4")
    magics = {"g": bench.boot_loader.trailer.magic, "b": b"\x00" * 16, "u": b"\xff" * 16}
    flags = {"s": b"\x01", "b": b"\x02", "u": b"\xff"}
    marks = itertools.product("gbu", "sbu", "sbu", "gbu", "sbu", "sbu")
    found = ""
    for primary_and_secondary in marks:
        for slot, (magic, image_ok, copy_done) in zip(
            bench.slots.values(), (primary_and_secondary[:3], primary_and_secondary[3:]), strict=True
        ):
            end = slot.offset + slot.size
            bench.flash.poke(end - 16, magics[magic])
            bench.flash.poke(end - slot.trailer.image_ok_offset, flags[image_ok])
            bench.flash.poke(end - slot.trailer.copy_done_offset, flags[copy_done])
        found += bench.boot_loader.swap_type().name[0].lower()
    assert found == recorded.data["swap_type_table"]


# --- what no recording covers ----------------------------------------------------------------------------------------


SECTOR = 1024
SLOT_SECTORS = 12


def device(mode: Mode, *, write_size: int = 4, policy: BootPolicy | None = None) -> Bootloader:
    slot = SLOT_SECTORS * SECTOR
    layout = Layout(0, slot, slot, slot, 2 * slot, 2 * SECTOR, max_sectors=SLOT_SECTORS)
    flash = Flash(2 * slot + 2 * SECTOR, sector_size=SECTOR, write_size=write_size)
    return Bootloader(flash, layout, mode, policy=policy)


def put(boot_loader: Bootloader, slot: int, image: bytes) -> None:
    offset = boot_loader.upload_offset if slot == SECONDARY else 0
    area = boot_loader.slots[slot]
    boot_loader.flash.poke(area.offset, (b"\xff" * offset + image).ljust(area.size, b"\xff"))


def holds(boot_loader: Bootloader, slot: int, image: bytes) -> bool:
    content = boot_loader.slots[slot].content()
    return content.startswith(image) or content.startswith(image, SECTOR)


def image(version: str, size: int) -> bytes:
    made = build_image(version, payload_size=size - 32 - 40, header_size=32, signed=False)
    assert len(made) == size
    return made


@pytest.mark.parametrize("write_size", [1, 4, 32])
@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.SWAP_SCRATCH, Mode.OVERWRITE])
def test_power_cuts_one_after_the_other(mode: Mode, write_size: int) -> None:
    """The device survives two cuts in one upgrade, wherever they are, with the largest images there can be.

    But swap using offset, which loses the end of an old image that is larger by two sectors.
    """
    boot_loader = device(mode, write_size=write_size)
    flash = boot_loader.flash
    largest = boot_loader.max_image_size
    assert largest is not None
    fewer = 1 if mode is Mode.SWAP_OFFSET else 3
    old, new = image("1.0.0", largest), image("2.0.0", largest - fewer * SECTOR)
    put(boot_loader, PRIMARY, old)
    put(boot_loader, SECONDARY, new)
    assert boot_loader.set_pending() == 0
    start, before = flash.snapshot(), flash.operations
    assert boot_loader.boot().performed is SwapType.TEST
    total = flash.operations - before
    for first in range(total):
        flash.restore(start)
        flash.cut_power(first)
        with pytest.raises(PowerCut):
            boot_loader.boot()
        flash.cut_power((first * 7) % total, torn=first % 2 == 1)
        try:
            result = boot_loader.boot()
        except PowerCut:
            result = boot_loader.boot()
        flash.keep_power()
        assert result.version == Version(2), first
        assert holds(boot_loader, PRIMARY, new)
        if mode is not Mode.OVERWRITE:
            assert holds(boot_loader, SECONDARY, old), first
            assert boot_loader.swap_type() is SwapType.REVERT
            assert boot_loader.boot().performed is SwapType.REVERT
            assert holds(boot_loader, PRIMARY, old), first
            assert holds(boot_loader, SECONDARY, new), first
            assert boot_loader.boot().performed is SwapType.NONE


def test_an_upgrade_takes_its_time() -> None:
    boot_loader = device(Mode.SWAP_MOVE)
    boot_loader.flash.timing = FlashTiming(erase_s_per_sector=0.1, write_s_per_byte=0.0)
    put(boot_loader, PRIMARY, image("1.0.0", 1000))
    put(boot_loader, SECONDARY, image("1.1.0", 1000))
    boot_loader.set_pending(permanent=True)
    boot_loader.boot()
    # One erase for each trailer, one for the move, two for the swap.
    assert boot_loader.flash.take_busy_s() == pytest.approx(0.5)
    assert boot_loader.flash.take_busy_s() == 0.0


def test_a_result_tells_what_was_done() -> None:
    boot_loader = device(Mode.SWAP_MOVE)
    old, new = image("1.0.0", 900), image("1.1.0", 1800)
    assert not boot_loader.boot().booted
    put(boot_loader, PRIMARY, old)
    put(boot_loader, SECONDARY, new)
    first = boot_loader.boot()
    assert (first.slot, first.version, first.performed) == (PRIMARY, Version(1), SwapType.NONE)
    assert first.hash == old[-32:]
    boot_loader.set_pending()
    second = boot_loader.boot()
    assert (second.hash, second.performed) == (new[-32:], SwapType.TEST)
    assert any("test" in note for note in second.notes)


def test_the_verifier_has_the_last_word() -> None:
    boot_loader = device(Mode.SWAP_MOVE)
    put(boot_loader, PRIMARY, image("1.0.0", 900))
    put(boot_loader, SECONDARY, image("1.1.0", 900))
    boot_loader.verify = lambda candidate: candidate.version < Version(1, 1)
    boot_loader.set_pending()
    result = boot_loader.boot()
    assert (result.version, result.performed) == (Version(1), SwapType.NONE)
    assert boot_loader.secondary.header_erased()


def test_a_firmware_loader_runs_when_the_application_is_unusable() -> None:
    boot_loader = device(Mode.FIRMWARE_LOADER)
    put(boot_loader, SECONDARY, image("0.1.0", 900))
    assert boot_loader.boot().slot == SECONDARY
    put(boot_loader, PRIMARY, image("1.0.0", 900))
    assert boot_loader.boot().slot == PRIMARY


def test_single_slot_ram_load_wants_an_address_in_ram() -> None:
    policy = BootPolicy(ram_start=0x2000_0000, ram_size=0x1_0000)
    boot_loader = device(Mode.SINGLE_SLOT_RAM_LOAD, policy=policy)
    put(boot_loader, PRIMARY, image("1.0.0", 900))
    assert not boot_loader.boot().booted
    flags = ImageFlag.RAM_LOAD
    put(boot_loader, PRIMARY, build_image("1.0.0", payload_size=500, flags=flags, load_address=0x2000_1000))
    assert boot_loader.boot().load_address == 0x2000_1000


def test_bootstrap_finds_the_image_where_swap_using_offset_has_it() -> None:
    boot_loader = device(Mode.SWAP_OFFSET, policy=BootPolicy(bootstrap=True))
    put(boot_loader, SECONDARY, image("1.0.0", 900))
    assert boot_loader.boot().version == Version(1)


def test_one_slot_is_enough() -> None:
    slot = SLOT_SECTORS * SECTOR
    boot_loader = Bootloader(Flash(slot, sector_size=SECTOR), Layout(0, slot, slot, 0), Mode.SINGLE_SLOT)
    put(boot_loader, PRIMARY, image("1.0.0", 900))
    assert boot_loader.boot().version == Version(1)
    assert boot_loader.max_image_size == slot - 48
    assert boot_loader.set_pending() == 1
    assert boot_loader.swap_type() is SwapType.NONE


def test_a_layout_that_does_not_fit_is_refused() -> None:
    flash = Flash(8 * SECTOR, sector_size=SECTOR)
    with pytest.raises(FlashError, match="secondary slot"):
        Bootloader(flash, Layout.equal_slots(5 * SECTOR))
    with pytest.raises(FlashError, match="primary slot"):
        Bootloader(flash, Layout(100, 2 * SECTOR, 4 * SECTOR, 2 * SECTOR))
