"""An `org.bluez` for tests: adapter, peripherals and GATT on a private D-Bus, with simulated devices behind them.

bleak's BlueZ backend talks to it unchanged. It works on messages, not on interface classes, because BlueZ leaves
properties out while they are unset and announces all interfaces of an object in one signal. What it does, odd as some
of it is, real BlueZ 5.66 was seen to do; `test_facts` compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from mcumgrx.errors import LinkLost
from mcumgrx.protocol.codec import HEADER_SIZE, split_messages
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.sim.device import Power, SimulatedDevice
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport, runner_of
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC, SMP_SERVICE

ADAPTER = "/org/bluez/hci0"
ADDRESS = "00:11:22:33:44:55"

_PROPERTIES = "org.freedesktop.DBus.Properties"
_MANAGER = "org.freedesktop.DBus.ObjectManager"
_ADAPTER1, _DEVICE1 = "org.bluez.Adapter1", "org.bluez.Device1"
_SERVICE1, _CHARACTERISTIC1 = "org.bluez.GattService1", "org.bluez.GattCharacteristic1"
_DESCRIPTOR1, _AGENT_MANAGER1, _AGENT1 = "org.bluez.GattDescriptor1", "org.bluez.AgentManager1", "org.bluez.Agent1"
_DBUS = "org.freedesktop.DBus"

_CLIENT_CONFIGURATION = "00002902-0000-1000-8000-00805f9b34fb"

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/>
</policy></busconfig>"""

_LONGEST_VALUE = 512  # what a device drops silently is longer
_ADVERTISING_S = 0.02
_RESOLVING_S = 0.002

Interfaces = dict[str, dict[str, Variant]]
Result = tuple[str, list[Any], list[int]]


class Daemon:
    """A dbus-daemon. It outlives the event loops of the tests: bleak's connections end with their loop, not before."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mcumgrx-dbus-")
        folder = Path(self._folder.name)
        (folder / "bus.conf").write_text(_CONFIGURATION.format(path=folder / "bus"), encoding="utf-8")
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={folder / 'bus.conf'}", "--nofork", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    @staticmethod
    def installed() -> bool:
        return shutil.which("dbus-daemon") is not None

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()
        self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent for pairing that a program has registered."""

    name: str
    path: str
    capability: str
    default: bool = False


class BluezError(Exception):
    """Answers a call with the error `org.bluez.Error.NAME`, or with `name` as it is if it has dots."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name if "." in name else f"org.bluez.Error.{name}"


def quick(mtu: int = 247, *, reassembles: bool = True, interval_s: float = 0.0005) -> LinkModel:
    """The BLE link of the simulator, at a pace for tests in real time. BlueZ takes whatever it is given at once."""
    model = LinkModel.ble(mtu, interval_s, reassembles=reassembles)
    # Under which name it is found is what is emulated here.
    return replace(model, queue_s=float("inf"), notice_s=0.01, connect_s=0.0, by_name=False)


class Reassembly:
    """How a Zephyr server puts the writes of a message together (`CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY`).

    It goes by the length in the first write alone. What it takes for a first write need not be one: when there is no
    buffer for a message, its first write is lost, and the next is looked at as if it began another.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._missing = 0

    def drop(self) -> None:
        self.parts = []

    def collect(self, write: bytes, room: int, buffers: bool = True) -> list[bytes] | None:
        """The writes of a message, if this one completes it. `room`: of a buffer; `buffers`: whether one is free."""
        if not self.parts:
            size = HEADER_SIZE + int.from_bytes(write[2:4], "big")
            if not buffers or not HEADER_SIZE <= len(write) <= size <= room:
                return None
            self._missing = size
        self._missing -= len(write)
        if self._missing < 0:
            self.drop()
            return None
        self.parts.append(write)
        if self._missing:
            return None
        whole, self.parts = self.parts, []
        return whole


class Peripheral:
    """A simulated device as BlueZ sees it. Attributes may be changed at any time; some apply to the next link.

    Attributes:
        model: the link; next link. BlueZ does not announce that its MTU is another.
        faults: what goes wrong, message by message, over all links.
        advertising: whether it is heard, when it runs.
        names_service: whether its advertisement contains the UUID of the service.
        service, characteristic, flags: what its GATT server offers; next link. None for no such service.
        handle: where in the GATT server; another one makes the services change; next link.
        resolves: whether the services are found after connecting.
        connect_error: name and text of the error that answers Connect.
        connect_errors: the same for so many calls, one after the other, before others get `connect_error` or succeed.
        security: what it does while it is not paired: `refuse` or `hang` at subscribing, `drop` writes.
        changes_at: so many of the methods of this name find that the services have just changed; name and number.
        notify_error: name and text of the error that answers StartNotify.
        notify_errors: the same for so many calls.
        pair_error: name and text of the error that answers Pair.
        agent_needed: whether Pair fails where no program has registered an agent, as BlueZ's does.
        asks_agent: the method by which BlueZ asks the agent, when it pairs; None for not at all (Just Works).
        cut_at_write: the link is lost when this write has been taken, counted in `writes` from 1.
        full_at_writes: in these writes, counted likewise, the device has no free buffer, should they begin a message.
        lose_notifications: for these, counted from 1, the device has no memory; it gives up the rest of the answer.
        acquirable: whether BlueZ has AcquireWrite.
        busy_writes: so many calls of WriteValue are answered with InProgress.
    """

    def __init__(
        self,
        device: SimulatedDevice,
        *,
        name: str = "smp-rig",
        address: str = ADDRESS,
        model: LinkModel | None = None,
        faults: Faults | None = None,
        address_type: str = "public",
    ) -> None:
        self.device = device
        self.name = name
        self.address = address
        self.address_type = address_type
        self.model = model if model is not None else quick()
        self.faults = faults if faults is not None else Faults()
        self.advertising = True
        self.names_service = True
        self.service: str | None = SMP_SERVICE
        self.characteristic = SMP_CHARACTERISTIC
        self.flags = ["write-without-response", "notify"]
        self.handle = 0x10
        self.resolves = True
        self.connect_error: tuple[str, str] | None = None
        self.connect_errors: list[tuple[str, str]] = []
        self.security: str | None = None
        self.changes_at: tuple[str, int] = ("", 0)
        self.notify_error: tuple[str, str] | None = None
        self.notify_errors: list[tuple[str, str]] = []
        self.pair_error: tuple[str, str] | None = None
        self.agent_needed = True
        self.asks_agent: str | None = None
        self.cut_at_write: int | None = None
        self.full_at_writes: set[int] = set()
        self.lose_notifications: set[int] = set()
        self.acquirable = True
        self.busy_writes = 0
        self.writes: list[int] = []  # sizes
        self.types: set[str] = set()
        self.notifications = 0
        self.link: SimulatedTransport | None = None  # as long as there is one
        self.mtu = 0  # of the link; 0 without one
        self.subscribers: set[str] = set()  # bus names; they outlast the link, as BlueZ's do
        self.paired = False
        self.acquired: socket.socket | None = None
        self.announced: str | None = None  # path of the service object, if there is one
        self.forgetting: asyncio.TimerHandle | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.outgoing: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.reassembly = Reassembly()

    @property
    def notifying(self) -> bool:
        """Whether its answers are heard."""
        return bool(self.subscribers) and bool(self.mtu)

    @property
    def path(self) -> str:
        return f"{ADAPTER}/dev_{self.address.replace(':', '_')}"

    @property
    def service_path(self) -> str:
        return f"{self.path}/service{self.handle:04x}"

    @property
    def characteristic_path(self) -> str:
        return f"{self.announced or self.service_path}/char{self.handle + 1:04x}"


class EmulatedBluez:
    """The service, as long as it is entered; every peripheral on its one adapter.

    Attributes:
        calls: how often each method was called.
        temporary_s: how long a device that is neither connected nor paired is remembered. BlueZ: 30 s.
        disconnect_s: from Disconnect to the end of the link. BlueZ: 2 s.
        dead: name of the error that answers every call, as the bus does where nobody owns `org.bluez`; see `kill`.
        agents: bus names that have registered an agent, with its path, capability, and whether it is the default.
    """

    def __init__(self, daemon: Daemon, *peripherals: Peripheral, powered: bool = True, adapters: bool = True) -> None:
        self.peripherals = {peripheral.path: peripheral for peripheral in peripherals}
        self.calls: Counter[str] = Counter()
        self.temporary_s = 30.0
        self.disconnect_s = 0.0
        self.deny: str | None = None  # this method is answered with AccessDenied
        self.ignore: str | None = None  # this one never
        self.dead: str | None = None
        self.agents: dict[str, Agent] = {}
        self._daemon = daemon
        self._adapters = adapters
        self._objects = self._first_objects(powered)
        self._discovering: set[str | None] = set()  # who; each program once
        self._beacon: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[tuple[SimulatedDevice, Callable[[Power], None]]] = []

    def _first_objects(self, powered: bool = True) -> dict[str, Interfaces]:
        """What there is before any device is known."""
        objects: dict[str, Interfaces] = {"/org/bluez": {_AGENT_MANAGER1: {}}}
        if self._adapters:
            objects[ADAPTER] = {
                _ADAPTER1: {
                    "Address": Variant("s", "AA:AA:AA:AA:AA:AA"),
                    "Name": Variant("s", "emulated"),
                    "Alias": Variant("s", "emulated"),
                    "Class": Variant("u", 0),
                    "UUIDs": Variant("as", []),
                    "Modalias": Variant("s", "usb:v1D6Bp0246d0542"),
                    "Powered": Variant("b", powered),
                    "Discovering": Variant("b", False),
                    "Roles": Variant("as", ["central", "peripheral"]),
                }
            }
        return objects

    async def __aenter__(self) -> Self:
        await self._start()
        for peripheral in self.peripherals.values():
            runner_of(peripheral.device).advance()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peripheral in self.peripherals.values():
            self.lose(peripheral)
        await self._stop()

    async def _start(self) -> None:
        for peripheral in self.peripherals.values():
            peripheral.announced = None
            peripheral.subscribers.clear()
        self.bus = MessageBus(bus_address=self._daemon.address, negotiate_unix_fd=True)
        await self.bus.connect()
        self.bus.add_message_handler(self._receive)
        rule = f"type='signal',sender='{_DBUS}',interface='{_DBUS}',member='NameOwnerChanged'"
        await self.bus.call(
            Message(
                destination=_DBUS,
                path="/org/freedesktop/DBus",
                interface=_DBUS,
                member="AddMatch",
                signature="s",
                body=[rule],
            )
        )
        await self.bus.request_name("org.bluez")

    async def _stop(self) -> None:
        if self._beacon is not None:
            self._beacon.cancel()
        for peripheral in self.peripherals.values():
            if peripheral.forgetting is not None:
                peripheral.forgetting.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.bus.disconnect()
        with contextlib.suppress(Exception):
            await self.bus.wait_for_disconnect()

    # -- what can happen to it -----------------------------------------------------------------------------------------

    async def kill(self, error: str | None = None) -> None:
        """As `kill -9` of bluetoothd: no signal tells of it, the links end, calls that wait are answered by the bus.

        `error`: with what the bus answers other calls from now on; default: what it says where nothing would start it.
        """
        for peripheral in self.peripherals.values():
            self._cut(peripheral)
        await self._stop()
        self._objects = {}
        self._discovering.clear()
        self.agents.clear()
        self.dead = error
        if error is not None:
            await self._start()

    async def restart(self) -> None:
        """bluetoothd starts again, and knows no device: none of the peripherals is bonded on its disk."""
        if self.dead is not None:
            await self._stop()
            self.dead = None
        for peripheral in self.peripherals.values():
            peripheral.paired = False
        self._objects = self._first_objects()
        await self._start()

    def power(self, on: bool) -> None:
        """Somebody switches the adapter; off ends links and scans."""
        if not on:
            for peripheral in self.peripherals.values():
                if peripheral.connecting is not None:
                    peripheral.connecting.cancel()
                self.lose(peripheral)
            self._discovering.clear()
            if self._beacon is not None:
                self._beacon.cancel()
            self._change(ADAPTER, _ADAPTER1, Discovering=Variant("b", False))
        self._change(ADAPTER, _ADAPTER1, Powered=Variant("b", on))

    def _name_gone(self, name: str) -> None:
        """A program has ended, or a part of it: its subscriptions, scans and agents end, its links do not."""
        for peripheral in self.peripherals.values():
            self._unsubscribe(peripheral, name)
        if name in self._discovering:
            self._end_discovery(name)
        self.agents.pop(name, None)

    async def connections(self) -> int:
        """How many programs, or parts of them, are connected to the D-Bus."""
        reply = await self.bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="ListNames",
            )
        )
        assert reply is not None
        return sum(name.startswith(":") for name in reply.body[0])

    # -- the bus -------------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        if self.bus.connected:
            self.bus.send(Message.new_signal(path, interface, member, signature, body))

    def _change(self, path: str, interface: str, **values: Variant) -> None:
        self._objects[path][interface].update(values)
        self._signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, values, []])

    def _add(self, path: str, interfaces: Interfaces) -> None:
        self._objects[path] = interfaces
        self._signal("/", _MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def _remove(self, prefix: str) -> None:
        for path in sorted((path for path in self._objects if path.startswith(prefix)), reverse=True):
            self._signal("/", _MANAGER, "InterfacesRemoved", "oas", [path, list(self._objects.pop(path))])

    def _receive(self, message: Message) -> bool | None:
        if message.member == "NameOwnerChanged" and message.sender == _DBUS and not message.body[2]:
            self._name_gone(message.body[0])
        if message.message_type is not MessageType.METHOD_CALL or message.interface == "org.freedesktop.DBus.Peer":
            return None
        self.calls[str(message.member)] += 1
        self._spawn(self._answer(message))
        return True

    async def _answer(self, message: Message) -> None:
        try:
            if self.dead is not None:
                raise BluezError(self.dead, "nobody owns org.bluez")
            if message.member == self.deny:
                raise BluezError("org.freedesktop.DBus.Error.AccessDenied", "Rejected send message")
            if message.member == self.ignore:
                return
            for peripheral in self.peripherals.values():
                if message.member == peripheral.changes_at[0] and str(message.path).startswith(peripheral.path):
                    self.change_services(peripheral)
            method: Callable[[Message], Awaitable[Result | None]] | None = getattr(self, f"_on_{message.member}", None)
            if method is None or (message.path != "/" and message.path not in self._objects):
                text = f'Method "{message.member}" with signature "{message.signature}" doesn\'t exist'
                raise BluezError("org.freedesktop.DBus.Error.UnknownObject", text)
            signature, body, descriptors = await method(message) or ("", [], [])
            reply = Message.new_method_return(message, signature, body, descriptors)
        except BluezError as error:
            reply = Message.new_error(message, error.name, str(error))
        await self.bus.send(reply)
        for descriptor in reply.unix_fds:
            os.close(descriptor)

    def _of(self, message: Message) -> Peripheral:
        path = str(message.path)
        return next(one for one in self.peripherals.values() if path == one.path or path.startswith(one.path + "/"))

    # -- objects and the adapter ---------------------------------------------------------------------------------------

    async def _on_GetManagedObjects(self, message: Message) -> Result:
        return "a{oa{sa{sv}}}", [self._objects], []

    async def _on_Get(self, message: Message) -> Result:
        interface, name = message.body
        if (interface, name) == (_CHARACTERISTIC1, "MTU"):
            return "v", [Variant("q", self._of(message).mtu or 23)], []
        return "v", [self._objects[str(message.path)][interface][name]], []

    async def _on_Set(self, message: Message) -> None:
        interface, name, value = message.body
        self._change(str(message.path), interface, **{name: value})

    async def _on_SetDiscoveryFilter(self, message: Message) -> None:
        return

    def _raise_if_off(self) -> None:
        if not self._objects[ADAPTER][_ADAPTER1]["Powered"].value:
            raise BluezError("NotReady", "Resource Not Ready")

    async def _on_StartDiscovery(self, message: Message) -> None:
        self._raise_if_off()
        if message.sender in self._discovering:
            raise BluezError("InProgress", "Operation already in progress")
        self._discovering.add(message.sender)
        self._change(ADAPTER, _ADAPTER1, Discovering=Variant("b", True))
        if self._beacon is not None:
            self._beacon.cancel()
        self._beacon = asyncio.get_running_loop().call_later(_ADVERTISING_S / 4, self._advertise)

    async def _on_StopDiscovery(self, message: Message) -> None:
        if message.sender not in self._discovering:
            raise BluezError("Failed", "No discovery started")
        self._end_discovery(message.sender)

    def _end_discovery(self, name: str | None) -> None:
        self._discovering.remove(name)
        if self._discovering:
            return
        assert self._beacon is not None
        self._beacon.cancel()
        self._change(ADAPTER, _ADAPTER1, Discovering=Variant("b", False))
        for peripheral in self.peripherals.values():
            self._forget_later(peripheral)

    async def _on_RemoveDevice(self, message: Message) -> None:
        peripheral = self.peripherals[message.body[0]]
        self.lose(peripheral)
        peripheral.paired = False
        self.forget(peripheral)

    def _advertise(self) -> None:
        self._beacon = asyncio.get_running_loop().call_later(_ADVERTISING_S, self._advertise)
        for peripheral in list(self.peripherals.values()):
            running = runner_of(peripheral.device).advance() is Power.RUNNING
            if not running or peripheral.mtu or not peripheral.advertising:
                continue
            if peripheral.path in self._objects:
                name = Variant("s", peripheral.name)
                self._change(peripheral.path, _DEVICE1, RSSI=Variant("n", -42), Name=name, Alias=name)
            else:
                self._add(peripheral.path, {_DEVICE1: self._describe(peripheral)})

    def _describe(self, peripheral: Peripheral) -> dict[str, Variant]:
        uuids = [peripheral.service] if peripheral.names_service and peripheral.service else []
        flags = ("Blocked", "Bonded", "Connected", "LegacyPairing", "Paired", "ServicesResolved", "Trusted")
        return {
            "Adapter": Variant("o", ADAPTER),
            "Address": Variant("s", peripheral.address),
            "AddressType": Variant("s", peripheral.address_type),
            "Alias": Variant("s", peripheral.name),
            "Name": Variant("s", peripheral.name),
            "RSSI": Variant("n", -42),
            "UUIDs": Variant("as", uuids),
            **{name: Variant("b", False) for name in flags},
        }

    def move(self, peripheral: Peripheral, address: str) -> None:
        """The device has another address from now on."""
        self.lose(peripheral)
        self.forget(peripheral)
        del self.peripherals[peripheral.path]
        peripheral.address = address
        self.peripherals[peripheral.path] = peripheral

    def knows(self, peripheral: Peripheral) -> bool:
        return peripheral.path in self._objects

    def forget(self, peripheral: Peripheral) -> None:
        """Know nothing of it any more."""
        peripheral.announced = None
        self._remove(peripheral.path)

    def _forget_later(self, peripheral: Peripheral) -> None:
        if peripheral.forgetting is not None:
            peripheral.forgetting.cancel()

        def forget() -> None:
            if not peripheral.mtu and not peripheral.paired and not self._discovering:
                self.forget(peripheral)

        peripheral.forgetting = asyncio.get_running_loop().call_later(self.temporary_s, forget)

    # -- connections ---------------------------------------------------------------------------------------------------

    async def _on_Connect(self, message: Message) -> None:
        peripheral = self._of(message)
        self._raise_if_off()
        if peripheral.connect_errors:
            raise BluezError(*peripheral.connect_errors.pop(0))
        if peripheral.connect_error is not None:
            raise BluezError(*peripheral.connect_error)
        if peripheral.connecting is not None:
            raise BluezError("InProgress", "Operation already in progress")
        if peripheral.mtu:
            return
        # A controller goes on trying until the device advertises again, or Disconnect is called.
        connecting = peripheral.connecting = self._spawn(self._connect(peripheral))
        await asyncio.wait([connecting])
        peripheral.connecting = None
        if connecting.cancelled() or connecting.exception() is not None:
            raise BluezError("Failed", "le-connection-abort-by-local")

    async def _on_Pair(self, message: Message) -> None:
        peripheral = self._of(message)
        if peripheral.pair_error is not None:
            raise BluezError(*peripheral.pair_error)
        if not peripheral.mtu:
            await self._on_Connect(message)
        if peripheral.agent_needed:
            await self._ask_agent(peripheral, message.sender)
        peripheral.paired = True
        self._change(peripheral.path, _DEVICE1, Paired=Variant("b", True), Bonded=Variant("b", True))

    async def _ask_agent(self, peripheral: Peripheral, sender: str | None) -> None:
        """The agent of the program that pairs, or the default one, has to agree. Only Just Works is emulated."""
        refused = BluezError("AuthenticationFailed", "Authentication Failed")
        default = next((agent for agent in reversed(self.agents.values()) if agent.default), None)
        agent = self.agents.get(sender or "", default)
        if agent is None or agent.capability != "NoInputNoOutput":
            raise refused
        if peripheral.asks_agent is None:
            return
        asked = Message(
            destination=agent.name,
            path=agent.path,
            interface=_AGENT1,
            member=peripheral.asks_agent,
            signature="o",
            body=[peripheral.path],
        )
        reply = await self.bus.call(asked)
        if reply is None or reply.message_type is MessageType.ERROR:
            raise refused

    async def _on_RegisterAgent(self, message: Message) -> None:
        if message.sender in self.agents:
            raise BluezError("AlreadyExists", "Already Exists")
        path, capability = message.body
        self.agents[str(message.sender)] = Agent(str(message.sender), path, capability)

    async def _on_RequestDefaultAgent(self, message: Message) -> None:
        if message.sender not in self.agents:
            raise BluezError("DoesNotExist", "Does Not Exist")
        agent = self.agents.pop(str(message.sender))
        self.agents[agent.name] = replace(agent, default=True)

    async def _on_UnregisterAgent(self, message: Message) -> None:
        if self.agents.pop(str(message.sender), None) is None:
            raise BluezError("DoesNotExist", "Does Not Exist")

    async def _connect(self, peripheral: Peripheral) -> None:
        while not peripheral.advertising:  # noqa: ASYNC110
            await asyncio.sleep(_ADVERTISING_S)
        link = SimulatedTransport(peripheral.device, peripheral.model, faults=peripheral.faults)
        try:
            await link.open(60.0)
        except BaseException:
            await link.close()
            raise
        assert peripheral.model.write_bytes is not None
        peripheral.link = link
        peripheral.mtu = peripheral.model.write_bytes + 3
        peripheral.outgoing = asyncio.Queue()
        peripheral.reassembly.drop()
        self._change(peripheral.path, _DEVICE1, Connected=Variant("b", True))
        peripheral.tasks = [
            self._spawn(self._carry_up(peripheral, link)),
            self._spawn(self._carry_down(peripheral, link)),
            self._spawn(self._resolve(peripheral)),
        ]

    async def _resolve(self, peripheral: Peripheral) -> None:
        await asyncio.sleep(_RESOLVING_S)
        if not peripheral.resolves:
            return
        wanted = peripheral.service_path if peripheral.service is not None else None
        if peripheral.announced not in (None, wanted):
            self._remove(str(peripheral.announced))  # the services have changed
            peripheral.announced = None
        if wanted is not None and peripheral.announced is None:
            self._announce(peripheral)
        uuids = [] if peripheral.service is None else [peripheral.service]
        self._change(peripheral.path, _DEVICE1, UUIDs=Variant("as", uuids), ServicesResolved=Variant("b", True))

    def change_services(self, peripheral: Peripheral) -> None:
        """The device has them elsewhere from now on, and says so."""
        name, times = peripheral.changes_at
        peripheral.changes_at = (name, times - 1) if times > 1 else ("", 0)
        self._remove(str(peripheral.announced))
        peripheral.handle += 0x10
        peripheral.subscribers.clear()
        self._announce(peripheral)

    def _announce(self, peripheral: Peripheral) -> None:
        peripheral.announced = peripheral.service_path
        service = {
            "UUID": Variant("s", str(peripheral.service)),
            "Device": Variant("o", peripheral.path),
            "Primary": Variant("b", True),
        }
        self._add(peripheral.service_path, {_SERVICE1: service})
        characteristic = {
            "UUID": Variant("s", peripheral.characteristic),
            "Service": Variant("o", peripheral.service_path),
            "Value": Variant("ay", b""),
            "Flags": Variant("as", peripheral.flags),
            "Notifying": Variant("b", False),
            "WriteAcquired": Variant("b", False),
            "NotifyAcquired": Variant("b", False),
            "MTU": Variant("q", peripheral.mtu),  # stays as it is on the next link
        }
        self._add(peripheral.characteristic_path, {_CHARACTERISTIC1: characteristic})
        if {"notify", "indicate"} & set(peripheral.flags):
            configuration = {
                "UUID": Variant("s", _CLIENT_CONFIGURATION),
                "Characteristic": Variant("o", peripheral.characteristic_path),
                "Value": Variant("ay", b""),
            }
            where = f"{peripheral.characteristic_path}/desc{peripheral.handle + 3:04x}"
            self._add(where, {_DESCRIPTOR1: configuration})

    async def _on_Disconnect(self, message: Message) -> None:
        peripheral = self._of(message)
        if peripheral.connecting is not None:
            peripheral.connecting.cancel()
        if peripheral.mtu:
            self._spawn(self._disconnect(peripheral, peripheral.link))

    async def _disconnect(self, peripheral: Peripheral, link: SimulatedTransport | None) -> None:
        await asyncio.sleep(self.disconnect_s)
        if peripheral.link is link:
            self.lose(peripheral)

    def lose(self, peripheral: Peripheral) -> None:
        """The link has ended, as BlueZ sees it."""
        if not peripheral.mtu:
            return
        self._cut(peripheral)
        gone = Variant("b", False)
        self._change(peripheral.path, _DEVICE1, ServicesResolved=gone, Connected=gone)
        self._forget_later(peripheral)

    def _cut(self, peripheral: Peripheral) -> None:
        """The link has ended."""
        if not peripheral.mtu:
            return
        peripheral.mtu = 0
        for task in peripheral.tasks:
            task.cancel()
        link, peripheral.link = peripheral.link, None
        assert link is not None
        link.cut()
        if peripheral.acquired is not None:
            peripheral.acquired.close()
            peripheral.acquired = None

    # -- GATT ----------------------------------------------------------------------------------------------------------

    async def _on_StartNotify(self, message: Message) -> None:
        peripheral = self._of(message)
        if peripheral.notify_errors:
            raise BluezError(*peripheral.notify_errors.pop(0))
        if peripheral.notify_error is not None:
            raise BluezError(*peripheral.notify_error)
        if not peripheral.paired:
            if peripheral.security == "refuse":
                raise BluezError("NotPermitted", "Not paired")
            if peripheral.security == "hang":
                await asyncio.Event().wait()
        if peripheral.mtu:
            peripheral.subscribers.add(str(message.sender))
            self._change(peripheral.characteristic_path, _CHARACTERISTIC1, Notifying=Variant("b", True))

    async def _on_StopNotify(self, message: Message) -> None:
        self._unsubscribe(self._of(message), str(message.sender))

    def _unsubscribe(self, peripheral: Peripheral, name: str) -> None:
        """With the last one the device is unsubscribed from, and drops what it holds of a message."""
        if name not in peripheral.subscribers:
            return
        peripheral.subscribers.remove(name)
        if not peripheral.subscribers:
            peripheral.reassembly.drop()
            if peripheral.announced is not None:
                self._change(peripheral.characteristic_path, _CHARACTERISTIC1, Notifying=Variant("b", False))

    async def _on_AcquireNotify(self, message: Message) -> None:
        raise BluezError("InProgress", "In Progress")

    async def _on_AcquireWrite(self, message: Message) -> Result:
        peripheral = self._of(message)
        if not peripheral.acquirable:
            raise BluezError("NotSupported", "Operation is not supported")
        if not peripheral.mtu:
            raise BluezError("Failed", "Not connected")
        if peripheral.acquired is not None:
            if not _closed(peripheral.acquired):
                raise BluezError("NotPermitted", "Write acquired")
            peripheral.acquired.close()
        peripheral.acquired, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return "hq", [0, peripheral.mtu], [theirs.detach()]

    async def _on_WriteValue(self, message: Message) -> None:
        peripheral = self._of(message)
        data = bytes(message.body[0])
        if not peripheral.mtu:
            raise BluezError("Failed", "Not connected")
        if peripheral.busy_writes:
            peripheral.busy_writes -= 1
            raise BluezError("InProgress", "In Progress")
        if peripheral.acquired is not None and not _closed(peripheral.acquired):
            raise BluezError("NotPermitted", "Write acquired")
        if len(data) > peripheral.mtu - 3:
            raise BluezError("Failed", "Failed to initiate write")
        peripheral.writes.append(len(data))
        peripheral.types.add(message.body[1]["type"].value)
        if len(peripheral.writes) == peripheral.cut_at_write:
            self.lose(peripheral)
            return
        if len(data) <= _LONGEST_VALUE and (peripheral.paired or peripheral.security != "drop"):
            self._send(peripheral, data)

    def _send(self, peripheral: Peripheral, data: bytes) -> None:
        """Hand a write to the link; the writes of one message together, so that faults count messages."""
        buffers = len(peripheral.writes) not in peripheral.full_at_writes
        if not peripheral.model.reassembles:
            if buffers:
                peripheral.outgoing.put_nowait([data])
            return
        whole = peripheral.reassembly.collect(data, peripheral.device.config.buf_size, buffers)
        # What was put together out of step by chance is no message. A device would answer it, if at all, with a number
        # that nobody waits for; the link would look for a message in it.
        if whole is not None and split_messages(b"".join(whole), 0xFF)[1] == 0:
            peripheral.outgoing.put_nowait(whole)

    async def _carry_up(self, peripheral: Peripheral, link: SimulatedTransport) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await link.send(await peripheral.outgoing.get())
        self._noticed(peripheral, link)

    async def _carry_down(self, peripheral: Peripheral, link: SimulatedTransport) -> None:
        answers, giving_up = StreamFraming(), False
        with contextlib.suppress(LinkLost):
            while True:
                data = await link.receive()
                peripheral.notifications += 1
                giving_up |= peripheral.notifications in peripheral.lose_notifications
                if peripheral.notifying and not giving_up:
                    self._change(peripheral.characteristic_path, _CHARACTERISTIC1, Value=Variant("ay", data))
                if answers.feed(data):
                    giving_up = False
        self._noticed(peripheral, link)

    def _noticed(self, peripheral: Peripheral, link: SimulatedTransport) -> None:
        if peripheral.link is link:
            self.lose(peripheral)


def _closed(end: socket.socket) -> bool:
    """Whether the other end of a socket pair has been closed."""
    try:
        return end.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
