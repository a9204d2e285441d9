"""`ble:` in company: other programs on the same device, a Bluetooth service that dies, and pairing without a desktop.

What real BlueZ 5.66 was seen to do, played by the emulation: subscriptions of each program, links that all share, the
errors of a bus on which nobody is `org.bluez`, an adapter that is switched off, an agent that has to be there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from bleak import BleakClient
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup, UploadOptions
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, TransportError
from mcumgrx.events import Bytes, Event
from mcumgrx.flows import DfuPolicy, Ending, update
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.ble import transport as ble_transport
from mcumgrx_plugins.ble.discovery import discover

from .bluez import ADDRESS, Daemon, EmulatedBluez, Peripheral, quick
from .rig import ble, connected, peripheral, session

NEW = parse_image(build_image("1.1.0", payload_size=3000))

# What the bus says of a call to a name that nobody has; which of them depends on whether and how it tries to start it.
NOBODY = (
    None,  # what dbus-daemon says itself
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.TimedOut",
    "org.freedesktop.DBus.Error.Spawn.ExecFailed",
    "org.freedesktop.DBus.Error.Spawn.ChildExited",
    "org.freedesktop.systemd1.NoSuchUnit",
)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated device has found and subscribed to its services in milliseconds."""
    monkeypatch.setattr(ble_transport, "_UNUSED_S", 0.1)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(50):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Program:
    """Another program: a connection of its own to the D-Bus."""

    def __init__(self, bus: MessageBus, rig: Peripheral) -> None:
        self._bus = bus
        self._rig = rig

    async def call(self, member: str, *, path: str | None = None, signature: str = "", body: object = None) -> Message:
        where = path or (self._rig.path if member in ("Connect", "Disconnect") else self._rig.characteristic_path)
        interface = "org.bluez.Device1" if where == self._rig.path else "org.bluez.GattCharacteristic1"
        reply = await self._bus.call(
            Message(
                destination="org.bluez",
                path=where,
                interface=interface,
                member=member,
                signature=signature,
                body=[] if body is None else [body],
            )
        )
        assert reply is not None
        assert reply.message_type is MessageType.METHOD_RETURN, reply.error_name
        return reply

    async def use(self) -> None:
        """Connect and subscribe."""
        await self.call("Connect")
        await until(lambda: self._rig.announced)
        await self.call("StartNotify")

    def end(self) -> None:
        self._bus.disconnect()


@asynccontextmanager
async def program(rig: Peripheral) -> AsyncIterator[Program]:
    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    try:
        yield Program(bus, rig)
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()


# -- one device, several programs -------------------------------------------------------------------------------------


async def test_a_device_in_use_is_said_to_be_and_left_alone(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble_transport, "_IN_USE_S", 0.05)
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, program(rig) as other:
        await known(bluez, rig)
        await other.use()
        for transport in (ble(), ble("smp-rig")):
            with pytest.raises(ConnectFailed, match="is in use by another program on this computer") as caught:
                await Client(transport).open(5)
            assert "one program at a time" in str(caught.value.hint)
        assert rig.notifying
        assert bluez.calls["Disconnect"] == 0


async def test_what_is_in_use_for_a_moment_is_waited_for(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, program(rig) as other:
        await known(bluez, rig)
        await other.use()
        device = session(ble())
        opening = asyncio.create_task(device.connect(5))
        await asyncio.sleep(0.05)
        assert not opening.done()
        other.end()
        await opening
        await device.close()


async def known(bluez: EmulatedBluez, rig: Peripheral) -> None:
    """A scan has found it."""
    await discover(0.2)
    assert bluez.knows(rig)


async def test_a_link_that_others_have_come_to_use_is_left_to_them(daemon: Daemon) -> None:
    """Its own subscription ends; Disconnect would end the link for all."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, program(rig) as other:
        before = await bluez.connections()
        async with connected(ble()) as client:
            assert await client.request(Echo("mine")) == "mine"
            await other.use()
        assert rig.notifying
        assert len(rig.subscribers) == 1
        assert bluez.calls["Disconnect"] == 0
        async with asyncio.timeout(20):
            while await bluez.connections() > before + 1:  # noqa: ASYNC110  bleak's, for the whole process
                await asyncio.sleep(0.01)


async def test_the_link_of_a_killed_program_is_taken_over_and_ended(daemon: Daemon) -> None:
    """With the program its subscription has gone, not the link."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        async with program(rig) as killed:
            await known(bluez, rig)
            await killed.use()
        await until(lambda: not rig.notifying)
        assert rig.mtu
        async with connected(ble()) as client:
            assert await client.request(Echo("mine")) == "mine"
        assert not rig.mtu
        assert bluez.calls["Connect"] == 1


@pytest.mark.parametrize(
    "refusal",
    [
        ("InProgress", "Operation already in progress"),
        ("Failed", "br-connection-canceled"),
        ("Failed", "le-connection-abort-by-local"),
        ("Failed", "Operation already in progress"),
        ("Failed", "Software caused connection abort"),
        ("Busy", "Device or resource busy"),
    ],
)
async def test_refusals_that_pass_are_tried_again(daemon: Daemon, refusal: tuple[str, str]) -> None:
    """And nothing is disconnected meanwhile: that would end the attempt of another program."""
    rig = peripheral()
    rig.connect_errors = [refusal] * 3
    rig.notify_errors = [("InProgress", "In Progress"), ("NotPermitted", "Notify acquired")]
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(ble()) as client:
            assert await client.request(Echo("at last")) == "at last"
            assert bluez.calls["Disconnect"] == 0
        assert (bluez.calls["Connect"], bluez.calls["StartNotify"]) == (4, 3)


async def test_refusals_that_do_not_pass_are_told(daemon: Daemon) -> None:
    rig = peripheral()
    rig.connect_error = ("InProgress", "Operation already in progress")
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match="Operation already in progress") as caught:
            await Client(ble()).open(0.4)
        assert "another program" in str(caught.value.hint)


async def test_several_programs_connect_at_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """All get their turn: who is refused waits, and disturbs nobody."""
    monkeypatch.setattr(ble_transport, "_UNUSED_S", 3.0)
    rig = peripheral()

    async def ask(number: int) -> str:
        async with connected(ble()) as client:
            return await client.request(Echo(f"{number}"))

    async with EmulatedBluez(daemon, rig):
        assert await asyncio.gather(*(ask(number) for number in range(4))) == ["0", "1", "2", "3"]
        assert not rig.mtu


async def test_a_write_refused_while_another_program_asks_for_the_mtu(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig), program(rig) as other, connected(ble()) as client:
        await client.params()
        for _ in range(3):
            await other.call("AcquireWrite", signature="a{sv}", body={})
            asked = asyncio.create_task(client.request(Echo("x" * 500), repeats=0))
            await asyncio.sleep(0.01)
            assert rig.acquired is not None
            rig.acquired.close()
            rig.acquired = None
            assert len(await asked) == 500


async def test_a_write_that_stays_refused(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble_transport, "_WRITE_REFUSED_S", 0.05)
    rig = peripheral()
    async with EmulatedBluez(daemon, rig), program(rig) as other, connected(ble()) as client:
        held = await other.call("AcquireWrite", signature="a{sv}", body={})
        assert held.unix_fds
        with pytest.raises(TransportError, match=r"does not take a write.*Write acquired") as caught:
            await client.request(Echo("x"), repeats=0)
        assert "that program" in str(caught.value.hint)
        assert client.connected


# -- nobody is org.bluez ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", NOBODY)
async def test_a_service_that_is_not_there_is_told_of(daemon: Daemon, error: str | None) -> None:
    async with EmulatedBluez(daemon, peripheral()) as bluez:
        await bluez.kill(error)
        looks: tuple[Callable[[], Awaitable[object]], ...] = (lambda: Client(ble()).open(1), lambda: discover(0.2))
        for look in looks:
            with pytest.raises(ConnectFailed, match=r"service of this computer \(bluetoothd\) does not run") as caught:
                await look()
            assert "systemctl" in str(caught.value.hint)


@pytest.mark.parametrize("error", NOBODY)
async def test_a_service_that_dies_is_a_lost_link(daemon: Daemon, error: str | None) -> None:
    """And when it runs again, bleak's memory of the old one is no obstacle."""
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(transport) as client:
            assert await client.request(Echo("before")) == "before"
            await bluez.kill(error)
            with pytest.raises(LinkLost, match="was lost with the Bluetooth service of this computer") as caught:
                await client.request(Echo("meanwhile"))
            assert "bluetooth" in str(caught.value.hint)
        with pytest.raises(ConnectFailed, match="does not run"):
            await Client(transport).open(1)
        await bluez.restart()
        async with connected(transport) as client:
            assert await client.request(Echo("after")) == "after"


async def test_a_service_that_is_killed_and_back_before_anybody_has_asked(daemon: Daemon) -> None:
    rig = peripheral()
    transport = ble("smp-rig")
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(transport) as client:
            assert await client.request(Echo("before")) == "before"
            await bluez.kill()
            await bluez.restart()
            with pytest.raises(LinkLost):
                await client.request(Echo("meanwhile"))
        async with connected(transport) as client:
            assert await client.request(Echo("after")) == "after"


async def survives(daemon: Daemon, disturb: Callable[[EmulatedBluez], Awaitable[None]]) -> None:
    """An update that is disturbed in the middle of its upload."""
    rig = peripheral(model=quick(interval_s=0.01))
    device = session(ble("smp-rig"), 0.5)
    disturbing: list[asyncio.Task[None]] = []

    async with EmulatedBluez(daemon, rig) as bluez:

        def listen(event: Event) -> None:
            if isinstance(event, Bytes) and event.done > 1000 and not disturbing:
                disturbing.append(asyncio.ensure_future(disturb(bluez)))

        try:
            async with asyncio.timeout(50):
                report = await update(device, NEW, DfuPolicy(), listen)
        finally:
            await device.close()
        assert report.ending is Ending.CONFIRMED
        assert disturbing
        await disturbing[0]


async def test_an_update_survives_an_adapter_that_is_switched_off_and_on(daemon: Daemon) -> None:
    async def switch(bluez: EmulatedBluez) -> None:
        bluez.power(False)
        await asyncio.sleep(0.3)
        bluez.power(True)

    await survives(daemon, switch)


async def test_an_update_survives_a_service_that_is_killed_and_started(daemon: Daemon) -> None:
    async def kill(bluez: EmulatedBluez) -> None:
        await bluez.kill()
        await asyncio.sleep(0.3)
        await bluez.restart()

    await survives(daemon, kill)


async def test_an_adapter_that_is_switched_off(daemon: Daemon) -> None:
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig) as bluez, connected(transport) as client:
        bluez.power(False)
        assert "has gone" in str(await client.wait_lost())
        with pytest.raises(ConnectFailed, match="switched off"):
            await Client(transport).open(1)
        bluez.power(True)
        async with connected(transport) as again:
            assert await again.request(Echo("on")) == "on"


async def test_a_bus_that_ends_is_a_lost_link(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.address)
    rig = peripheral()
    transport = ble()
    async with EmulatedBluez(daemon, rig), connected(transport) as client:
        await client.params()
        daemon.close()
        async with asyncio.timeout(50):
            with pytest.raises(LinkLost):
                await client.request(Echo("x"), repeats=0)
        with pytest.raises(ConnectFailed, match="D-Bus, through which Bluetooth is reached, does not answer"):
            await Client(transport).open(1)
        with pytest.raises(ConnectFailed, match="D-Bus"):
            await discover(0.2)


# -- pairing ----------------------------------------------------------------------------------------------------------


def trusted(bluez: EmulatedBluez, rig: Peripheral) -> object:
    return bluez._objects[rig.path]["org.bluez.Device1"]["Trusted"].value


@pytest.mark.parametrize("asks", [None, "RequestAuthorization"])
async def test_pairing_brings_its_own_agent(daemon: Daemon, asks: str | None) -> None:
    rig = peripheral()
    rig.security, rig.asks_agent = "hang", asks
    async with EmulatedBluez(daemon, rig) as bluez:
        async with connected(ble(ADDRESS, pair="yes")) as client:
            assert not bluez.agents
            assert await client.request(Echo("paired")) == "paired"
        assert (bluez.calls["Pair"], trusted(bluez, rig)) == (1, True)
        async with connected(ble(ADDRESS, pair="yes")) as client:  # has been done
            assert await client.request(Echo("still")) == "still"
        assert (bluez.calls["Pair"], bluez.calls["RegisterAgent"]) == (1, 1)


@pytest.mark.parametrize(
    "trouble", [{"pair_error": ("AuthenticationFailed", "Authentication Failed")}, {"asks_agent": "RequestPasskey"}]
)
async def test_a_pairing_that_fails_leaves_nothing_behind(daemon: Daemon, trouble: dict[str, object]) -> None:
    rig = peripheral()
    for name, value in trouble.items():
        setattr(rig, name, value)
    async with EmulatedBluez(daemon, rig) as bluez:
        with pytest.raises(ConnectFailed, match="could not be paired: Authentication Failed"):
            await Client(ble(ADDRESS, pair="yes")).open(2)
        assert not bluez.agents
        assert trusted(bluez, rig) is False
        assert not rig.mtu


async def test_a_pairing_that_hangs_leaves_nothing_behind(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        bluez.ignore = "Pair"
        with pytest.raises(ConnectFailed):
            await Client(ble(ADDRESS, pair="yes")).open(0.4)
        assert not bluez.agents
        assert trusted(bluez, rig) is False
        assert not rig.mtu


async def test_a_desktops_agent_is_in_nobodys_way_nor_displaced(daemon: Daemon) -> None:
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez, program(rig) as desktop:
        for member, signature, body in (
            ("RegisterAgent", "os", ["/desktop", "KeyboardDisplay"]),
            ("RequestDefaultAgent", "o", ["/desktop"]),
        ):
            await desktop._bus.call(
                Message(
                    destination="org.bluez",
                    path="/org/bluez",
                    interface="org.bluez.AgentManager1",
                    member=member,
                    signature=signature,
                    body=body,
                )
            )
        async with connected(ble(ADDRESS, pair="yes")) as client:
            assert await client.request(Echo("paired")) == "paired"
        [agent] = bluez.agents.values()
        assert (agent.path, agent.default) == ("/desktop", True)


async def test_the_emulation_demands_an_agent(daemon: Daemon) -> None:
    """Else nothing would be proven above."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig):
        client = BleakClient(ADDRESS, pair=True)
        with pytest.raises(Exception, match="AuthenticationFailed"):
            await client.connect()


async def test_subscribing_that_hangs_ends_in_time(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ble_transport, "_SUBSCRIBING_S", 0.1)
    rig = peripheral()
    rig.security = "hang"
    async with EmulatedBluez(daemon, rig):
        with pytest.raises(ConnectFailed, match=r"did not let its answers be subscribed to within 0\.1 s") as caught:
            await Client(ble()).open(60)
        assert "pair=yes" in str(caught.value.hint)
        assert not rig.mtu


# -- gone, and something else is there ---------------------------------------------------------------------------------


async def test_what_was_seen_in_its_place_is_told(daemon: Daemon) -> None:
    """A device may come back with another name and another address: over all attempts, those with SMP first."""
    rig, lamp = peripheral(name="Widget"), peripheral(name="A lamp", address="00:11:22:33:44:77")
    lamp.names_service = False
    new = peripheral(name="Gadget", address="00:11:22:33:44:66")
    new.advertising = False
    transport = ble("Widget")
    async with EmulatedBluez(daemon, rig, lamp, new) as bluez:
        async with connected(transport):
            pass
        rig.advertising, new.advertising = False, True
        bluez.forget(rig)
        with pytest.raises(DeviceNotFound):
            await Client(transport).open(0.3)
        new.advertising = lamp.advertising = False
        bluez.forget(new)
        bluez.forget(lamp)
        with pytest.raises(DeviceNotFound) as caught:
            await Client(transport).open(0.123456)
        assert "0.123 s" in str(caught.value)
        assert "These were seen: Gadget (00:11:22:33:44:66, offers SMP), A lamp (" in str(caught.value.hint)


async def test_disconnecting_takes_two_seconds_and_is_waited_for(daemon: Daemon) -> None:
    """BlueZ has a timer for it; a program that ends before leaves the device connected."""
    rig = peripheral()
    async with EmulatedBluez(daemon, rig) as bluez:
        bluez.disconnect_s = 0.2
        async with connected(ble()) as client:
            await client.group(ImageGroup).upload(NEW, UploadOptions())
        assert not rig.mtu
