"""`ble:` from end to end: the transport, bleak and its BlueZ backend, D-Bus, an emulated BlueZ, a simulated device."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import randrange

import pytest
from bleak import BleakClient, BleakScanner

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup, UploadOptions
from mcumgrx.errors import (
    ConnectFailed,
    DeviceNotFound,
    LinkLost,
    MessageTooLarge,
    RequestTimeout,
    TransportError,
)
from mcumgrx.events import Bytes, Event
from mcumgrx.flows import DfuPolicy, Ending, update
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo, Params
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import Power
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults
from mcumgrx_plugins.ble import transport as ble_transport
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC, discover
from mcumgrx_plugins.ble.transport import BleTransport

from .bluez import ADDRESS, Daemon, EmulatedBluez, Peripheral, quick
from .faults import Tally, endure_all
from .rig import CONFIG, ble, connected, peripheral, running, session

NEW = parse_image(build_image("1.1.0", payload_size=3000))


# -- talking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mtu", [23, 65, 247, 498, 517])
async def test_writes_fill_the_mtu_but_never_exceed_an_attribute(daemon: Daemon, mtu: int) -> None:
    rig = peripheral(replace(CONFIG, buf_size=8192), model=quick(mtu))
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
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
        assert rig.types == {"command"}


async def test_by_name(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, peripheral()):
        transport = ble("smp-rig")
        assert transport.identity is None
        async with connected(transport) as client:
            assert await client.request(Echo("hello")) == "hello"
        assert transport.identity == ADDRESS


@pytest.mark.parametrize(
    ("address", "kind", "identity"),
    [
        ("C0:FF:EE:00:00:01", "random", "C0:FF:EE:00:00:01"),  # static
        ("4A:FF:EE:00:00:01", "random", None),  # private: another one in a quarter of an hour
        ("4A:FF:EE:00:00:01", "public", "4A:FF:EE:00:00:01"),
    ],
)
async def test_identity_is_an_address_that_stays(daemon: Daemon, address: str, kind: str, identity: str | None) -> None:
    async with EmulatedBluez(daemon, peripheral(address=address, address_type=kind)):
        transport = ble(address.lower())
        async with connected(transport):
            assert transport.identity == identity


async def test_a_characteristic_without_write_command_gets_write_requests(daemon: Daemon) -> None:
    rig = peripheral()
    rig.flags = ["write", "notify"]
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
        assert await client.request(Echo("hello")) == "hello"
        assert rig.types == {"request"}


async def test_other_uuids(daemon: Daemon) -> None:
    rig = peripheral()
    rig.service, rig.characteristic = (f"0000{number}-0000-1000-8000-00805f9b34fb" for number in ("fe01", "fe02"))
    async with EmulatedBluez(daemon, rig), connected(ble(ADDRESS, service="FE01", characteristic="fe02")) as client:
        assert await client.request(Echo("hello")) == "hello"


async def test_a_busy_bluez_is_waited_for(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
        rig.busy_writes = 3
        assert await client.request(Echo("hello")) == "hello"


async def test_old_bluez_that_cannot_tell_the_mtu(daemon: Daemon) -> None:
    rig = peripheral(model=quick(100))
    rig.acquirable = False
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
        assert client.limits.write == 97


async def test_the_private_way_to_the_mtu_is_still_there(daemon: Daemon) -> None:
    """bleak has no public one. When this fails, `BleTransport` falls back to a value that may be out of date."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig):
        client = BleakClient(ADDRESS)
        async with client:
            await client._backend._acquire_mtu()
            assert client.mtu_size == 247
        assert callable(client._backend.set_disconnected_callback)
        assert client._backend._disconnected_callback is None


async def test_the_mtu_is_read_again_after_each_reconnect(daemon: Daemon) -> None:
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig):
        for mtu in (247, 65, 498):
            rig.model = quick(mtu)
            async with connected(transport) as client:
                assert client.limits.write == mtu - 3
                await client.params()
                assert len(await client.request(Echo("x" * 500))) == 500


async def test_writes_are_cut_again_when_the_mtu_has_shrunk(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
        await client.params()
        rig.mtu = 100
        rig.writes.clear()
        assert len(await client.request(Echo("x" * 500))) == 500
        assert max(rig.writes) == 97
        assert client.limits.write == 97


async def test_two_devices_at_once(daemon: Daemon) -> None:
    """Both scan at the same time, which BlueZ grants to one only, and one is lost while the other goes on."""
    rigs = [peripheral(name=f"rig-{number}", address=f"00:11:22:33:44:0{number}") for number in (1, 2)]
    async with EmulatedBluez(daemon, *rigs) as bluez:
        clients = [Client(ble(rig.name)) for rig in rigs]
        await asyncio.gather(*(client.open() for client in clients))
        texts = await asyncio.gather(*(client.request(Echo(f"to {n}")) for n, client in enumerate(clients)))
        assert texts == ["to 0", "to 1"]
        bluez.lose(rigs[0])
        await clients[0].wait_lost()
        assert await clients[1].request(Echo("still here")) == "still here"
        await asyncio.gather(*(client.close() for client in clients))
        assert bluez.calls["StartDiscovery"] == bluez.calls["StopDiscovery"]


# -- finding ----------------------------------------------------------------------------------------------------------


async def test_scan(daemon: Daemon) -> None:
    other = peripheral(name="Kettle, 2nd", address="00:11:22:33:44:66")
    other.service = None
    async with EmulatedBluez(daemon, other, peripheral()):
        found = await discover(0.3)
    assert [(one.address, one.name, one.smp) for one in found] == [
        (f"ble:{ADDRESS}", "smp-rig", True),
        ("ble:00:11:22:33:44:66", "Kettle, 2nd", False),
    ]
    assert found[0].signal_dbm == -42
    seen = found[0].last_seen_s
    assert isinstance(seen, float)
    assert 0 <= seen < 10


async def test_the_registry_knows_it(daemon: Daemon) -> None:
    transport = default_registry().transport(Address("ble", "smp-rig"))
    assert isinstance(transport, BleTransport)


async def test_two_devices_of_one_name_are_not_guessed_at(daemon: Daemon) -> None:
    rigs = [peripheral(address=f"00:11:22:33:44:0{number}") for number in (1, 2)]
    async with EmulatedBluez(daemon, *rigs):
        with pytest.raises(ConnectFailed, match="2 devices are called smp-rig: 00:11") as caught:
            await Client(ble("smp-rig")).open()
        assert "ble:00:11" in str(caught.value.hint)


async def test_nobody_of_that_name(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, peripheral()):
        with pytest.raises(DeviceNotFound, match="the device Widget was not seen in 0") as caught:
            await Client(ble("Widget")).open(0.2)
        assert "These were seen: smp-rig" in str(caught.value.hint)


async def test_a_device_seen_before_is_connected_without_a_scan(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, peripheral()) as bluez:
        transport = ble()
        for _ in range(3):
            async with connected(transport):
                pass
        assert (bluez.calls["StartDiscovery"], bluez.calls["Connect"]) == (1, 3)


async def test_a_scan_result_that_bluez_has_forgotten(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        transport = ble()
        async with connected(transport):
            pass
        bluez.forget(rig)
        async with connected(transport) as client:
            assert await client.request(Echo("again")) == "again"
        assert bluez.calls["StartDiscovery"] == 2


async def test_a_device_that_bluez_has_had_the_time_to_forget(daemon: Daemon) -> None:
    """Half a minute after the link or the scan, with real ones."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        bluez.temporary_s = 0.4
        transport = ble()
        for number in range(1, 4):
            async with connected(transport) as client:
                assert await client.request(Echo("there")) == "there"
            async with asyncio.timeout(50):
                while bluez.knows(rig):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert bluez.calls["StartDiscovery"] == number


async def test_what_a_scan_of_bleak_has_found_long_ago(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        found = await BleakScanner.find_device_by_name("smp-rig")
        assert found is not None
        bluez.forget(rig)
        async with connected(BleTransport.of(found)) as client:
            assert await client.request(Echo("found")) == "found"
        assert bluez.calls["StartDiscovery"] == 2


async def test_back_under_another_address(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        transport = ble("smp-rig")
        async with connected(transport):
            pass
        bluez.move(rig, "00:11:22:33:44:56")
        async with connected(transport) as client:
            assert await client.request(Echo("moved")) == "moved"


async def test_back_under_another_name(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        transport = ble("smp-rig")
        async with connected(transport):
            pass
        bluez.forget(rig)
        rig.name = "updated"
        async with connected(transport) as client:
            assert await client.request(Echo("renamed")) == "renamed"


async def test_the_link_of_a_program_that_was_killed_is_taken_over(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BlueZ keeps it, and a device that is connected does not advertise."""
    monkeypatch.setattr(ble_transport, "_UNUSED_S", 0.1)
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        killed = BleakClient(ADDRESS)
        await killed.connect()
        async with connected(ble("smp-rig")) as client:
            assert await client.request(Echo("mine")) == "mine"
        assert bluez.calls["Connect"] == 1
        await killed.disconnect()


async def test_from_a_scan_of_bleak(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, peripheral()) as bluez:
        found = await BleakScanner.find_device_by_name("smp-rig")
        assert found is not None
        async with connected(BleTransport.of(found)) as client:
            assert await client.request(Echo("found")) == "found"
        assert bluez.calls["StartDiscovery"] == 1


async def test_a_client_of_bleak_keeps_what_is_its_own(daemon: Daemon) -> None:
    rig = peripheral()
    lost = asyncio.Event()
    async with EmulatedBluez(daemon, rig) as bluez, BleakClient(ADDRESS, lambda _: lost.set()) as theirs:
        transport = BleTransport.of(theirs)
        async with connected(transport) as client:
            assert await client.request(Echo("lent")) == "lent"
        assert theirs.is_connected
        async with connected(transport) as client:
            waiting = asyncio.create_task(client.wait_lost())
            await asyncio.sleep(0)
            bluez.lose(rig)
            assert "has gone" in str(await waiting)
            await asyncio.wait_for(lost.wait(), 5)
        async with connected(transport) as client:  # connects it itself now
            assert await client.request(Echo("back")) == "back"
        assert not theirs.is_connected


async def test_a_client_of_bleak_whose_device_was_forgotten(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        theirs = BleakClient(ADDRESS)
        transport = BleTransport.of(theirs)
        async with connected(transport):
            pass
        bluez.forget(rig)
        async with connected(transport) as client:
            assert await client.request(Echo("found")) == "found"


# -- services that change ---------------------------------------------------------------------------------------------


async def test_services_that_change_while_subscribing(daemon: Daemon) -> None:
    """What BlueZ remembers of a device may be from before its update; it looks again, and another link finds them."""
    rig = peripheral()
    rig.changes_at = ("StartNotify", 1)
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(ble()) as client:
            assert await client.request(Echo("found")) == "found"
        assert bluez.calls["Connect"] == 2
        rig.changes_at = ("StartNotify", 2)
        with pytest.raises(ConnectFailed, match="does not have the SMP characteristic where it should be") as caught:
            await Client(ble()).open()
        assert "remember its old services" in str(caught.value.hint)


async def test_services_that_change_while_connected(daemon: Daemon) -> None:
    """A lost link like others: whoever can connect again goes on."""
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(transport) as client:
            assert await client.request(Echo("here")) == "here"
            bluez.change_services(rig)
            with pytest.raises(LinkLost, match="offers other services now"):
                await client.request(Echo("gone"))
        async with connected(transport) as client:
            assert await client.request(Echo("there")) == "there"


async def test_update_through_services_that_change(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        rig.changes_at = ("WriteValue", 2)
        await Update(ble()).run()
        assert bluez.calls["Connect"] > 3
    assert running(rig) == "1.1.0"


async def test_services_that_bluez_remembers_wrongly(daemon: Daemon) -> None:
    rig = peripheral()
    rig.notify_error = ("Failed", "Operation failed with ATT error: 0x01")
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match="where it should be") as caught:
            await Client(ble()).open()
        assert "bluetoothctl remove" in str(caught.value.hint)


# -- the end of the link ----------------------------------------------------------------------------------------------


async def test_a_lost_link_wakes_everybody_at_once(daemon: Daemon) -> None:
    rig = peripheral(faults=Faults(drop_requests=lambda number, _: number > 1))
    async with EmulatedBluez(daemon, rig) as bluez, Client(ble(), in_flight=3) as client:
        assert await client.request(Echo("hello")) == "hello"
        asked = [asyncio.create_task(client.request(Echo("x"), timeout_s=60)) for _ in range(3)]
        async with asyncio.timeout(50):
            while len(rig.writes) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            bluez.lose(rig)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [LinkLost] * 3
        with pytest.raises(LinkLost, match="has gone"):
            await client.request(Echo("x"))


async def test_lost_between_the_fragments_of_a_message(daemon: Daemon) -> None:
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig):
        async with connected(transport) as client:
            await client.params()
            rig.cut_at_write = len(rig.writes) + 2
            with pytest.raises(LinkLost):
                await client.request(Echo("x" * 500))
        async with connected(transport) as client:
            assert await client.request(Echo("again")) == "again"


async def test_closing_waits_for_bluez_but_nobody_else_waits(daemon: Daemon) -> None:
    rig = peripheral(faults=Faults(drop_requests=1))
    async with EmulatedBluez(daemon, rig) as bluez:
        bluez.disconnect_s = 1.0
        client = Client(ble())
        await client.open()
        waiting = asyncio.create_task(client.request(Echo("x"), timeout_s=60))
        await asyncio.sleep(0)
        begin = asyncio.get_running_loop().time()
        closing = asyncio.create_task(client.close())
        with pytest.raises(LinkLost, match="closed"):
            await waiting
        assert asyncio.get_running_loop().time() - begin < 0.9
        await closing
        assert asyncio.get_running_loop().time() - begin >= 1.0


async def test_nothing_is_left_behind(daemon: Daemon) -> None:
    """Openings that succeed, fail and are cancelled at any moment: no task, no D-Bus connection, no scan."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        transport = ble()
        async with connected(transport):
            pass
        tasks, connections = len(asyncio.all_tasks()), await bluez.connections()
        for step in range(12):
            opening = asyncio.create_task(Client(transport).open())
            await asyncio.sleep(step * 0.003)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await transport.close()
            if step % 3 == 2:
                bluez.lose(rig)
                bluez.forget(rig)
        rig.resolves = False
        with pytest.raises(ConnectFailed, match="did not connect within 0"):
            await Client(ble()).open(0.2)
        rig.resolves = True
        async with connected(transport) as client:
            bluez.lose(rig)
            await client.wait_lost()
        async with asyncio.timeout(50):  # the emulation has tasks of its own, which end by themselves
            while len(asyncio.all_tasks()) > tasks or await bluez.connections() > connections:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert bluez.calls["StartDiscovery"] == bluez.calls["StopDiscovery"]


# -- out of step ------------------------------------------------------------------------------------------------------

# In two writes of 244 and 100 bytes. A device that has no buffer for the first takes the second for the beginning of a
# message of 104 bytes, waits for the rest, drops that and the next first write because it is too much, and so on.
TREACHEROUS = "x" * 232 + "\x00\x60" + "x" * 96


@pytest.mark.parametrize("recovers", [True, False])
async def test_a_device_that_waits_for_the_rest_of_a_message(
    daemon: Daemon, recovers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not recovers:

        async def nothing(*_: object) -> None:
            return

        monkeypatch.setattr(BleTransport, "_subscribe_again", nothing)
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, connected(ble()) as client:
        await client.params()
        assert await client.request(Echo(TREACHEROUS)) == TREACHEROUS
        assert rig.writes[-2:] == [244, 100]
        rig.full_at_writes = {len(rig.writes) + 1}
        if recovers:
            assert await client.request(Echo(TREACHEROUS), timeout_s=0.5, repeats=1) == TREACHEROUS
            assert await client.request(Echo(TREACHEROUS), repeats=0) == TREACHEROUS
            assert (bluez.calls["StopNotify"], bluez.calls["StartNotify"]) == (1, 2)
        else:
            with pytest.raises(RequestTimeout) as caught:
                await client.request(Echo(TREACHEROUS), timeout_s=0.1, repeats=5)
            assert caught.value.hint is None  # it has answered before


async def test_no_new_subscription_for_what_fits_one_write(daemon: Daemon) -> None:
    rig = peripheral(faults=Faults(drop_requests={2, 3}))
    async with EmulatedBluez(daemon, rig) as bluez, connected(ble()) as client:
        await client.params()
        assert await client.request(Echo("short"), timeout_s=0.3, repeats=2) == "short"
        assert bluez.calls["StopNotify"] == 0


async def test_what_came_of_an_answer_before_subscribing_again_is_dropped(daemon: Daemon) -> None:
    """Its rest does not come any more, and would be taken from the next answer."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, connected(ble()) as client:
        await client.params()
        for lost in range(3):
            rig.lose_notifications = {rig.notifications + 1 + lost}
            assert await client.request(Echo("y" * 600), timeout_s=0.5, repeats=1) == "y" * 600
        assert bluez.calls["StopNotify"] == 3
        # Here it comes when nobody waits for it any more.
        rig.faults.delay_replies = {rig.faults.replies + 1: 0.1}
        until = rig.notifications + 3
        rig.lose_notifications = {until}
        with pytest.raises(RequestTimeout):
            await client.request(Echo("y" * 600), timeout_s=0.05, repeats=0)
        async with asyncio.timeout(50):
            while rig.notifications < until:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert await client.request(Echo("z" * 600), timeout_s=5, repeats=0) == "z" * 600


async def test_subscribing_again_takes_no_longer_than_it_may(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to be sent is sent after it, and the next message tries it again."""
    monkeypatch.setattr("mcumgrx_plugins.ble.transport._SUBSCRIBE_S", 0.1)
    rig = peripheral(faults=Faults(drop_requests=2))
    async with EmulatedBluez(daemon, rig) as bluez, connected(ble()) as client:
        await client.params()
        bluez.ignore = "StopNotify"
        assert len(await client.request(Echo("x" * 300), timeout_s=0.5, repeats=1)) == 300
        bluez.ignore = "StartNotify"
        with pytest.raises(RequestTimeout):
            await client.request(Echo("not subscribed"), timeout_s=0.3, repeats=0)
        bluez.ignore = None
        assert await client.request(Echo("subscribed"), repeats=0) == "subscribed"
        assert (bluez.calls["StopNotify"], bluez.calls["StartNotify"]) == (3, 3)


async def test_a_link_that_is_lost_while_subscribing_again(daemon: Daemon) -> None:
    rig = peripheral(faults=Faults(drop_requests=2))
    async with EmulatedBluez(daemon, rig) as bluez, connected(ble()) as client:
        await client.params()
        bluez.ignore = "StopNotify"
        asked = asyncio.create_task(client.request(Echo("x" * 300), timeout_s=0.1, repeats=1))
        async with asyncio.timeout(50):
            while not bluez.calls["StopNotify"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            bluez.lose(rig)
            with pytest.raises(LinkLost, match="has gone"):
                await asked


# -- updates ----------------------------------------------------------------------------------------------------------


class Update:
    """An update over a transport, and what its progress told."""

    def __init__(self, transport: BleTransport, timeout_s: float = 5.0) -> None:
        self.session = session(transport, timeout_s)
        self.events: list[Event] = []

    async def run(self) -> None:
        try:
            async with asyncio.timeout(50):
                report = await update(self.session, NEW, DfuPolicy(), self.events.append)
        finally:
            await self.session.close()
        assert report.ending is Ending.CONFIRMED

    @property
    def uploaded(self) -> list[int]:
        return [event.done for event in self.events if isinstance(event, Bytes)]


@pytest.mark.parametrize(
    ("mtu", "reassembles"),
    [*((mtu, True) for mtu in (23, 65, 247, 498, 517)), *((mtu, False) for mtu in (247, 498, 517))],
)
async def test_update(daemon: Daemon, mtu: int, reassembles: bool) -> None:
    """Without reassembly the device still tells its large buffers; what does not fit one write is lost or refused."""
    rig = peripheral(model=quick(mtu, reassembles=reassembles))
    async with EmulatedBluez(daemon, rig):
        await Update(ble(), timeout_s=5.0 if reassembles else 0.3).run()
    assert running(rig) == "1.1.0"


@pytest.mark.parametrize("mtu", [23, 65])
async def test_update_that_no_client_could_do(daemon: Daemon, mtu: int) -> None:
    """The first chunk of an upload does not fit one write, and the device does not put several together."""
    rig = peripheral(model=quick(mtu, reassembles=False))
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(MessageTooLarge, match="first chunk") as caught:
            await Update(ble(), timeout_s=0.1).run()
        assert "CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY" in str(caught.value.hint)


async def test_update_that_moves_the_services_and_changes_the_mtu(daemon: Daemon) -> None:
    rig = peripheral()

    def changed(_: object) -> None:
        if rig.device.boot_result is not None and running(rig) == "1.1.0":
            rig.handle, rig.model, rig.name = 0x20, quick(100), "new"

    rig.device.listeners.append(changed)
    transport = ble("smp-rig")
    async with EmulatedBluez(daemon, rig):
        await Update(transport).run()
        assert running(rig) == "1.1.0"
        async with connected(transport) as client:
            assert client.limits.write == 97
            assert await client.request(Echo("new")) == "new"


async def test_update_to_firmware_with_another_address(daemon: Daemon) -> None:
    """As of a device that makes up a new static address at each start."""
    rig = peripheral(address="C0:FF:EE:00:01:00", address_type="random")
    moves: list[str] = []

    async with EmulatedBluez(daemon, rig) as bluez:

        def changed(power: Power) -> None:
            if power is Power.BOOTING:
                moves.append(f"C0:FF:EE:00:00:{len(moves):02}")
                bluez.move(rig, moves[-1])

        rig.device.listeners.append(changed)
        await Update(ble("smp-rig")).run()
    assert running(rig) == "1.1.0"
    assert moves


async def uploaded_after_a_cut(daemon: Daemon, cut_at_write: int | None) -> tuple[Peripheral, list[Bytes]]:
    """An upload of which the link is lost at that write, and the same upload again over a new link.

    The first message is a question, for which the client connects once more by itself; any later loss must show.
    """
    rig = peripheral()
    rig.cut_at_write = cut_at_write
    transport = ble()
    told: list[Bytes] = []

    def listen(event: Event) -> None:
        if isinstance(event, Bytes):
            told.append(event)

    async with EmulatedBluez(daemon, rig):
        for attempt in range(2):
            try:
                async with asyncio.timeout(50), connected(transport) as client:
                    await client.group(ImageGroup).upload(NEW, UploadOptions(), listen)
            except LinkLost:
                assert cut_at_write is not None
                assert len(rig.writes) == cut_at_write
            else:
                assert attempt == (0 if cut_at_write in (None, 1) else 1)
                break
    return rig, told


async def test_the_link_is_lost_at_every_fragment_of_an_upload(daemon: Daemon) -> None:
    """The device keeps its place: what has come through is not sent again."""
    undisturbed, _ = await uploaded_after_a_cut(daemon, None)
    assert len(undisturbed.writes) > 15
    for number in range(1, len(undisturbed.writes) + 1):
        rig, told = await uploaded_after_a_cut(daemon, number)
        assert told[-1].done == told[-1].total == NEW.size, number
        done = [event.done for event in told]
        assert done == sorted(done), (number, done)
        # Once more are sent: the opening chunk, those in the air, a probe, and params.
        assert sum(rig.writes) <= sum(undisturbed.writes) + 5 * CONFIG.buf_size + 40, number
        slot = rig.device.bootloader.slots[1]
        assert rig.device.flash.read(slot.offset, NEW.size) == NEW.data, number


@pytest.mark.parametrize("fault", ["drop_replies", "duplicate_replies", "drop_requests", "duplicate_requests"])
async def test_a_message_is_lost_or_comes_twice(daemon: Daemon, fault: str) -> None:
    """Each message of an upload but the last, for whose answer a client waits long; the flows' tests lose that one."""
    counted = Faults()
    rig = peripheral(faults=counted)
    number = 0
    while number == 0 or number < counted.requests - 1:
        async with EmulatedBluez(daemon, rig), connected(ble(), 0.1) as client:
            await client.group(ImageGroup).upload(NEW, UploadOptions(erase_timeout_s=0.2))
        slot = rig.device.bootloader.slots[1]
        assert rig.device.flash.read(slot.offset, NEW.size) == NEW.data, number
        number += 1
        rig = peripheral(faults=Faults(**{fault: number}))


async def test_random_faults(daemon: Daemon) -> None:
    """More of them: `python -m tests.ble.faults`."""
    tally, seed = Tally(), randrange(2**32)
    failed = await endure_all(daemon, range(seed, seed + 20), tally)
    assert not failed, "\n".join(map(str, failed))
    assert tally.trials == 20


# -- pairing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["refuse", "hang"])
async def test_a_device_that_demands_pairing(daemon: Daemon, security: str) -> None:
    rig = peripheral()
    rig.security = security
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match=r"pairing|subscribed") as caught:
            await Client(ble()).open(0.3 if security == "hang" else 10.0)
        assert "pair=yes" in str(caught.value.hint)
        async with connected(ble(ADDRESS, pair="yes")) as client:
            assert await client.request(Echo("paired")) == "paired"
        async with connected(ble()) as client:  # BlueZ remembers
            assert await client.request(Echo("still")) == "still"


async def test_a_device_that_drops_requests_until_it_is_paired(daemon: Daemon) -> None:
    """It lets its answers be subscribed to. Only one that was never heard on this link is suspected."""
    rig = peripheral()
    rig.security = "drop"
    async with EmulatedBluez(daemon, rig):
        async with connected(ble()) as client:
            for _ in range(2):
                with pytest.raises(RequestTimeout) as caught:
                    await client.request(Echo("x"), timeout_s=0.05, repeats=1)
                assert "pair=yes" in str(caught.value.hint)
                assert "hangs" in str(caught.value.hint)
            rig.security = None
            assert await client.request(Echo("x")) == "x"
            rig.security = "drop"
            with pytest.raises(RequestTimeout) as caught:
                await client.request(Echo("x"), timeout_s=0.05, repeats=0)
            assert caught.value.hint is None
        async with connected(ble(ADDRESS, pair="yes")) as client:
            assert await client.request(Echo("paired")) == "paired"


async def test_pairing_that_fails(daemon: Daemon) -> None:
    rig = peripheral()
    rig.pair_error = ("AuthenticationFailed", "Authentication Failed")
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match="could not be paired: Authentication Failed") as caught:
            await Client(ble(ADDRESS, pair="yes")).open(1)
        assert "passkey" in str(caught.value.hint)


async def test_a_link_that_ends_at_subscribing(daemon: Daemon) -> None:
    """As of a device whose bond was erased by its update."""
    rig = peripheral()
    rig.security = "hang"
    async with EmulatedBluez(daemon, rig) as bluez:
        opening = asyncio.create_task(Client(ble()).open())
        async with asyncio.timeout(50):
            while not bluez.calls["StartNotify"]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            bluez.lose(rig)
            with pytest.raises(ConnectFailed, match="ended the link as soon") as caught:
                await opening
        assert "pair=yes" in str(caught.value.hint)


# -- what can be wrong with this computer, and with the device --------------------------------------------------------


async def test_no_adapter(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, adapters=False):
        for look in (Client(ble()).open(0.5), discover(0.2)):
            with pytest.raises(ConnectFailed, match="no Bluetooth adapter"):
                await look


async def test_adapter_switched_off(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, powered=False):
        for look in (Client(ble()).open(0.5), Client(ble(ADDRESS, adapter="hci0")).open(0.5), discover(0.2)):
            with pytest.raises(ConnectFailed, match="switched off"):
                await look


async def test_no_such_adapter(daemon: Daemon) -> None:
    async with EmulatedBluez(daemon, peripheral()):
        with pytest.raises(ConnectFailed, match="no Bluetooth adapter 'hci7'"):
            await Client(ble(ADDRESS, adapter="hci7")).open(0.5)
        async with connected(ble(ADDRESS, adapter="hci0")) as client:
            assert await client.request(Echo("hello")) == "hello"


async def test_no_bluez(daemon: Daemon) -> None:
    with pytest.raises(ConnectFailed, match="bluetoothd"):
        await Client(ble()).open(0.5)


async def test_no_bus(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    with pytest.raises(ConnectFailed, match="D-Bus"):
        await Client(ble()).open(0.5)
    with pytest.raises(ConnectFailed, match="D-Bus"):
        await discover(0.2)


@pytest.mark.parametrize("method", ["GetManagedObjects", "StartDiscovery", "Connect", "WriteValue"])
async def test_no_permission(daemon: Daemon, method: str) -> None:
    async with EmulatedBluez(daemon, peripheral()) as bluez:
        bluez.deny = method
        if method == "WriteValue":
            async with connected(ble()) as client:
                with pytest.raises(TransportError, match="does not take a write"):
                    await client.request(Echo("x"))
            return
        with pytest.raises(ConnectFailed, match="you may not use Bluetooth") as caught:
            await Client(ble()).open(0.5)
        assert "group bluetooth" in str(caught.value.hint)


async def test_a_device_that_cannot_be_connected_to(daemon: Daemon) -> None:
    rig = peripheral()
    rig.connect_error = ("Failed", "le-connection-not-accepted")
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match="could not be connected: le-connection-not-accepted"):
            await Client(ble()).open(0.5)


async def test_a_device_without_the_smp_service(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig):
        rig.service = "0000180f-0000-1000-8000-00805f9b34fb"
        with pytest.raises(ConnectFailed, match="does not offer the SMP service") as caught:
            await Client(ble()).open(1)
        assert "CONFIG_MCUMGR_TRANSPORT_BT" in str(caught.value.hint)
        assert "CONFIG_MCUMGR_SMP_BT" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("characteristic", "flags", "says"),
    [
        ("00002a19-0000-1000-8000-00805f9b34fb", ["write-without-response", "notify"], "lacks its characteristic"),
        (SMP_CHARACTERISTIC, ["read", "notify"], "can do notify, read; writing and notifying"),
        (SMP_CHARACTERISTIC, ["write"], "can do write; writing and notifying"),
    ],
)
async def test_a_service_that_is_not_smp(daemon: Daemon, characteristic: str, flags: list[str], says: str) -> None:
    rig = peripheral()
    rig.characteristic, rig.flags = characteristic, flags
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match=says):
            await Client(ble()).open(1)


# -- time -------------------------------------------------------------------------------------------------------------


async def test_time_outs_count_from_when_the_link_has_sent(daemon: Daemon) -> None:
    """BlueZ takes at once what this link needs 1.2 s for, and its answer as long: together more than the time-out."""
    slow = replace(quick(), bytes_per_s=500.0)
    rig = peripheral(model=slow)
    async with EmulatedBluez(daemon, rig), connected(ble()) as client:
        await client.params()
        assert await client.request(Echo("x" * 200), timeout_s=5.0) == "x" * 200
        assert len(await client.request(Echo("x" * 600), timeout_s=1.9, repeats=0)) == 600


async def test_time_outs_with_several_requests_in_flight(daemon: Daemon) -> None:
    """The third needs 0.9 s to leave, more than its time-out; nothing is sent twice all the same."""
    requests = []
    image = parse_image(build_image("1.1.0", payload_size=6000))
    for model in (quick(), replace(quick(), bytes_per_s=2200.0)):
        rig = peripheral(model=model)
        async with EmulatedBluez(daemon, rig), connected(ble(), 0.6) as client:
            assert await client.params() == Params(640, 4)
            await client.group(ImageGroup).upload(image, UploadOptions(window=3))
        requests.append(rig.faults.requests)
    assert requests[1] - requests[0] in (0, 1)  # a short one asks whether the opening, which takes long, was lost
