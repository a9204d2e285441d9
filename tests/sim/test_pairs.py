"""Devices with two and three images against what MCUboot's own bootutil did: tests/golden/mcuboot-boot-multi."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import DeviceError, UsageError
from mcumgrx.mcuboot import parse_image
from mcumgrx.sim.bootloader import BootResult, Mode
from mcumgrx.sim.device import DeviceConfig, Power, SimulatedDevice
from mcumgrx.sim.flash import INSTANT, Operation, OperationKind, PowerCut
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx.sim.pairs import boot_images
from mcumgrx_plugins.image.group import ImageGroup
from tests.support.boot_recordings import GOLDEN as SINGLE
from tests.support.boot_recordings import (
    Bench,
    Vectors,
    blank_flash,
    check_recording,
    cut_states,
    recordings,
    scratch_address,
    vectors,
)
from tests.support.thinned import thinned

GOLDEN = SINGLE.parent / "mcuboot-boot-multi"


class PairsBench:
    """A blank device with several pairs of slots, each a bench of its own over one flash."""

    def __init__(self, vectors: Vectors, layout_name: str) -> None:
        layout = vectors.data["layouts"][layout_name]
        pairs = layout["pairs"]
        scratch = scratch_address(layout, pairs)
        self.vectors = vectors
        self.flash = blank_flash(layout, scratch)
        self.pairs = [
            Bench(
                vectors,
                layout_name,
                layout={**layout, **pair, "scratch_address": scratch},
                flash=self.flash,
                number=number,
            )
            for number, pair in enumerate(pairs)
        ]
        self.trace: list[str] = []
        self.flash.watch = self._watch

    def _watch(self, operation: Operation) -> None:
        kind = "E" if operation.kind is OperationKind.ERASE else "W"
        for number, pair in enumerate(self.pairs):
            for letter, slot in pair.areas:
                if slot.offset <= operation.offset < slot.offset + slot.size and not (letter == "X" and number):
                    where = letter if letter == "X" else f"{number}{letter}"
                    self.trace.append(f"{kind}{where}{operation.offset - slot.offset}+{operation.length}")

    def boot(self) -> tuple[BootResult, ...]:
        return boot_images([pair.boot_loader for pair in self.pairs])

    def step(self, step: dict[str, Any]) -> int | tuple[BootResult, ...] | None:
        if step["do"] != "boot":
            result = self.pairs[step["pair"]].step(step)
            assert not isinstance(result, BootResult)
            return result
        if "cut" not in step:
            return self.boot()
        self.flash.cut_power(step["cut"] - 1)
        with pytest.raises(PowerCut):
            self.boot()
        return None

    def differences(self, expect: dict[str, Any], result: object) -> Iterator[str]:
        if "boots" in expect:
            assert isinstance(result, tuple)
            ran = self.boots(result)
            if ran != expect["boots"]:
                yield f"boots {ran}, not {expect['boots']} ({', '.join(note for one in result for note in one.notes)})"
        for number, pair in enumerate(self.pairs):
            wanted: dict[str, Any] = {key: expect[key][number] for key in ("swap_type", "primary", "secondary")}
            if number == 0:
                wanted |= {key: expect[key] for key in ("rc", "scratch") if key in expect}
            for text in pair.differences(wanted, result if isinstance(result, int) else None):
                yield f"pair {number}: {text}"

    def boots(self, results: Sequence[BootResult]) -> list[dict[str, Any] | None] | None:
        if not all(result.booted for result in results):
            return None
        return [pair.boots(result) for pair, result in zip(self.pairs, results, strict=True)]


def replay_steps(recorded: Vectors, scenario: dict[str, Any]) -> Iterator[str]:
    bench = PairsBench(recorded, scenario["layout"])
    for number, step in enumerate(scenario["steps"]):
        bench.trace.clear()
        result = bench.step(step)
        expect = step.get("expect")
        if expect is None:
            continue
        where = f"{scenario['name']} [{number}: {step['do']}]"
        for text in bench.differences(expect, result):
            yield f"{where}: {text}"
        if "trace" in expect and bench.trace != expect["trace"].split():
            yield f"{where}: trace\n    {' '.join(bench.trace)}\nnot {expect['trace']}"
        counted = step["do"] == "boot" and "cut" not in step
        if counted and len(bench.trace) != expect.get("flash_ops", 0):
            yield f"{where}: {len(bench.trace)} flash operations, not {expect.get('flash_ops', 0)}"


def replay_cuts(recorded: Vectors, scenario: dict[str, Any]) -> Iterator[str]:
    """Cut the power before each flash operation in turn; boot again, and once more."""
    bench = PairsBench(recorded, scenario["layout"])
    for step in scenario["setup"]:
        bench.step(step)
    states = cut_states(bench.flash, bench.boot, torn=scenario["cut"] == "torn")
    if len(states) < scenario["flash_ops"]:
        yield f"{scenario['name']}: {len(states)} flash operations, not {scenario['flash_ops']}"
    bench.flash.watch = None
    ends: set[tuple[object, ...]] = set()
    for first, last, index in scenario["results"]:
        outcome = scenario["outcomes"][index]
        cuts = range(first, min(last, len(states)) + 1)
        for number in {first, *thinned(cuts, scenario["name"], index), cuts[-1]} if cuts else ():
            bench.flash.restore(states[number - 1])
            results = bench.boot()
            ran = tuple((one.slot, one.hash) for one in results)
            end = index, ran, hashlib.sha256(bench.flash.snapshot()).digest()
            if end in ends:
                continue
            found = list(bench.differences(outcome, results))
            after = bench.boots(bench.boot())
            images = None if after is None else [one and one["image"] for one in after]
            if images != outcome["boots_after"]:
                found.append(f"then boots {after}, not {outcome['boots_after']}")
            if not found:
                ends.add(end)  # as good as this one are all that end in the same way
            for text in found:
                yield f"{scenario['name']} [cut before {number} of {scenario['flash_ops']}]: {text}"


@pytest.mark.parametrize(("name", "layout"), recordings(GOLDEN))
def test_pairs_do_what_bootutil_did(name: str, layout: str) -> None:
    check_recording(vectors(name, GOLDEN), layout, replay_steps, replay_cuts)


def test_the_documentation_counts_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    found = {path.stem: len(vectors(path.stem, GOLDEN).data["scenarios"]) for path in GOLDEN.glob("*.json")}
    assert f"{sum(found.values())} with two and three" in page
    for name, count in found.items():
        assert re.search(rf"\| `{name}` \| [0-9–]+ \| {count} \|", page)


# --- what the server makes of it -------------------------------------------------------------------------------------

QUICK: dict[str, Any] = {"images": 2, "buf_size": 1024, "slot_size": 64 * 1024, "timing": INSTANT}
OLD, NEW = (build_image(version, payload_size=4000, image=1) for version in ("1.0.0", "1.1.0"))


class TwoImages:
    """A connected device with two images, both 1.0.0."""

    def __init__(self, device: SimulatedDevice, client: Client) -> None:
        self.device = device
        self.group = client.group(ImageGroup)

    async def bring(self) -> bytes:
        """Upload the new image of image 1; returns its hash."""
        image = parse_image(NEW)
        await self.group.upload(image, UploadOptions(image=1))
        return image.hash

    async def reset(self) -> None:
        self.device.reset(asyncio.get_running_loop().time())
        await asyncio.sleep(5)

    async def listed(self) -> list[tuple[int, int, str, str]]:
        flags = ("active", "confirmed", "pending", "permanent")
        return [
            (slot.image, slot.slot, slot.version, " ".join(name for name in flags if getattr(slot, name)))
            for slot in (await self.group.state()).slots
        ]


def two_images(**config: Any) -> Callable[[Callable[[TwoImages], Awaitable[None]]], Callable[[], None]]:
    """Run an async test with such a device, in virtual time."""

    def decorate(test: Callable[[TwoImages], Awaitable[None]]) -> Callable[[], None]:
        async def main() -> None:
            device = SimulatedDevice(DeviceConfig(**QUICK, **config))
            device.install(build_image("1.0.0", payload_size=4000))
            device.install(OLD, 2)
            async with Client(SimulatedTransport(device, LinkModel.datagram())) as client:
                await test(TwoImages(device, client))

        def wrapper() -> None:
            run(main())

        wrapper.__name__ = test.__name__
        return wrapper

    return decorate


@two_images()
async def test_an_image_of_its_own_number_is_tried_and_taken_back(desk: TwoImages) -> None:
    digest = await desk.bring()
    assert (await desk.listed())[1:] == [(1, 0, "1.0.0", "active confirmed"), (1, 1, "1.1.0", "")]
    await desk.group.test(digest)
    await desk.reset()
    assert await desk.listed() == [
        (0, 0, "1.0.0", "active confirmed"),
        (1, 0, "1.1.0", "active"),
        (1, 1, "1.0.0", "confirmed"),
    ]
    with pytest.raises(DeviceError) as refused:  # another core's image: not for this application to say
        await desk.group.confirm(digest)
    assert (refused.value.group, refused.value.rc) == (1, 32)
    await desk.group.confirm()  # image 0's
    await desk.reset()
    assert (await desk.listed())[1:] == [(1, 0, "1.0.0", "active confirmed"), (1, 1, "1.1.0", "")]


@two_images(confirms_other_images=True)
async def test_a_build_can_let_the_other_image_be_confirmed(desk: TwoImages) -> None:
    digest = await desk.bring()
    await desk.group.test(digest)
    await desk.reset()
    await desk.group.confirm(digest)
    assert (1, 0, "1.1.0", "active confirmed") in await desk.listed()


@two_images()
async def test_an_image_that_needs_another_waits_for_it(desk: TwoImages) -> None:
    new = build_image("1.1.0", payload_size=4000, needs={1: "1.1.0"})
    desk.device.install(new, 1)
    await desk.group.confirm(parse_image(new).hash)
    await desk.reset()
    assert (await desk.listed())[1] == (0, 1, "1.1.0", "pending permanent")
    await desk.group.confirm(await desk.bring())
    await desk.reset()
    assert [slot[:3] for slot in await desk.listed()] == [
        (0, 0, "1.1.0"),
        (0, 1, "1.0.0"),
        (1, 0, "1.1.0"),
        (1, 1, "1.0.0"),
    ]


@two_images()
async def test_slots_are_told_by_image_and_erased_by_their_count(desk: TwoImages) -> None:
    await desk.bring()
    told = await desk.group.slots()
    assert told is not None
    assert [(slot.image, slot.slot, slot.upload_image_id) for slot in told] == [
        (0, 0, None),
        (0, 1, 0),
        (1, 0, None),
        (1, 1, 1),
    ]
    with pytest.raises(DeviceError) as refused:
        await desk.group.erase(2)
    assert refused.value.rc == 9
    await desk.group.erase(3)
    assert len(await desk.listed()) == 2
    with pytest.raises(DeviceError) as refused:
        await desk.group.upload(parse_image(NEW), UploadOptions(image=2))
    assert refused.value.rc == 9


def test_one_image_without_anything_to_run_stops_all() -> None:
    device = SimulatedDevice(DeviceConfig(**QUICK))
    device.install(build_image("1.0.0", payload_size=4000))
    device.advance(0.0)
    assert device.power is Power.DEAD


@pytest.mark.parametrize("mode", [Mode.SINGLE_SLOT, Mode.FIRMWARE_LOADER])
def test_modes_with_one_image_have_one(mode: Mode) -> None:
    with pytest.raises(UsageError, match="a single image"):
        DeviceConfig(images=2, mode=mode)
