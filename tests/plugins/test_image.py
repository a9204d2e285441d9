"""Group 1 against the simulated device and recorded answers: what a command means, what its answer proves and shows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest

from mcumgrx import contracts
from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import (
    DeviceError,
    FlowError,
    ImageError,
    LinkLost,
    MalformedReply,
    Outcome,
    PlanRefused,
    RequestTimeout,
    TransferStuck,
    UsageError,
)
from mcumgrx.events import Bytes, Event, Note, Stage, StageName
from mcumgrx.mcuboot import FileBytes, Image, load_image, parse_image, trailer_magic
from mcumgrx.messages.message import Reply, SmpCommand, decode_body
from mcumgrx.messages.standard import (
    EraseImage,
    ImageState,
    ReadImageState,
    ReadSlotInfo,
    Slot,
    SlotInfo,
    UploadChunk,
    UploadProgress,
    WriteImageState,
)
from mcumgrx.protocol.codes import ImageErrorCode, SmpError
from mcumgrx.protocol.header import Header, Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.flash import FlashTiming
from mcumgrx.sim.groups import Call, GroupError, Refused
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.images import build_image, build_installer
from mcumgrx.sim.link import Faults, LinkModel
from mcumgrx.sim.loop import run as in_virtual_time
from mcumgrx.testing.golden import Exchange, Raw, read_rows
from mcumgrx_plugins.image import commands
from mcumgrx_plugins.image.group import ImageGroup

from ..support.simulated import RUNNING, Desk
from ..support.spoiled import BODIES, spoil

OLD = parse_image(RUNNING)
NEW = parse_image(build_image("1.1.0", payload_size=6000))


def upload(desk: Desk, image: Any = NEW, **options: Any) -> UploadProgress:
    async def work(client: Client) -> UploadProgress:
        return await client.group(ImageGroup).upload(image, UploadOptions(**options), desk.events.append)

    return desk.client(work)


def state(desk: Desk) -> ImageState:
    async def work(client: Client) -> ImageState:
        return await client.group(ImageGroup).state()

    return desk.client(work)


def mark(desk: Desk, hash: bytes | None, *, confirm: bool = False) -> ImageState:
    async def work(client: Client) -> ImageState:
        group = client.group(ImageGroup)
        if confirm:
            return await group.confirm(hash)
        assert hash is not None
        return await group.test(hash)

    return desk.client(work)


def staged(config: DeviceConfig | None = None, **more: Any) -> Desk:
    """A device with the new image in slot 1."""
    desk = Desk(config, **more)
    desk.device.install(NEW.data, slot=1)
    return desk


def reset(desk: Desk) -> None:
    desk.device.reset(0.0)
    desk.device.settle()


def test_it_fills_the_role_that_flows_ask_for() -> None:
    async def work(client: Client) -> contracts.ImageGroup:
        return client.group(ImageGroup)  # mypy compares the two

    assert Desk().client(work) is not None


# -- state ------------------------------------------------------------------------------------------------------------


def test_the_image_list() -> None:
    found = state(staged())
    assert found.active() == Slot(0, 0, "1.0.0", OLD.hash, bootable=True, confirmed=True, active=True)
    assert found.other() == Slot(0, 1, "1.1.0", NEW.hash, bootable=True)
    assert state(staged(DeviceConfig(frugal_list=True))) == replace(found, split_status=None)
    assert state(staged(DeviceConfig(canonical=True, legacy_rc=True))) == found


# -- upload -----------------------------------------------------------------------------------------------------------


def stored(desk: Desk, image: Any = NEW) -> bool:
    """Whether slot 1 holds the image, byte by byte."""
    slot = desk.device.bootloader.slots[1]
    return bytes(slot.read(desk.device.bootloader.upload_offset, image.size)) == image.data


@pytest.mark.parametrize("model", [LinkModel.ideal(), LinkModel.ble(), LinkModel.uart(), LinkModel.datagram()])
def test_upload(model: LinkModel) -> None:
    desk = Desk(model=model)
    assert upload(desk).offset == NEW.size
    assert stored(desk)
    other = state(desk).other()
    assert other is not None
    assert (other.hash, other.pending) == (NEW.hash, False)
    progress = [event for event in desk.events if isinstance(event, Bytes)]
    assert progress[-1].done == progress[-1].total == NEW.size
    assert [event.done for event in progress] == sorted(event.done for event in progress)


def test_upload_to_a_device_that_does_not_tell_its_buffers() -> None:
    desk = Desk(DeviceConfig(params=False), model=LinkModel.uart())
    upload(desk, window=4)
    assert stored(desk)
    assert desk.events[0] == Note("window 1 instead of 4: the device does not tell its buffers")


@pytest.mark.parametrize(("wanted", "buffers", "told"), [(2, 4, False), (3, 4, False), (4, 4, True), (9, 2, True)])
def test_the_window_leaves_the_device_a_buffer(wanted: int, buffers: int, told: bool) -> None:
    desk = Desk(DeviceConfig(buf_count=buffers), model=LinkModel.uart())
    upload(desk, window=wanted)
    assert stored(desk)
    notes = [event for event in desk.events if isinstance(event, Note)]
    assert bool(notes) is told
    if told:
        assert notes[0].text == f"window {buffers - 1} instead of {wanted}: the device has {buffers} buffers"


def test_a_chunk_size_of_ones_own() -> None:
    desk = Desk()
    upload(desk, chunk_bytes=64)
    assert stored(desk)
    assert desk.device.requests > NEW.size / 64


def test_an_interrupted_upload_is_resumed() -> None:
    desk = Desk(faults=Faults(cut_at_request=10))
    with pytest.raises(LinkLost):
        upload(desk)
    sent = desk.device.requests
    desk.events.clear()
    upload(desk)
    assert stored(desk)
    last = desk.events[-1]
    assert isinstance(last, Bytes)
    assert 0 < last.resumed_from < last.done == NEW.size
    assert desk.device.requests - sent < NEW.size / 300


# -- upload of a file that stays on the disk

LARGE = build_image("1.1.0", payload_size=100_000)
REBUILT = build_image("1.1.1", payload_size=90_000)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough to stay where it is, and to be read while it is uploaded."""
    monkeypatch.setattr("mcumgrx.mcuboot.files.IN_MEMORY_BYTES", 50_000)
    monkeypatch.setattr("mcumgrx.mcuboot.file_bytes._BLOCKS_KEPT", 1)
    path = tmp_path / "zephyr.signed.bin"
    path.write_bytes(LARGE)
    return path


class Meanwhile:
    """Does something once a third of an upload is through."""

    def __init__(self, desk: Desk, image: Image, work: Callable[[], object]) -> None:
        self.done = False

        async def upload(client: Client) -> UploadProgress:
            return await client.group(ImageGroup).upload(image, UploadOptions(), note)

        def note(event: Event) -> None:
            desk.events.append(event)
            if isinstance(event, Bytes) and event.done > image.size / 3 and not self.done:
                assert event.done < image.size / 2
                self.done = True
                work()

        self.run = lambda: desk.client(upload)


@pytest.mark.parametrize("model", [LinkModel.ble(), LinkModel.uart(1_000_000)])
def test_upload_from_the_disk(large: Path, model: LinkModel) -> None:
    desk = Desk(model=model, faults=Faults(drop_requests=range(20, 200, 30)))
    image = load_image(large)
    assert isinstance(image.data, FileBytes)
    assert upload(desk, image).offset == len(LARGE)
    assert stored(desk, image)
    assert desk.device.bootloader.slots[1].image_bytes(desk.device.bootloader.upload_offset) == LARGE


def test_one_file_to_several_devices_at_once(large: Path) -> None:
    image = load_image(large)
    desks = [Desk(model=LinkModel.ble()), Desk(model=LinkModel.uart(1_000_000)), Desk(model=LinkModel.datagram())]

    async def one(desk: Desk) -> None:
        async with Client(desk.transport) as client:
            await client.group(ImageGroup).upload(image)

    async def everywhere() -> None:
        async with asyncio.TaskGroup() as group:
            for desk in desks:
                group.create_task(one(desk))

    in_virtual_time(everywhere())
    assert [stored(desk, image) for desk in desks] == [True] * 3


@pytest.mark.parametrize(
    ("rebuilt", "message"),
    [
        # Truncated first, as by whatever opens a file to write it anew.
        (b"", "has become shorter"),
        (REBUILT[:1000], "has become shorter"),
        (REBUILT, "has changed"),
        (LARGE[:60_000] + REBUILT[60_000:].ljust(len(LARGE) - 60_000, b"\xff"), "has changed"),
    ],
)
def test_a_build_that_writes_the_file_during_the_upload(large: Path, rebuilt: bytes, message: str) -> None:
    desk = Desk(model=LinkModel.uart(1_000_000))
    meanwhile = Meanwhile(desk, load_image(large), lambda: large.write_bytes(rebuilt))
    with pytest.raises(ImageError, match=f"{message} since it was opened") as caught:
        meanwhile.run()
    assert meanwhile.done
    assert caught.value.path == str(large)
    assert caught.value.hint is not None
    assert "run the same command again" in caught.value.hint
    # Nothing that can be taken for an image is on the device, and the next upload is one of the new file.
    slots = desk.device.bootloader.slots
    assert slots[1].image_bytes(desk.device.bootloader.upload_offset) is None
    assert [slot.version for slot in state(desk).slots if slot.active] == ["1.0.0"]
    large.write_bytes(REBUILT)
    desk.events.clear()
    image = load_image(large)
    upload(desk, image)
    assert stored(desk, image)
    assert [event.resumed_from for event in desk.events if isinstance(event, Bytes)][-1] == 0


def test_a_build_that_comes_to_the_same_file_is_no_reason_to_begin_anew(large: Path) -> None:
    desk = Desk(model=LinkModel.uart(1_000_000))
    with pytest.raises(ImageError, match="has become shorter"):
        Meanwhile(desk, load_image(large), lambda: large.write_bytes(b"")).run()
    large.write_bytes(LARGE)
    desk.events.clear()
    image = load_image(large)
    upload(desk, image)
    assert stored(desk, image)
    last = desk.events[-1]
    assert isinstance(last, Bytes)
    assert last.resumed_from > len(LARGE) / 3


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be replaced")
def test_a_build_that_puts_another_file_in_place_disturbs_no_upload(large: Path) -> None:
    desk = Desk(model=LinkModel.uart(1_000_000))

    def replace() -> None:
        other = large.with_suffix(".new")
        other.write_bytes(REBUILT)
        other.replace(large)

    meanwhile = Meanwhile(desk, load_image(large), replace)
    meanwhile.run()
    assert meanwhile.done
    assert stored(desk, parse_image(LARGE))


# -- upload: what gets lost


def last_reply(desk: Desk) -> int:
    """The number of the answer to an upload's last chunk: that of the last answer of one without faults."""
    upload(desk)
    return desk.faults.replies


def test_a_lost_answer_to_the_last_chunk_is_settled_by_the_image_list() -> None:
    desk = Desk(faults=Faults(drop_replies=last_reply(Desk())))
    assert upload(desk).offset == NEW.size
    assert stored(desk)
    # The chunk was not sent again: after the last byte that would have begun a new upload.
    assert desk.device.image.session is None


def test_the_same_image_running_is_no_proof_that_the_last_chunk_arrived() -> None:
    desk = Desk()
    upload(desk, OLD)
    number = desk.faults.requests
    desk = Desk(faults=Faults(drop_requests=number))
    upload(desk, OLD)
    assert stored(desk, OLD)
    assert [slot.hash for slot in state(desk).slots] == [OLD.hash, OLD.hash]


def test_padding_belongs_to_the_image() -> None:
    config = DeviceConfig(slot_size=16 * 1024)
    padded = parse_image(NEW.data.ljust(16 * 1024 - 16, b"\xff") + trailer_magic(8))
    assert padded.padded
    reference = Desk(config)
    upload(reference, padded)
    desk = Desk(config, faults=Faults(drop_requests=reference.faults.requests))
    upload(desk, padded)
    assert stored(desk, padded)
    other = state(desk).other()
    assert other is not None
    assert other.pending


def test_the_devices_own_check() -> None:
    config = DeviceConfig(image_check=True)
    assert upload(Desk(config)).match is True
    assert upload(Desk()).match is None


def test_only_upgrades() -> None:
    desk = Desk()
    with pytest.raises(DeviceError) as raised:
        upload(desk, OLD, upgrade_only=True)
    assert raised.value.rc == ImageErrorCode.CURRENT_VERSION_IS_NEWER
    upload(desk, NEW, upgrade_only=True)


def test_no_free_slot_while_the_running_image_is_unconfirmed() -> None:
    desk = staged()
    mark(desk, NEW.hash)
    reset(desk)
    with pytest.raises(DeviceError) as raised:
        upload(desk, parse_image(build_image("1.2.0", payload_size=2000)))
    assert raised.value.rc == ImageErrorCode.NO_FREE_SLOT
    assert "on trial" in str(raised.value.hint)


def test_an_image_larger_than_the_slot() -> None:
    with pytest.raises(DeviceError, match="does not fit the slot") as raised:
        upload(Desk(DeviceConfig(slot_size=16 * 1024)), parse_image(build_image("2.0.0", payload_size=20_000)))
    assert "image slots" in str(raised.value.hint)


def test_an_erase_that_takes_longer_than_allowed() -> None:
    desk = staged(DeviceConfig(timing=FlashTiming(erase_s_per_sector=10.0)))
    with pytest.raises(RequestTimeout, match="stuck at 0 %") as raised:
        upload(desk, erase_timeout_s=6.0)
    assert "--erase-timeout" in str(raised.value.hint)
    upload(staged(desk.device.config), erase_timeout_s=60.0)


def test_a_device_that_takes_nothing() -> None:
    class Stubborn(ImageServer):
        def upload(self, call: Call) -> dict[str, Any]:
            return {"off": 0}

    desk = Desk()
    desk.device.add_group(Stubborn(desk.device))
    with pytest.raises(TransferStuck, match="stuck at 0 %"):
        upload(desk)


# -- test and confirm -------------------------------------------------------------------------------------------------


def test_test_and_confirm() -> None:
    desk = staged()
    other = mark(desk, NEW.hash).other()
    assert other is not None
    assert (other.pending, other.permanent) == (True, False)
    mark(desk, NEW.hash)  # twice does the same
    reset(desk)
    running = state(desk).active()
    assert running is not None
    assert (running.hash, running.confirmed) == (NEW.hash, False)
    running = mark(desk, None, confirm=True).active()
    assert running is not None
    assert running.confirmed
    reset(desk)
    running = state(desk).active()
    assert running is not None
    assert running.hash == NEW.hash


def test_confirm_before_it_has_run() -> None:
    other = mark(staged(), NEW.hash, confirm=True).other()
    assert other is not None
    assert other.pending
    assert other.permanent


def test_confirm_the_way_back_while_testing_is_taken_as_the_device_means_it() -> None:
    desk = staged()
    mark(desk, NEW.hash)
    reset(desk)
    mark(desk, OLD.hash, confirm=True)  # it is confirmed already


def test_the_running_image_by_its_hash() -> None:
    running = mark(Desk(), OLD.hash, confirm=True).active()
    assert running is not None
    assert running.confirmed


def test_a_hash_that_no_slot_has() -> None:
    with pytest.raises(DeviceError) as raised:
        mark(Desk(), NEW.hash)
    assert raised.value.rc == ImageErrorCode.HASH_NOT_FOUND
    assert "image list" in str(raised.value.hint)


def test_a_device_without_test_and_confirm() -> None:
    with pytest.raises(DeviceError) as raised:
        mark(Desk(DeviceConfig(mode=Mode.DIRECT_XIP)), OLD.hash, confirm=True)
    assert (raised.value.group, raised.value.rc) == (None, 8)


class YesMan(ImageServer):
    """Says yes to a mark, with this image list, and does nothing."""

    images: tuple[dict[str, Any], ...] = ()

    def set_state(self, call: Call) -> dict[str, Any]:
        return {"images": list(self.images)}

    def state(self, call: Call) -> dict[str, Any]:
        return {"images": list(self.images)}


def yes_man(*images: dict[str, Any]) -> Desk:
    desk = staged()
    server = YesMan(desk.device)
    server.images = images
    desk.device.add_group(server)
    return desk


RUNS = {"slot": 0, "version": "1.0.0", "hash": OLD.hash, "active": True, "confirmed": True}
WAITS = {"slot": 1, "version": "1.1.0", "hash": NEW.hash}


@pytest.mark.parametrize(("images", "slot"), [([RUNS, WAITS], 1), ([RUNS], None), ([], None)])
def test_a_mark_that_does_not_show_is_a_rejection(images: list[dict[str, Any]], slot: int | None) -> None:
    with pytest.raises(FlowError, match="has not marked") as raised:
        mark(yes_man(*images), NEW.hash)
    error = raised.value
    assert (error.stage, error.outcome, error.slot) == (StageName.MARK, Outcome.REJECTED, slot)
    assert "older versions" in str(error.hint)


def test_a_slot_of_another_image_is_named_by_its_number_over_all_images() -> None:
    with pytest.raises(FlowError) as raised:
        mark(yes_man(RUNS, {**WAITS, "image": 1}), NEW.hash)
    assert raised.value.slot == 3


@pytest.mark.parametrize(
    ("hash", "images", "text"),
    [
        (None, [{**RUNS, "confirmed": False}], "not made the image permanent"),
        (OLD.hash, [{**RUNS, "confirmed": False}], "not made the image permanent"),
        (NEW.hash, [RUNS, WAITS], "not made the image permanent"),
        (NEW.hash, [RUNS], "not made the image permanent"),
        (NEW.hash, [RUNS, {**WAITS, "pending": True}], "still marked for one boot only"),
    ],
)
def test_a_confirmation_that_does_not_show(hash: bytes | None, images: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(FlowError, match=text) as raised:
        mark(yes_man(*images), hash, confirm=True)
    assert (raised.value.stage, raised.value.outcome) == (StageName.CONFIRM, Outcome.NOT_CONFIRMED)
    assert raised.value.hint


@pytest.mark.parametrize("images", [[RUNS], [{**RUNS, "image": 1}], []])
def test_a_confirmation_that_shows_or_cannot(images: list[dict[str, Any]]) -> None:
    mark(yes_man(*images), None, confirm=True)


def is_mark(number: int, message: bytes) -> bool:
    return (message[0] & 7, message[5], message[7]) == (2, 1, 0)


SILENT: dict[str, Callable[[bytes], bytes | None]] = {**BODIES, "silent": lambda body: None}


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("answer", SILENT)
def test_a_mark_whose_answer_says_nothing_shows_in_the_list(answer: str, confirm: bool) -> None:
    desk = staged()
    spoil(desk.device, is_mark, SILENT[answer])
    other = mark(desk, NEW.hash, confirm=confirm).other()
    assert other is not None
    assert (other.pending, other.permanent) == (True, confirm)


@pytest.mark.parametrize("answer", SILENT)
def test_a_confirmation_whose_answer_says_nothing_shows_in_the_list(answer: str) -> None:
    desk = staged()
    spoil(desk.device, is_mark, SILENT[answer])
    active = mark(desk, None, confirm=True).active()
    assert active is not None
    assert active.confirmed


@pytest.mark.parametrize("answer", set(SILENT) - {"an empty map", "no body"})
def test_a_mark_that_was_not_taken_and_not_answered_is_an_error(answer: str) -> None:
    desk = yes_man(RUNS, WAITS)
    spoil(desk.device, is_mark, SILENT[answer])
    with pytest.raises((MalformedReply, RequestTimeout, DeviceError)) as raised:
        mark(desk, NEW.hash)
    assert "does not show the mark" in str(raised.value.hint)


@pytest.mark.parametrize("answer", SILENT)
def test_where_no_read_tells_of_a_mark_that_is_said(answer: str) -> None:
    desk = staged()
    spoil(desk.device, lambda number, message: message[5] == 1, SILENT["silent" if answer == "silent" else "noise"])
    with pytest.raises((MalformedReply, RequestTimeout)) as raised:
        mark(desk, NEW.hash)
    assert "the mark may be set all the same" in str(raised.value.hint)


def test_another_image_that_is_confirmed_does_not_stand_for_the_one_that_runs() -> None:
    with pytest.raises(FlowError, match="has not made the image permanent"):
        mark(yes_man({**RUNS, "confirmed": False}, {**RUNS, "image": 1}), None, confirm=True)


# -- erase, slots -----------------------------------------------------------------------------------------------------


def erase(desk: Desk, slot: int | None = None, **more: Any) -> bool | None:
    async def work(client: Client) -> bool | None:
        return await client.group(ImageGroup).erase(slot, **more)

    return desk.client(work)


@pytest.mark.parametrize("slot", [None, 1])
def test_erase(slot: int | None) -> None:
    desk = staged()
    assert erase(desk, slot) is True
    assert state(desk).other() is None
    assert erase(desk, slot) is None  # nothing was listed there, so nothing can be seen


class Unerasable(ImageServer):
    """The flash driver fails, and the answer is an empty map all the same (before Zephyr 3.3)."""

    def erase(self, call: Call) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("slot", [None, 1])
def test_an_erase_that_changes_nothing_has_failed_whatever_the_answer(slot: int | None) -> None:
    desk = staged()
    desk.device.add_group(Unerasable(desk.device))
    assert erase(desk, slot) is False


def test_an_erase_whose_answer_is_lost_shows_in_the_list() -> None:
    desk = staged(faults=Faults(drop_replies=lambda number, message: message[7] == 5))
    assert erase(desk, 1, timeout_s=60.0) is True


def test_erase_of_a_slot_that_is_in_use_or_absent() -> None:
    with pytest.raises(DeviceError) as raised:
        erase(Desk(), 0)
    assert raised.value.rc == ImageErrorCode.NO_FREE_SLOT
    with pytest.raises(DeviceError) as raised:
        erase(Desk(), 7)
    assert raised.value.rc == ImageErrorCode.FLASH_OPEN_FAILED
    with pytest.raises(UsageError):
        erase(Desk(), -1)


def test_an_erase_is_sent_once_and_its_time_out_says_what_to_do() -> None:
    desk = staged()
    with pytest.raises(RequestTimeout) as raised:
        erase(desk, timeout_s=1.0)
    assert "--erase-timeout" in str(raised.value.hint)
    assert desk.faults.requests == 3  # and before and after it the image list


class Small(ImageServer):
    """A server without erase and slot information, as MCUboot's recovery."""

    refusal: Exception = Refused(8)

    def erase(self, call: Call) -> dict[str, Any]:
        raise self.refusal

    def slot_info(self, call: Call) -> dict[str, Any]:
        raise self.refusal


def small(refusal: Exception) -> Desk:
    desk = Desk()
    server = Small(desk.device)
    server.refusal = refusal
    desk.device.add_group(server)
    return desk


def test_a_device_without_erase() -> None:
    with pytest.raises(DeviceError) as raised:
        erase(small(Refused(8)))
    assert "erases the slot by itself" in str(raised.value.hint)


def slots(desk: Desk) -> tuple[SlotInfo, ...] | None:
    async def work(client: Client) -> tuple[SlotInfo, ...] | None:
        return await client.group(ImageGroup).slots()

    return desk.client(work)


def test_slots() -> None:
    size = 512 * 1024
    assert slots(Desk()) == (SlotInfo(0, 0, size), SlotInfo(0, 1, size, upload_image_id=0))
    assert slots(small(Refused(8))) is None
    assert slots(small(Refused(5))) is None
    for refusal in (Refused(10), GroupError(1), Refused(2)):
        with pytest.raises(DeviceError):
            slots(small(refusal))


# -- commands: list ---------------------------------------------------------------------------------------------------


def test_the_list_command() -> None:
    desk = staged()
    mark(desk, NEW.hash)
    assert desk.command(commands.list_images).lines() == [
        "slot 0  1.0.0  active, confirmed",
        f"        hash {OLD.hash.hex()}",
        "slot 1  1.1.0  pending",
        f"        hash {NEW.hash.hex()}",
    ]


def test_lists_that_are_out_of_the_ordinary() -> None:
    assert commands.ImageList(()).lines() == ["the device lists no image"]
    several = (
        Slot(0, 0, "1.0.0", b"\x01" * 32, active=True, bootable=False),
        Slot(1, 1, "", None, extra={"compressed": True}),
    )
    assert commands.ImageList(several).lines() == [
        "image 0",
        "  slot 0  1.0.0  active, not bootable",
        f"          hash {'01' * 32}",
        "image 1",
        "  slot 1  no version",
        "          hash not told",
        "          compressed yes",
    ]


def test_the_list_of_a_device_with_two_images() -> None:
    """In whatever order the device has them, and with all that it says beside."""
    network = {"slot": 0, "version": "7.0.0", "hash": bytes(32), "active": True, "confirmed": True, "bootable": True}
    found = [
        {**RUNS, "image": 0, "bootable": True},
        {**network, "image": 1, "core": {"name": "net", "key": b"\xab"}},
        {**WAITS, "image": 0, "pending": True, "permanent": True, "bootable": True, "tags": ["a", 2]},
    ]
    result = images(*found).command(commands.list_images)
    assert result.lines() == [
        "image 0",
        "  slot 0  1.0.0  active, confirmed",
        f"          hash {OLD.hash.hex()}",
        "  slot 1  1.1.0  pending, permanent",
        f"          hash {NEW.hash.hex()}",
        "          tags a, 2",
        "image 1",
        "  slot 0  7.0.0  active, confirmed",
        f"          hash {bytes(32).hex()}",
        "          core name net, key ab",
    ]
    assert [slot.image for slot in result.slots] == [0, 1, 0]
    # One image alone, but not the first.
    lines = images({**network, "image": 1}).command(commands.list_images).lines()
    assert lines[:2] == ["image 1", "  slot 0  7.0.0  active, confirmed"]


def test_what_the_device_says_beside_the_list() -> None:
    class Talking(ImageServer):
        def state(self, call: Call) -> dict[str, Any]:
            return {"images": [], "splitStatus": 1, "lock": b"\x01", "next": {}}

    desk = Desk()
    desk.device.add_group(Talking(desk.device))
    result = desk.command(commands.list_images)
    assert (result.split_status, result.extra) == (1, {"lock": b"\x01", "next": {}})
    assert result.lines() == [
        "the device lists no image",
        "split status 1 (loader and application do not match)",
        "lock 01",
        "next none",
    ]
    assert commands.ImageList((), 9).lines()[-1] == "split status 9 (unknown)"
    assert commands.ImageList((), 0, {"a": []}).lines()[1:] == ["a none"]


# -- commands: upload -------------------------------------------------------------------------------------------------

DEFAULTS: dict[str, Any] = {"image": 0, "erase_timeout": 60.0, "chunk": None, "window": 1, "upgrade_only": False}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zephyr.signed.bin"
    path.write_bytes(NEW.data)
    return path


def test_the_upload_command(file: Path) -> None:
    desk = Desk(model=LinkModel.uart())
    result = desk.command(commands.upload, file=file, **DEFAULTS)
    assert (result.version, result.size, result.sent, result.hash) == ("1.1.0", NEW.size, NEW.size, NEW.hash.hex())
    assert result.elapsed_s > 0.5
    assert result.lines()[0].startswith(f"uploaded 1.1.0: {NEW.size} bytes in ")
    assert "KB/s" in result.lines()[0]
    stages = [event for event in desk.events if isinstance(event, Stage)]
    assert [(event.name, event.finished) for event in stages] == [(StageName.UPLOAD, False), (StageName.UPLOAD, True)]
    assert stored(desk)


def test_the_upload_command_resumes(file: Path) -> None:
    desk = Desk(faults=Faults(cut_at_request=10))
    with pytest.raises(LinkLost):
        desk.command(commands.upload, file=file, **DEFAULTS)
    result = desk.command(commands.upload, file=file, **DEFAULTS)
    assert result.sent < result.size
    assert f"(the other {result.size - result.sent} were there already)" in result.lines()[0]


def test_the_upload_command_tells_of_the_devices_own_check(file: Path) -> None:
    good = Desk(DeviceConfig(image_check=True)).command(commands.upload, file=file, **DEFAULTS)
    assert "the device's own check: good" in good.lines()


def listed_as(desk: Desk, *images: dict[str, Any]) -> Desk:
    class Lister(ImageServer):
        def state(self, call: Call) -> dict[str, Any]:
            return {"images": list(images)}

    desk.device.add_group(Lister(desk.device))
    return desk


TO_MARK = "it will not be booted before it is marked: 'mcumgrx image test"


@pytest.mark.parametrize(
    ("images", "number", "slot", "text"),
    [
        ([RUNS, WAITS], 0, 1, f"it is in slot 1; {TO_MARK}'"),
        ([RUNS, {**WAITS, "pending": True}], 0, 1, "it is in slot 1; the next reset boots it"),
        (
            [RUNS, {**WAITS, "pending": True, "permanent": True}],
            0,
            1,
            "it is in slot 1; the next reset boots it, to stay",
        ),
        ([{**WAITS, "slot": 0}], 0, 0, "it is in slot 0; nothing runs: a reset starts what the bootloader chooses"),
        ([{**RUNS, "hash": NEW.hash}], 0, 0, "it is in slot 0, which runs"),
        ([RUNS, {**WAITS, "image": 1}], 1, 1, f"it is in image 1 slot 1; {TO_MARK}'"),
        (
            [RUNS, {**WAITS, "hash": bytes(32)}, {**WAITS, "image": 1}],
            1,
            1,
            f"it is in image 1 slot 1; {TO_MARK} {NEW.hash.hex()[:12]}'",
        ),
        ([RUNS], 1, None, "not checked: the device does not list it, as some do with image 1"),
        ([{"slot": 0, "version": "1.0.0", "active": True}], 0, None, "not checked: the device lists no hashes"),
    ],
)
def test_the_upload_command_tells_what_the_list_shows(
    file: Path, images: list[dict[str, Any]], number: int, slot: int | None, text: str
) -> None:
    result = listed_as(Desk(), *images).command(commands.upload, file=file, **{**DEFAULTS, "image": number})
    assert (result.slot, result.lines()[-1]) == (slot, text)


@pytest.mark.parametrize(
    ("listed", "said", "advice"),
    [
        ({"pending": True}, "marked by its padding: the next reset boots it, unless", "image erase'"),
        ({"pending": True, "permanent": True}, "the next reset boots it, to stay, unless", "image erase'"),
        ({"pending": True, "image": 1}, "it is in image 1 slot 1, and marked", "image erase --slot 3'"),
        ({}, "which its padding does not fill, so that it is not marked", "image test'"),
    ],
)
def test_the_upload_of_a_padded_file_tells_what_its_padding_does(
    tmp_path: Path, listed: dict[str, Any], said: str, advice: str
) -> None:
    file = tmp_path / "padded.bin"
    file.write_bytes(NEW.data.ljust(16 * 1024 - 16, b"\xff") + trailer_magic(8))
    number = listed.get("image", 0)
    desk = listed_as(Desk(), RUNS, {**WAITS, **listed})
    result = desk.command(commands.upload, file=file, **{**DEFAULTS, "image": number})
    assert said in result.lines()[-1]
    assert result.lines()[-1].endswith(advice)
    [warning] = [event for event in desk.events if isinstance(event, Note) and event.warning]
    assert "any reset installs it for a test boot" in warning.text
    assert f"'mcumgrx dfu {file} --image {number} --trim --mode upload-only'" in warning.text


@pytest.mark.parametrize("images", [[RUNS], [RUNS, {**WAITS, "hash": bytes(32)}], []])
def test_an_upload_that_the_device_does_not_list_is_an_error(file: Path, images: list[dict[str, Any]]) -> None:
    with pytest.raises(FlowError, match="does not list it"):
        listed_as(Desk(), *images).command(commands.upload, file=file, **DEFAULTS)


@pytest.mark.parametrize("answer", ["cut", "noise", "no map", "silent"])
def test_an_upload_that_cannot_be_looked_at_is_said_to_be_unchecked(file: Path, answer: str) -> None:
    desk = Desk()
    spoil(desk.device, lambda number, message: (message[0] & 7, message[5], message[7]) == (0, 1, 0), SILENT[answer])
    result = desk.command(commands.upload, file=file, **DEFAULTS)
    assert result.lines()[-1].startswith("not checked whether it is in the device: ")


def test_the_upload_command_looks_at_the_file_before_the_device(tmp_path: Path) -> None:
    desk = Desk()
    with pytest.raises(ImageError, match="no such file"):
        desk.command(commands.upload, file=tmp_path / "none.bin", **DEFAULTS)
    unsigned = tmp_path / "zephyr.elf"
    unsigned.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(ImageError, match="ELF"):
        desk.command(commands.upload, file=unsigned, **DEFAULTS)
    assert desk.faults.requests == 0


@pytest.mark.parametrize(
    "wrong", [{"image": -1}, {"window": 0}, {"chunk": 0}, {"erase_timeout": 0.0}, {"erase_timeout": -1.0}]
)
def test_the_upload_command_refuses_values_that_cannot_be(file: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Desk().command(commands.upload, file=file, **{**DEFAULTS, **wrong})


# -- commands: test, confirm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed", [None, NEW.hash.hex()[:4], NEW.hash.hex()[:9].upper(), NEW.hash.hex(), NEW.hash.hex().upper()]
)
def test_the_test_command_finds_the_image(typed: str | None) -> None:
    desk = staged()
    result = desk.command(commands.test, hash=typed)
    assert result.hash == NEW.hash.hex()
    assert result.lines()[0] == "marked to be booted once, at the next reset"
    assert any(slot.pending for slot in state(desk).slots)


@pytest.mark.parametrize("typed", ["", "abc", "xyzw", "0x4f1c", "-abcd", "a" * 129, "ab cd"])
def test_what_is_no_hash_is_refused_before_the_device_is_asked(typed: str) -> None:
    desk = staged()
    for function in (commands.test, commands.confirm):
        with pytest.raises(UsageError, match="is not a hash") as raised:
            desk.command(function, hash=typed)
        assert "4 or more" in str(raised.value.hint)
    assert desk.faults.requests == 0


def absent(*taken: bytes) -> str:
    """Four digits that none of these hashes begins with."""
    return next(f"{n:04x}" for n in range(10_000) if not any(hash.hex().startswith(f"{n:04x}") for hash in taken))


def test_a_prefix_that_fits_nothing_tells_what_there_is() -> None:
    with pytest.raises(PlanRefused, match="no image in the device") as raised:
        staged().command(commands.test, hash=absent(OLD.hash, NEW.hash))
    assert f"{NEW.hash.hex()[:12]}… (1.1.0, slot 1)" in str(raised.value.hint)


def test_a_prefix_of_several_is_not_guessed() -> None:
    one, two = b"\xab\xcd" + bytes(30), b"\xab\xcd" + bytes(29) + b"\x01"

    class Twins(ImageServer):
        def state(self, call: Call) -> dict[str, Any]:
            return {"images": [{**RUNS, "hash": one}, {**WAITS, "hash": two}]}

    desk = staged()
    desk.device.add_group(Twins(desk.device))
    with pytest.raises(UsageError, match="abcd is the beginning of 2 hashes"):
        desk.command(commands.test, hash="abcd")


def test_a_whole_hash_is_the_devices_to_judge() -> None:
    with pytest.raises(DeviceError) as raised:
        Desk().command(commands.test, hash=NEW.hash.hex())
    assert raised.value.rc == ImageErrorCode.HASH_NOT_FOUND


def test_nothing_to_test() -> None:
    desk = Desk()
    with pytest.raises(PlanRefused, match="no image in slot 1") as raised:
        desk.command(commands.test, hash=None)
    assert "image upload" in str(raised.value.hint)


def images(*found: dict[str, Any]) -> Desk:
    """A device with this image list."""
    return images_are(list(found))


def images_are(found: object) -> Desk:
    """A device that gives this as its image list."""

    class Listing(ImageServer):
        def state(self, call: Call) -> dict[str, Any]:
            return {"images": found}

    desk = staged()
    desk.device.add_group(Listing(desk.device))
    return desk


def test_several_to_test() -> None:
    other = {**WAITS, "image": 1, "hash": bytes(32), "version": "7.0.0"}
    with pytest.raises(UsageError, match="2 images do not run") as raised:
        images(RUNS, WAITS, other).command(commands.test, hash=None)
    assert "(7.0.0, image 1 slot 1)" in str(raised.value.hint)


def test_an_image_without_a_hash_cannot_be_named() -> None:
    with pytest.raises(PlanRefused, match="does not tell the hash"):
        images(RUNS, {"slot": 1, "version": "1.1.0"}).command(commands.test, hash=None)
    with pytest.raises(PlanRefused, match="no image in slot 1"):
        images().command(commands.test, hash=None)
    with pytest.raises(PlanRefused, match="no image in slot 0"):
        images({**RUNS, "slot": 1}).command(commands.test, hash=None)  # direct XIP: the other slot may be the first


def test_the_confirm_command() -> None:
    desk = staged()
    result = desk.command(commands.confirm, hash=None)
    assert result.hash is None
    assert result.lines()[0] == "the running image is confirmed"
    assert desk.command(commands.confirm, hash=OLD.hash.hex()[:8]).lines()[0] == "the running image is confirmed"
    result = desk.command(commands.confirm, hash=NEW.hash.hex()[:8])
    assert result.lines()[0] == "the image will be booted for good at the next reset"
    assert "slot 1  1.1.0  pending, permanent" in result.lines()


# -- commands: erase, slots -------------------------------------------------------------------------------------------


def test_the_erase_command() -> None:
    desk = staged()
    result = desk.command(commands.erase, slot=None, erase_timeout=60.0)
    assert 10 < result.elapsed_s < 12
    assert result.lines()[0].startswith("erased the slot that is not running in 1")
    assert [event.finished for event in desk.events if isinstance(event, Stage)] == [False, True]
    assert state(desk).other() is None
    again = desk.command(commands.erase, slot=1, erase_timeout=60.0)
    assert again.gone is None
    assert again.lines()[0].startswith("erased slot 1 in ")
    assert "says the device" in again.lines()[0]
    unchanged = staged()
    unchanged.device.add_group(Unerasable(unchanged.device))
    with pytest.raises(FlowError, match="not erased: the device said yes"):
        unchanged.command(commands.erase, slot=None, erase_timeout=60.0)
    for wrong in ({"slot": -1, "erase_timeout": 60.0}, {"slot": 1, "erase_timeout": 0.0}):
        with pytest.raises(UsageError):
            desk.command(commands.erase, **wrong)


def test_the_slots_command() -> None:
    assert Desk().command(commands.slots).lines() == [
        "slot  size                     upload with",
        "0     524,288 bytes (512 KiB)",
        "1     524,288 bytes (512 KiB)  --image 0",
    ]
    with pytest.raises(DeviceError, match="does not tell its slots") as raised:
        small(Refused(8)).command(commands.slots)
    assert "CONFIG_MCUMGR_GRP_IMG_SLOT_INFO" in str(raised.value.hint)


def test_slot_lists_that_are_out_of_the_ordinary() -> None:
    assert commands.SlotList(()).lines() == ["the device lists no slot"]
    several = (
        SlotInfo(0, 0, 1000, max_image_size=900),
        SlotInfo(1, 1, None, 10, 3, extra={"colour": "blue"}),
    )
    assert commands.SlotList(several).lines() == [
        "slot            size                largest image  upload with  erase with",
        "image 0 slot 0  1000 bytes          900 bytes                   --slot 0",
        "image 1 slot 1  unknown (error 10)                 --image 3    --slot 3",
        "image 1 slot 1: colour blue",
    ]


def test_slots_of_two_images_with_unknown_keys() -> None:
    class Two(ImageServer):
        def slot_info(self, call: Call) -> dict[str, Any]:
            return {
                "images": [
                    {"image": 0, "slots": [{"slot": 0, "size": 4096}, {"slot": 1, "size": 4096}]},
                    {"image": 1, "core": "net", "slots": [{"slot": 0, "rc": -5, "xip": True}], "max_image_size": 3000},
                    {"image": 2},
                ],
            }

    desk = Desk()
    desk.device.add_group(Two(desk.device))
    assert slots(desk) == (
        SlotInfo(0, 0, 4096),
        SlotInfo(0, 1, 4096),
        SlotInfo(1, 0, None, -5, max_image_size=3000, extra={"core": "net", "xip": True}),
    )
    assert desk.command(commands.slots).lines() == [
        "slot            size                 largest image        erase with",
        "image 0 slot 0  4,096 bytes (4 KiB)                       --slot 0",
        "image 0 slot 1  4,096 bytes (4 KiB)                       --slot 1",
        "image 1 slot 0  unknown (error -5)   3,000 bytes (3 KiB)  --slot 2",
        "image 1 slot 0: core net",
        "image 1 slot 0: xip yes",
    ]


# -- commands: inspect ------------------------------------------------------------------------------------------------


def test_the_inspect_command_needs_no_device(file: Path) -> None:
    spec = commands.inspect.__mcumgrx_command__  # type: ignore[attr-defined]
    assert not spec.needs_device
    desk = Desk()
    (facts,) = desk.command(commands.inspect, files=(file,)).files
    assert desk.faults.requests == 0
    assert (facts.version, facts.size, facts.hash) == ("1.1.0", NEW.size, NEW.hash.hex())
    assert facts.file_sha256 == NEW.file_sha256.hex() != facts.hash
    assert (facts.signature, facts.padded) == ("ED25519", False)
    assert [(tlv.name, tlv.size, tlv.protected) for tlv in facts.tlvs] == [
        ("SHA256", 32, False),
        ("KEYHASH", 32, False),
        ("ED25519", 64, False),
    ]
    assert facts.warnings == ()
    file.write_bytes(build_image("1.1.0", payload_size=4000, signed=False))
    (facts,) = desk.command(commands.inspect, files=(file,)).files
    assert any("no signature" in warning for warning in facts.warnings)
    lines = facts.lines()
    assert lines[0] == str(file)
    assert any(line.split() == ["version", "1.1.0"] for line in lines)
    assert any(line.startswith("  warning: ") for line in lines)


def test_the_inspect_command_names_an_installer(tmp_path: Path) -> None:
    loader = build_image("0.2.0", payload_size=500)
    for name, marked in (("installer.bin", True), ("old.bin", False)):
        (tmp_path / name).write_bytes(build_installer("2.0.0", loader, marked=marked))
    files = (tmp_path / "installer.bin", tmp_path / "old.bin")
    marked, old = Desk().command(commands.inspect, files=files).files
    assert (marked.role, old.role) == ("installer of SoftDevice and firmware loader", "application")
    assert "  for           installer of SoftDevice and firmware loader" in marked.lines()
    assert ("0xa0", 1, True, "01") in [(tlv.name, tlv.size, tlv.protected, tlv.value) for tlv in marked.tlvs]


def test_the_inspect_command_with_several_files(file: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.bin"
    old.write_bytes(RUNNING)
    result = Desk().command(commands.inspect, files=(file, old))
    assert [facts.version for facts in result.files] == ["1.1.0", "1.0.0"]
    assert ("" in result.lines(), result.exit_code) == (True, 0)
    missing = tmp_path / "none.bin"
    result = Desk().command(commands.inspect, files=(missing, file))
    assert ([facts.version for facts in result.files], result.exit_code) == (["1.1.0"], 6)
    assert f"  error: no such file: {missing}" in result.lines()
    with pytest.raises(ImageError, match="no such file"):
        Desk().command(commands.inspect, files=(missing,))


def test_the_inspect_command_and_an_image_of_imgtool(file: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("imgtool") is None:
        pytest.skip("imgtool is not installed")
    key, plain, signed = tmp_path / "key.pem", tmp_path / "plain.bin", tmp_path / "signed.bin"
    plain.write_bytes(bytes(range(256)) * 8)
    imgtool = [sys.executable, "-m", "imgtool.main"]
    subprocess.run([*imgtool, "keygen", "-t", "ecdsa-p256", "-k", str(key)], check=True, capture_output=True)
    sign = [*imgtool, "sign", "--key", str(key), "--align", "4", "--header-size", "0x200", "--pad-header"]
    sign += ["--slot-size", "0x8000", "--version", "2.3.4+5", "--security-counter", "7", "--pad"]
    sign += ["--dependencies", "(1, 1.2.3+0)", str(plain), str(signed)]
    subprocess.run(sign, check=True, capture_output=True)
    (facts,) = Desk().command(commands.inspect, files=(signed,)).files
    assert (facts.version, facts.signature, facts.security_counter) == ("2.3.4+5", "ECDSA_SIG", 7)
    assert facts.dependencies == ("image 1 at least 1.2.3",)
    assert (facts.padded, facts.pad_confirmed) == (True, False)
    assert facts.key_hash is not None
    shown = "\n".join(facts.lines())
    for text in ("ECDSA_SIG", "KEYHASH", "protected", "marked for a test boot", "image 1 at least 1.2.3"):
        assert text in shown


def test_an_image_list_that_makes_no_sense() -> None:
    assert state(images({**RUNS, "hash": "text"})).slots[0].hash is None  # which costs no other field
    with pytest.raises(MalformedReply, match="the device's answer to the image list makes no sense: 'images' in it is"):
        state(images_are("none"))


# -- devices that lack a command --------------------------------------------------------------------------------------


class Bare(ImageServer):
    """A server that knows no command of the group."""

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.handlers.clear()


@pytest.mark.parametrize(
    ("name", "parameters", "hint"),
    [
        ("list_images", {}, "CONFIG_MCUMGR_GRP_IMG;"),
        ("test", {"hash": NEW.hash.hex()}, "CONFIG_BOOT_SERIAL_IMG_GRP_IMAGE_STATE"),
        ("confirm", {"hash": None}, "CONFIG_BOOT_SERIAL_IMG_GRP_IMAGE_STATE"),
        ("erase", {"slot": 1, "erase_timeout": 60.0}, "erases the slot by itself"),
        ("slots", {}, "CONFIG_MCUMGR_GRP_IMG_SLOT_INFO"),
        ("upload", DEFAULTS, "CONFIG_MCUMGR_GRP_IMG;"),
    ],
)
def test_a_device_without_the_command(name: str, parameters: dict[str, Any], hint: str, file: Path) -> None:
    desk = Desk()
    desk.device.add_group(Bare(desk.device))
    more: dict[str, Any] = {"file": file} if name == "upload" else {}
    with pytest.raises(DeviceError) as raised:
        desk.command(getattr(commands, name), **parameters, **more)
    assert (raised.value.group, raised.value.rc) == (None, SmpError.NOT_SUPPORTED)
    assert hint in str(raised.value.hint)


# -- error codes ------------------------------------------------------------------------------------------------------

# Zephyr `img_mgmt.h`; what a server sends in its place to clients of SMP version 1.
CODES = {
    1: ("UNKNOWN", 1),
    2: ("FLASH_CONFIG_QUERY_FAIL", 1),
    3: ("NO_IMAGE", 5),
    4: ("NO_TLVS", 5),
    5: ("INVALID_TLV", 1),
    6: ("TLV_MULTIPLE_HASHES_FOUND", 1),
    7: ("TLV_INVALID_SIZE", 1),
    8: ("HASH_NOT_FOUND", 1),
    9: ("NO_FREE_SLOT", 6),
    10: ("FLASH_OPEN_FAILED", 1),
    11: ("FLASH_READ_FAILED", 1),
    12: ("FLASH_WRITE_FAILED", 1),
    13: ("FLASH_ERASE_FAILED", 1),
    14: ("INVALID_SLOT", 3),
    15: ("NO_FREE_MEMORY", 2),
    16: ("FLASH_CONTEXT_ALREADY_SET", 1),
    17: ("FLASH_CONTEXT_NOT_SET", 1),
    18: ("FLASH_AREA_DEVICE_NULL", 1),
    19: ("INVALID_PAGE_OFFSET", 3),
    20: ("INVALID_OFFSET", 3),
    21: ("INVALID_LENGTH", 3),
    22: ("INVALID_IMAGE_HEADER", 3),
    23: ("INVALID_IMAGE_HEADER_MAGIC", 1),
    24: ("INVALID_HASH", 3),
    25: ("INVALID_FLASH_ADDRESS", 3),
    26: ("VERSION_GET_FAILED", 1),
    27: ("CURRENT_VERSION_IS_NEWER", 6),
    28: ("IMAGE_ALREADY_PENDING", 6),
    29: ("INVALID_IMAGE_VECTOR_TABLE", 1),
    30: ("INVALID_IMAGE_TOO_LARGE", 1),
    31: ("INVALID_IMAGE_DATA_OVERRUN", 1),
    32: ("IMAGE_CONFIRMATION_DENIED", 1),
    33: ("IMAGE_SETTING_TEST_TO_ACTIVE_DENIED", 1),
    34: ("ACTIVE_SLOT_NOT_KNOWN", 1),
}


def test_the_error_table() -> None:
    assert {int(code): code.name for code in ImageErrorCode} == {number: name for number, (name, _) in CODES.items()}
    for code in ImageErrorCode:
        assert " " in code.sentence
        assert code.sentence[0].islower() or code.sentence.startswith("MCU")
        assert not code.sentence.endswith(".")
    assert len({code.sentence for code in ImageErrorCode}) == len(CODES)


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("original", [False, True])
def test_every_error_has_its_name(number: int, original: bool) -> None:
    name, legacy = CODES[number]
    desk = Desk(DeviceConfig(original_only=original))
    server = Small(desk.device)
    server.refusal = GroupError(number, rsn="because")
    desk.device.add_group(server)
    with pytest.raises(DeviceError) as raised:
        erase(desk)
    error = raised.value
    if original:
        assert (error.group, error.rc, error.name) == (None, legacy, SmpError(legacy).name)
        assert error.rsn == "because"
    else:
        assert (error.group, error.rc, error.name, error.rsn) == (1, number, name, None)
        assert ImageErrorCode(number).sentence in str(error)


# -- recorded exchanges -----------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

UNTYPED = {"img file (unused id)", "img core list", "img core load"}
"""Recorded requests for commands that only Apache Mynewt has, and we have not."""

FLAGS = ("bootable", "pending", "confirmed", "active", "permanent")


def recorded() -> Iterator[tuple[str, Header, Any, bytes]]:
    """Every answer of group 1 in the recordings: its name, the request's header and body, the whole answer."""
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for row in read_rows(path):
            if isinstance(row, Raw):
                continue
            requests = (row.request,) if isinstance(row, Exchange) else row.requests
            responses = (row.response,) if isinstance(row, Exchange) else row.responses
            asked = {Header.unpack(request).sequence: request for request in requests}
            for response in responses:
                if response is None:
                    continue
                request = asked[Header.unpack(response).sequence]
                if Header.unpack(request).group == 1:
                    body: Any = row.request_body if isinstance(row, Exchange) else decode_body(request[8:])
                    yield f"{path.stem}: {row.name}", Header.unpack(request), body, response


RECORDED = list(recorded())


def typed(header: Header, body: Any) -> SmpCommand[Any] | None:
    """The command that makes such a request, if perhaps a better one; None where there is none."""
    asked: dict[str, Any] = body if isinstance(body, dict) else {}
    if (header.command, header.op) == (0, Op.READ):
        return ReadImageState()
    if (header.command, header.op) == (0, Op.WRITE):
        hash = asked.get("hash")
        return WriteImageState(hash if isinstance(hash, bytes) else None, bool(asked.get("confirm", False)))
    if header.command == 1:
        offset, data = asked.get("off", 0), asked.get("data", b"")
        return UploadChunk(offset, data if isinstance(data, bytes) else b"", asked.get("len"), asked.get("image"))
    if header.command == 5:
        return EraseImage(asked.get("slot"))
    return ReadSlotInfo() if header.command == 6 else None


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row[0])
def test_recorded_answers_become_typed_results(row: tuple[str, Header, Any, bytes]) -> None:
    name, request, asked, response = row
    command = typed(request, asked)
    assert (command is None) == (name.partition(": ")[2] in UNTYPED)
    if command is None:
        return
    header = Header.unpack(response)
    reply = Reply(*header[:3], *header[4:], response[8:])
    said: dict[str, Any] = cbor2.loads(response[8:])
    if "err" in said or said.get("rc", 0) != 0:
        with pytest.raises(DeviceError) as raised:
            command.result(reply)
        error = raised.value
        assert (error.group, error.rc) == (said.get("err", {}).get("group"), said.get("err", said)["rc"])
        assert error.name is not None
        assert error.rsn == said.get("rsn")
        if error.group == 1:
            assert error.name == CODES[error.rc][0]
        return
    result = command.result(reply)
    if isinstance(command, (ReadImageState, WriteImageState)):
        expected = tuple(
            Slot(0, one["slot"], one["version"], one["hash"], **{flag: one.get(flag, False) for flag in FLAGS})
            for one in said["images"]
        )
        assert result == ImageState(expected, said.get("splitStatus"))
        assert len(commands.ImageList.of(result).lines()) == max(1, 2 * len(expected))
    elif isinstance(command, UploadChunk):
        assert result == UploadProgress(said["off"], said.get("match"))
    elif isinstance(command, ReadSlotInfo):
        assert [(slot.image, slot.slot, slot.size, slot.upload_image_id) for slot in result] == [
            (image["image"], slot["slot"], slot["size"], slot.get("upload_image_id"))
            for image in said["images"]
            for slot in image["slots"]
        ]
        assert commands.SlotList(result).lines()
    else:
        assert result is None


def test_the_recordings_have_every_command_of_the_group() -> None:
    kinds = [type(command) for _, header, body, _ in RECORDED if (command := typed(header, body)) is not None]
    assert len(kinds) > 90
    assert set(kinds) == {ReadImageState, WriteImageState, UploadChunk, EraseImage, ReadSlotInfo}


# -- the command line -------------------------------------------------------------------------------------------------

OURS = sorted(name for name in default_registry().commands if name.startswith("image "))


def test_every_command_is_here() -> None:
    names = {name.removeprefix("image ") for name in OURS}
    assert names == {"list", "upload", "test", "confirm", "erase", "slots", "inspect"}


@pytest.mark.parametrize("name", OURS)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"mcumgrx {name}" in capsys.readouterr().out.partition("\nExample")[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "-d", "sim:", "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_results_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "image", "list")
    assert code == 0
    assert set(said["result"]) == {"slots", "split_status", "extra"}
    assert said["result"]["slots"][0]["version"] == "1.0.0"
    _, said = run(capsys, "image", "slots")
    assert said["result"]["slots"][1] == {
        "image": 0, "slot": 1, "size": 524288, "rc": None, "upload_image_id": 0, "max_image_size": None, "extra": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["image", "erase", "--slot", "-1"], 2),
        (["image", "erase", "--slot", "one"], 2),
        (["image", "erase", "--slot", "0"], 5),
        (["image", "erase", "--slot", "2"], 5),
        (["image", "test", "abc"], 2),
        (["image", "test"], 11),
        (["image", "confirm", "--slot", "1"], 2),
        (["image", "upload", "no-such-file.bin"], 6),
    ],
    ids=str,
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = run(capsys, *arguments)
    assert (ended, said["error"]["exit"]) == (code, code)
