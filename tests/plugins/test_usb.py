"""`usb:` addresses: ports that a lister tells of, over real pseudo-terminals."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.contracts import ReturnHint
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, UsageError
from mcumgrx.messages.standard import Echo
from mcumgrx.registry import Registry
from mcumgrx.session import SessionDevice
from mcumgrx.transport import Discovered

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX; Windows needs a real port", allow_module_level=True)

from mcumgrx_plugins.uart import ports
from mcumgrx_plugins.uart.ports import Port, discover, watch
from mcumgrx_plugins.uart.usb import UsbTransport

from ..support.pty_peer import Peer, echo


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    peer.answer = echo
    yield peer
    peer.close()


class Bus:
    """The ports of a computer, which change while a test runs."""

    def __init__(self, *ports: Port) -> None:
        self.ports = list(ports)

    def list(self) -> list[Port]:
        return list(self.ports)


def usb(address: str, *ports: Port) -> UsbTransport:
    return UsbTransport(Address.parse(address), Bus(*ports).list)


def port(path: str, usb_id: str = "2fe3:0004", serial_number: str = "", interface: int | None = None) -> Port:
    vendor, product = (int(part, 16) for part in usb_id.split(":"))
    return Port(path, vendor=vendor, product=product, serial_number=serial_number, interface=interface)


async def test_a_list_of_ports_that_hangs_ends_in_time() -> None:
    go_on = threading.Event()

    def lister() -> list[Port]:
        go_on.wait()
        return []

    try:
        with pytest.raises(ConnectFailed, match=r"could not be listed in 0\.05 s"):
            await UsbTransport(Address.parse("usb:2fe3:0004"), lister).open(0.05)
    finally:
        go_on.set()


OTHERS = (Port("/dev/ttyS0"), port("/dev/ttyUSB9", "10c4:ea60", "0001"))


@pytest.mark.parametrize(
    "address",
    ["usb:2fe3:0004", "usb:2FE3:4", "usb:0x2fe3:0x0004", "usb:2fe3:0004:e66141", "usb:2fe3:0004,interface=2"],
)
async def test_found_by_its_ids(address: str, peer: Peer) -> None:
    transport = usb(address, *OTHERS, port(peer.path, serial_number="E66141", interface=2))
    async with Client(transport) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert transport.identity == "E66141"


async def test_found_again_after_a_reset_under_another_name(peer: Peer) -> None:
    """The reset takes the port away; another board of the same kind is plugged in meanwhile, under the old name."""
    bus = Bus(port(peer.path, serial_number="A1"))
    address = Address.parse("usb:2fe3:0004")
    device = SessionDevice(address, UsbTransport(address, bus.list), Registry(entry_points=[]))
    client = await device.connect()
    assert await client.request(Echo("before")) == "before"
    stranger, returned = Peer(), Peer()
    returned.answer = echo
    bus.ports = []
    peer.hang_up()
    await client.wait_lost()
    with pytest.raises(DeviceNotFound, match="with serial number A1"):
        await device.rediscover(ReturnHint(quiet_s=0, timeout_s=0.2))
    bus.ports = [port(stranger.path, serial_number="B2")]
    with pytest.raises(DeviceNotFound, match="with serial number A1") as caught:
        await device.rediscover(ReturnHint(quiet_s=0, timeout_s=0.2))
    assert "serial number B2" in (caught.value.hint or "")
    bus.ports.append(port(returned.path, serial_number="A1"))
    client = await device.rediscover(ReturnHint(quiet_s=0, timeout_s=5))
    assert await client.request(Echo("after")) == "after"
    assert stranger.received == b""
    await device.close()
    stranger.close()
    returned.close()


@pytest.mark.parametrize(
    ("address", "ports", "hint"),
    [
        ("usb:2fe3:0004", (), "no USB port now"),
        ("usb:2fe3:0004", OTHERS, "usb:10c4:ea60"),
        ("usb:2fe3:0004:XYZ", (port("/dev/ttyACM0", serial_number="A1"),), "/dev/ttyACM0 (serial number A1)"),
        ("usb:2fe3:0004,interface=2", (port("/dev/ttyACM0", interface=0),), "/dev/ttyACM0 (interface 0)"),
    ],
)
async def test_not_there(address: str, ports: tuple[Port, ...], hint: str) -> None:
    with pytest.raises(DeviceNotFound, match="there is no USB serial port 2fe3:0004") as caught:
        await usb(address, *ports).open(5)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("ports", "hint"),
    [
        ((port("/a", serial_number="A1"), port("/b", serial_number="B2")), "usb:2fe3:0004:B2"),
        ((port("/a", interface=0), port("/b", interface=2)), "usb:2fe3:0004,interface=0"),
        ((port("/a"), port("/b")), "serial:/a"),
    ],
)
async def test_several_fit(ports: tuple[Port, ...], hint: str) -> None:
    with pytest.raises(ConnectFailed, match="2 ports fit") as caught:
        await usb("usb:2fe3:0004", *ports).open(5)
    assert hint in (caught.value.hint or "")


async def test_the_port_is_there_but_does_not_open(tmp_path: Path) -> None:
    gone = str(tmp_path / "ttyACM0")
    with pytest.raises(DeviceNotFound, match="ttyACM0"):
        await usb("usb:2fe3:0004", port(gone)).open(5)


async def test_unplugged(peer: Peer) -> None:
    async with Client(usb("usb:2fe3:0004", port(peer.path))) as client:
        peer.hang_up()
        lost = await client.wait_lost()
        assert isinstance(lost, LinkLost)
        assert "unplugged" in (lost.hint or "")


@pytest.mark.parametrize(
    "address", ["usb:", "usb:2fe3", "usb:2fe3:", "usb:xyz:0004", "usb:2fe3:00045", "usb:2fe3:0004,interface=many"]
)
def test_addresses_that_mean_nothing(address: str) -> None:
    with pytest.raises(UsageError):
        usb(address)


# -- discovery --------------------------------------------------------------------------------------------------------


async def test_what_is_discovered_can_be_pasted() -> None:
    bus = Bus(
        Port("/dev/ttyS0", "ttyS0"),
        Port("/dev/ttyACM0", "Widget - CDC", "Acme", 0x2FE3, 4, "A1", 0),
        Port("/dev/ttyACM1", "Widget - CDC", "Acme", 0x2FE3, 4, "A1", 2),
        Port("/dev/ttyUSB0", "CP2102", "", 0x10C4, 0xEA60, "", 0),
    )
    found = await discover(5, bus.list)
    assert [one.address for one in found] == [f"serial:{port.path}" for port in bus.ports]
    assert [one.name for one in found] == ["", "Widget - CDC", "Widget - CDC", "CP2102"]
    assert found[0].details == {}
    assert found[1].details == {
        "usb": "2fe3:0004",
        "serial_number": "A1",
        "interface": 0,
        "usb_address": "usb:2fe3:0004:A1,interface=0",
        "manufacturer": "Acme",
    }
    assert found[3].details == {"usb": "10c4:ea60", "usb_address": "usb:10c4:ea60"}
    reported: list[Discovered] = []
    await watch(5, reported.append, bus.list)
    assert reported == found
    for one, there in zip(found[1:], bus.ports[1:], strict=True):
        transport = UsbTransport(Address.parse(str(one.details["usb_address"])), bus.list)
        assert transport._find() == there


def test_the_ports_of_this_computer() -> None:
    """Whatever they are, each has a path; and a device that vanishes while it is looked at does no harm."""
    for one in ports.list_ports():
        assert one.path
        assert (one.vendor is None) == (one.usb_id is None)


def test_a_device_that_vanishes_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports
    from serial.tools.list_ports_common import ListPortInfo

    info = ListPortInfo("/dev/ttyACM3")
    info.vid, info.pid, info.location, info.serial_number = 0x2FE3, 4, "1-1.2:1.0", "A1"
    answers: list[object] = [TypeError("int() can't convert None"), [info]]

    def comports() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(list_ports, "comports", comports)
    assert ports.list_ports() == [Port("/dev/ttyACM3", "", "", 0x2FE3, 4, "A1", 0)]
    answers += [OSError("no sysfs")] * 3
    assert ports.list_ports() == []


def test_windows_names_interfaces_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from serial.tools import list_ports
    from serial.tools.list_ports_common import ListPortInfo

    info = ListPortInfo("COM7")
    info.vid, info.pid, info.location = 0x2FE3, 4, "1-3:x.2"
    monkeypatch.setattr(list_ports, "comports", lambda: [info])
    (found,) = ports.list_ports()
    assert (found.path, found.interface) == ("COM7", 2)
