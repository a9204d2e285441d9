"""A simulated device with a firmware loader: who answers what, the loader's name, uploads cut off, and installers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from mcumgrx.client import Client
from mcumgrx.errors import DeviceNotFound
from mcumgrx.messages.standard import ReadImageState, Reset
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import Op
from mcumgrx.sim.boards import on_board
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image, build_installer
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loader import NAME_KEY
from mcumgrx.sim.loop import run

OLD = build_image("1.0.0", payload_size=3_000)
NEW = build_image("1.1.0", payload_size=5_000)
LOADER = build_image("0.1.0", payload_size=2_000)
NEXT_LOADER = build_image("0.2.0", payload_size=2_500)
CONFIG = DeviceConfig(slot_size=64 * 1024, loader_size=16 * 1024, mode=Mode.FIRMWARE_LOADER)


class Desk:
    """A device, and a clock."""

    def __init__(self, config: DeviceConfig = CONFIG) -> None:
        self.device = SimulatedDevice(config, name="desk")
        self.device.install(OLD)
        self.device.install(LOADER, slot=1)
        self.now = 0.0

    def ask(self, op: int, group: int, command: int, body: object = None) -> Any:
        answer = self.device.handle(build_message(op, 1, 0, group, 7, command, cbor2.dumps(body or {})), self.now)
        self.now += answer.busy_s
        (reply,) = answer.replies
        return cbor2.loads(reply[8:])

    def reset(self, **how: int) -> None:
        assert self.ask(Op.WRITE, 0, 5, how) == {}
        self.now += 60
        self.device.advance(self.now)

    def enter(self) -> None:
        self.reset(boot_mode=1)
        assert self.device.in_loader

    def upload(self, content: bytes, end: int | None = None) -> None:
        at = 0
        while at < (len(content) if end is None else end):
            chunk = {"off": at, "len": len(content), "data": content[at : at + 300]}
            at = self.ask(Op.WRITE, 1, 1, chunk)["off"]

    def name(self, name: bytes) -> Any:
        answer = self.ask(Op.WRITE, 3, 0, {"name": NAME_KEY, "val": name})
        return answer or self.ask(Op.WRITE, 3, 3)

    @property
    def slots(self) -> list[tuple[int, str, bool]]:
        return [(one["slot"], one["version"], one["active"]) for one in self.ask(Op.READ, 1, 0)["images"]]

    @property
    def version(self) -> str:
        assert self.device.boot_result is not None
        return str(self.device.boot_result.version)


def test_the_application_has_no_images_and_the_loader_no_settings() -> None:
    desk = Desk()
    for op, command in ((Op.READ, 0), (Op.WRITE, 0), (Op.WRITE, 1), (Op.WRITE, 5), (Op.READ, 6)):
        assert desk.ask(op, 1, command) == {"rc": 8}
    assert desk.ask(Op.READ, 0, 8, {"query": "mode"}) == {"mode": 7}
    assert 1 not in desk.ask(Op.READ, 10, 1)["groups"]
    desk.enter()
    assert desk.slots == [(0, "1.0.0", False), (1, "0.1.0", True)]
    assert desk.ask(Op.READ, 0, 8, {"query": "mode"}) == {"mode": 7}
    for group, op in ((3, Op.WRITE), (8, Op.READ), (9, Op.WRITE), (10, Op.READ)):
        assert desk.ask(op, group, 0, {"name": NAME_KEY, "val": b"x"}) == {"rc": 8}


def test_an_application_that_lists_its_images_does_not_write_them() -> None:
    desk = Desk(replace(CONFIG, application_lists=True))
    assert desk.slots == [(0, "1.0.0", True), (1, "0.1.0", False)]
    for command in (0, 1, 5):
        assert desk.ask(Op.WRITE, 1, command, {"off": 0, "slot": 1}) == {"rc": 8}


def test_the_name_is_for_the_next_loader_and_forgotten_by_the_application() -> None:
    desk = Desk()
    assert desk.device.loader_name == "nRF_BM_MCUmgr"
    assert desk.ask(Op.WRITE, 3, 0, {"name": NAME_KEY, "val": b"FL_1"}) == {}
    assert desk.device.loader_name == "nRF_BM_MCUmgr", "not saved"
    assert desk.ask(Op.WRITE, 3, 3) == {}
    assert desk.device.loader_name == "FL_1"
    assert desk.ask(Op.READ, 3, 0, {"name": NAME_KEY}) == {"err": {"group": 3, "rc": 4}}
    assert desk.name(b"x" * 17) == {"err": {"group": 3, "rc": 5}}
    desk.enter()
    assert desk.device.loader_name == "FL_1"
    desk.reset()
    assert (desk.device.in_loader, desk.device.loader_name) == (False, "nRF_BM_MCUmgr")


@pytest.mark.parametrize("sent", [600, 4_900])
def test_an_upload_that_is_cut_off_leaves_the_device_in_its_loader(sent: int) -> None:
    desk = Desk()
    desk.name(b"FL_1")
    desk.enter()
    desk.upload(NEW, sent)
    desk.reset()
    assert (desk.device.in_loader, desk.device.loader_name) == (True, "FL_1")
    desk.upload(NEW)
    desk.reset()
    assert (desk.device.in_loader, desk.version) == (False, "1.1.0")


def test_an_image_that_is_not_valid_leaves_the_device_in_its_loader() -> None:
    desk = Desk()
    desk.enter()
    desk.upload(NEW[:-40] + bytes(40))
    desk.device.bootloader.verify = lambda image: image.data[-40:] != bytes(40)
    desk.reset()
    assert desk.device.in_loader
    assert desk.slots == [(0, "1.1.0", False), (1, "0.1.0", True)]


@pytest.mark.parametrize("marked", [True, False])
def test_an_installer_replaces_the_loader_and_goes(marked: bool) -> None:
    desk = Desk()
    desk.name(b"FL_1")
    desk.enter()
    desk.upload(build_installer("2.0.0", NEXT_LOADER, marked=marked))
    desk.reset()
    assert (desk.device.in_loader, desk.device.loader_name) == (True, "nRF_BM_MCUmgr")
    assert desk.slots == [(1, "0.2.0", True)]
    desk.upload(NEW)
    desk.reset()
    assert (desk.device.in_loader, desk.version) == (False, "1.1.0")


def test_an_installer_of_a_loader_that_does_not_fit_changes_nothing_and_the_application_is_gone() -> None:
    desk = Desk()
    desk.enter()
    desk.upload(build_installer("2.0.0", build_image("0.2.0", payload_size=20_000)))
    desk.reset()
    assert desk.slots == [(1, "0.1.0", True)]


def test_over_bluetooth_the_loader_goes_by_its_own_name() -> None:
    async def main() -> None:
        desk = Desk(on_board(DeviceConfig(), "nrf54l15-bm"))
        transport = SimulatedTransport(desk.device, LinkModel.ble())
        async with Client(transport) as client:
            assert transport.identity == "sim:desk"
            await client.request(Reset(boot_mode=1))
            await client.wait_lost()
        with pytest.raises(DeviceNotFound) as caught:
            await Client(transport).open(2.0)
        assert "nRF_BM_MCUmgr" in str(caught.value.hint)
        transport.look_for("nRF_BM_MCUmgr")
        async with Client(transport) as client:
            assert transport.identity is None
            assert [slot.version for slot in (await client.request(ReadImageState())).slots] == ["1.0.0", "0.1.0"]
            await client.request(Reset())
            await client.wait_lost()
        async with Client(transport):
            assert transport.identity == "sim:desk"

    run(main())
