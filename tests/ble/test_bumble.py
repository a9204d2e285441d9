"""`ble:` over backends of bleak that are not BlueZ's: Bumble's hosts and virtual controllers, and a link with events.

What `test_suite` shows over an emulated BlueZ is shown here over real ATT, L2CAP and HCI. There is no private way to
the MTU, no D-Bus, and nobody knows whether an address is a public one.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("bumble")

from bleak import BleakClient, BleakScanner
from bleak.exc import BleakError

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup, UploadOptions
from mcumgrx.errors import DeviceNotFound, LinkLost, MessageTooLarge
from mcumgrx.events import Bytes, Event
from mcumgrx.flows import DfuPolicy, Ending, update
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo, Params
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC, discover
from mcumgrx_plugins.ble.transport import BleTransport

from ..support.simulated import virtual
from .bumble_backend import ADDRESS, Central, Peripheral, Radio
from .rig import CONFIG, connected, running, session, simulated

NEW = parse_image(build_image("1.1.0", payload_size=3000))


def peripheral(config: DeviceConfig = CONFIG, **more: Any) -> Peripheral:
    return Peripheral(simulated(config), **more)


def leisurely() -> Radio:
    """One write at a time, so that a device that takes each for a message has answered before the next comes.

    Else it may have no buffer left for what is sent again, and that is waited for until the erase time-out.
    """
    return Radio(packets=1)


def ble(central: Central, target: str = ADDRESS) -> BleTransport:
    return BleTransport(Address("ble", target), stack=central.stack)


def uploaded(one: Peripheral) -> bytes:
    slot = one.device.bootloader.slots[1]
    return one.device.flash.read(slot.offset, NEW.size)


# -- talking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mtu", [23, 65, 247, 498, 517])
@virtual
async def test_writes_fill_the_mtu_but_never_exceed_an_attribute(mtu: int) -> None:
    rig = peripheral(replace(CONFIG, buf_size=8192), mtu=mtu)
    async with Central.in_range_of(Radio(), rig) as central, connected(ble(central)) as client:
        size = min(mtu - 3, 512)
        assert (client.limits.write, client.limits.safe_message) == (size, size)
        assert await client.request(Echo("hello")) == "hello"
        assert await client.params() == Params(8192, 4)
        rig.writes.clear()
        text = "".join(chr(97 + index % 26) for index in range(4096))
        assert await client.request(Echo(text)) == text
        *full, rest = rig.writes
        assert set(full) == {size}
        assert sum(rig.writes) > 4096
        assert rest <= size


@virtual
async def test_by_name() -> None:
    async with Central.in_range_of(Radio(), peripheral()) as central:
        transport = ble(central, "smp-rig")
        async with connected(transport) as client:
            assert await client.request(Echo("hello")) == "hello"
        assert transport.identity is None  # only BlueZ tells whether an address stays


@virtual
async def test_the_mtu_is_another_one_after_a_reconnect() -> None:
    rig = peripheral()
    async with Central.in_range_of(Radio(), rig) as central:
        transport = ble(central)
        for mtu in (247, 65, 498):
            rig.mtu = mtu
            rig.device.reset(asyncio.get_running_loop().time())
            async with connected(transport) as client:
                assert client.limits.write == mtu - 3
                await client.params()
                assert len(await client.request(Echo("x" * 500))) == 500
        assert central.scans == 1


@virtual
async def test_two_devices_at_once() -> None:
    """Both scan at the same time, and one is lost while the other goes on."""
    rigs = [peripheral(name=f"rig-{number}", address=f"00:11:22:33:44:0{number}") for number in (1, 2)]
    async with Central.in_range_of(Radio(), *rigs) as central:
        clients = [Client(ble(central, rig.name)) for rig in rigs]
        await asyncio.gather(*(client.open() for client in clients))
        texts = await asyncio.gather(*(client.request(Echo(f"to {n}")) for n, client in enumerate(clients)))
        assert texts == ["to 0", "to 1"]
        rigs[0].lose()
        await clients[0].wait_lost()
        assert await clients[1].request(Echo("still here")) == "still here"
        await asyncio.gather(*(client.close() for client in clients))
        assert (central.scans, central.connects) == (1, 2)


@virtual
async def test_the_link_keeps_time() -> None:
    """One packet in each connection event: a write returns at once, and the last of ten has left nine events later."""
    rig = peripheral(replace(CONFIG, buf_size=8192))
    loop = asyncio.get_running_loop()
    async with Central.in_range_of(Radio(0.02, packets=1), rig) as central, connected(ble(central)) as client:
        await client.params()
        rig.writes.clear()
        start = loop.time()
        asking = asyncio.create_task(client.request(Echo("x" * 2400)))
        async with asyncio.timeout(50):
            while not rig.writes:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert len(rig.writes) < 10
        assert len(await asking) == 2400
        assert len(rig.writes) == 10
        assert loop.time() - start >= 18 * 0.02  # nine there, nine back, and what is left of the first


# -- what the link does with writes -----------------------------------------------------------------------------------


@virtual
async def test_the_stand_refuses_and_drops_what_real_ones_do() -> None:
    """Else the transport's limits would be proven by nothing."""
    rig = peripheral(replace(CONFIG, buf_size=2048), mtu=517)
    async with Central.in_range_of(Radio(), rig) as central:
        found = await BleakScanner.find_device_by_name("smp-rig", backend=central.stack.scanner)
        assert found is not None
        async with BleakClient(found, backend=central.stack.client) as client:
            assert client.mtu_size == 517
            with pytest.raises(BleakError, match="515 bytes does not fit an MTU of 517"):
                await client.write_gatt_char(SMP_CHARACTERISTIC, bytes(515), response=False)
            for size in (513, 514, 512):
                await client.write_gatt_char(SMP_CHARACTERISTIC, bytes(size), response=False)
            async with asyncio.timeout(50):
                while not rig.writes:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert rig.writes == [512]


# -- finding ----------------------------------------------------------------------------------------------------------


@virtual
async def test_scan() -> None:
    other = peripheral(name="Kettle", address="00:11:22:33:44:66")
    other.names_service = False
    async with Central.in_range_of(Radio(), other, peripheral()) as central:
        found = await discover(0.3, backend=central.stack.scanner)
    assert [(one.address, one.name, one.smp) for one in found] == [
        (f"ble:{ADDRESS}", "smp-rig", True),
        ("ble:00:11:22:33:44:66", "Kettle", False),
    ]
    assert found[0].signal_dbm == -50


@virtual
async def test_nobody_of_that_name() -> None:
    async with Central.in_range_of(Radio(), peripheral()) as central:
        with pytest.raises(DeviceNotFound, match="the device Widget was not seen in 0") as caught:
            await Client(ble(central, "Widget")).open(0.2)
        assert "These were seen: smp-rig" in str(caught.value.hint)


@virtual
async def test_a_scan_result_that_is_of_no_use_any_more() -> None:
    """Connecting to it takes until the time is up; then the device is looked for, and found under its new address."""
    rig = peripheral()
    radio = Radio()
    async with Central.in_range_of(radio) as central:
        transport = ble(central, "smp-rig")
        async with rig.on_air(radio), connected(transport):
            pass
        rig.address = "00:11:22:33:44:56"
        async with rig.on_air(radio):
            client = Client(transport)
            await client.open(1.0)
            assert await client.request(Echo("moved")) == "moved"
            await client.close()
        assert central.scans == 2


@virtual
async def test_nothing_is_left_behind() -> None:
    """Openings that succeed, fail and are cancelled at any moment: no task, no connection, no scan."""
    radio = Radio()
    rig = peripheral()
    async with Central.in_range_of(radio) as central:
        transport = ble(central)
        async with rig.on_air(radio):
            assert await discover(0.1, backend=central.stack.scanner)
            tasks = len(asyncio.all_tasks())
            for step in range(12):
                opening = asyncio.create_task(Client(transport).open())
                await asyncio.sleep(step * 0.003)
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                await transport.close()
            async with connected(transport) as client:
                assert await client.request(Echo("still")) == "still"
                rig.lose()
                await client.wait_lost()
            async with asyncio.timeout(50):  # the stand has tasks of its own, which end by themselves
                while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        with pytest.raises(DeviceNotFound):
            await Client(transport).open(0.4)
        assert not central.device.connections
        assert not central.device.is_scanning


# -- updates ----------------------------------------------------------------------------------------------------------


async def updated(transport: BleTransport, timeout_s: float = 5.0) -> None:
    device = session(transport, timeout_s)
    try:
        async with asyncio.timeout(50):
            report = await update(device, NEW, DfuPolicy())
    finally:
        await device.close()
    assert report.ending is Ending.CONFIRMED


@pytest.mark.parametrize(
    ("mtu", "reassembles"),
    [*((mtu, True) for mtu in (23, 65, 247, 498, 517)), *((mtu, False) for mtu in (247, 498, 517))],
)
@virtual
async def test_update(mtu: int, reassembles: bool) -> None:
    """Without reassembly the device still tells its large buffers; what does not fit one write is lost or refused."""
    rig = peripheral(mtu=mtu, reassembles=reassembles)
    async with Central.in_range_of(Radio() if reassembles else leisurely(), rig) as central:
        await updated(ble(central), timeout_s=5.0 if reassembles else 1.0)
    assert running(rig) == "1.1.0"


@pytest.mark.parametrize("mtu", [23, 65])
@virtual
async def test_update_that_no_client_could_do(mtu: int) -> None:
    """The first chunk of an upload does not fit one write, and the device does not put several together."""
    async with Central.in_range_of(leisurely(), peripheral(mtu=mtu, reassembles=False)) as central:
        with pytest.raises(MessageTooLarge, match="first chunk"):
            await updated(ble(central), timeout_s=1.0)


@virtual
async def test_two_updates_at_once() -> None:
    rigs = [peripheral(name=f"rig-{number}", address=f"00:11:22:33:44:0{number}") for number in (1, 2)]
    async with Central.in_range_of(Radio(), *rigs) as central:
        await asyncio.gather(*(updated(ble(central, rig.name)) for rig in rigs))
    assert [running(rig) for rig in rigs] == ["1.1.0", "1.1.0"]


async def uploaded_after_a_cut(cut_at_write: int | None) -> tuple[Peripheral, list[Bytes]]:
    """An upload of which the link is lost at that write, and the same upload again over a new link.

    The first message is a question, for which the client connects once more by itself; any later loss must show.
    """
    rig = peripheral()
    rig.cut_at_write = cut_at_write
    told: list[Bytes] = []

    def listen(event: Event) -> None:
        if isinstance(event, Bytes):
            told.append(event)

    async with Central.in_range_of(Radio(), rig) as central:
        transport = ble(central)
        for attempt in range(2):
            try:
                async with asyncio.timeout(50), connected(transport) as client:
                    await client.group(ImageGroup).upload(NEW, UploadOptions(), listen)
            except LinkLost:
                assert cut_at_write is not None
                assert len(rig.writes) >= cut_at_write
            else:
                assert attempt == (0 if cut_at_write in (None, 1) else 1)
                break
    return rig, told


@virtual
async def test_the_link_is_lost_at_every_fragment_of_an_upload() -> None:
    """The device keeps its place: what has come through is not sent again."""
    undisturbed, _ = await uploaded_after_a_cut(None)
    assert len(undisturbed.writes) > 15
    for number in range(1, len(undisturbed.writes) + 1):
        rig, told = await uploaded_after_a_cut(number)
        assert told[-1].done == told[-1].total == NEW.size, number
        done = [event.done for event in told]
        assert done == sorted(done), (number, done)
        # Once more are sent: the opening chunk, which asks how far the device is, what was under way, and params.
        assert sum(rig.writes) <= sum(undisturbed.writes) + 5 * CONFIG.buf_size + 40, number
        assert uploaded(rig) == NEW.data, number


@pytest.mark.parametrize("fault", ["drop_replies", "duplicate_replies", "drop_requests", "duplicate_requests"])
@virtual
async def test_a_message_is_lost_or_comes_twice(fault: str) -> None:
    """Each message of an upload but the last, for whose answer a client waits long; the flows' tests lose that one."""
    counted = Faults()
    rig = peripheral(faults=counted)
    number = 0
    while number == 0 or number < counted.requests - 1:
        async with Central.in_range_of(Radio(), rig) as central, connected(ble(central), 0.1) as client:
            await client.group(ImageGroup).upload(NEW, UploadOptions(erase_timeout_s=0.2))
        assert uploaded(rig) == NEW.data, number
        number += 1
        rig = peripheral(faults=Faults(**{fault: number}))
