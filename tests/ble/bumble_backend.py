"""Bluetooth LE without a radio, and without BlueZ: backends of bleak on Bumble, and peripherals with simulated devices.

Hosts are Bumble's, controllers are its virtual ones, and what lies between them is `Radio`, which keeps to connection
intervals in real time. Of each link the central, hence bleak, has the one end, and a `Peripheral` the other.

Bumble's virtual controller differs from real ones in what `Controller` and `Radio` mend: it completes packets at once,
it delivers from the random address what was sent from the public one, it has packets of 27 bytes, and what it is told
to connect to it never gives up. Bumble's hosts count on an HCI command not being cancelled: see `_whole`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import bumble.controller
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError
from bleak.uuids import normalize_uuid_str
from bumble import hci
from bumble.core import UUID, AdvertisingData, ConnectionError, PhysicalTransport
from bumble.device import Advertisement, Connection, Device, DeviceConfiguration, Peer
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.host import Host
from bumble.link import LocalLink
from bumble.transport.common import AsyncPipeSink

from mcumgrx.errors import ConnectFailed, LinkLost
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC, SMP_SERVICE
from mcumgrx_plugins.ble.transport import Stack

ADDRESS = "00:11:22:33:44:55"

T = TypeVar("T")

_MTU = 517  # what the central asks for, as BlueZ does
_LL_OCTETS = 251  # of a packet on the air, with data length extension
_ADVERTISING_MS = 20.0
_SUPERVISION_S = 0.02  # until a device that has reset is missed; real ones take 0.42 s and more
_RUNNING_S = 60.0


def _address(text: str) -> hci.Address:
    return hci.Address(text, hci.Address.PUBLIC_DEVICE_ADDRESS)


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is not cancelled with its caller.

    A host that does not wait for the answer to a command takes it for that to the next one, and `asyncio.wait_for`,
    with which it waits, loses a cancellation in Python 3.11.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()


async def _first(*works: Coroutine[Any, Any, Any]) -> None:
    """Until one of them has ended, which ends the others. Raises what one of them raises."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()


# -- the air ----------------------------------------------------------------------------------------------------------


class Radio(LocalLink):
    """What all controllers share.

    Attributes:
        interval_s: of connections. Real ones have 0.0075 s and more.
        intervals: those of single peripherals, by address.
        packets: so many are exchanged in each connection event, in each direction.
    """

    def __init__(self, interval_s: float = 0.0005, packets: int = 4) -> None:
        super().__init__()
        self.interval_s = interval_s
        self.intervals: dict[hci.Address, float] = {}
        self.packets = packets

    def interval_of(self, connection: bumble.controller.Connection) -> float:
        central = connection.role == hci.Role.CENTRAL
        peripheral = connection.peer_address if central else connection.self_address
        return self.intervals.get(peripheral, self.interval_s)

    def send_acl_data(
        self,
        sender_controller: bumble.controller.Controller,
        destination_address: hci.Address,
        transport: PhysicalTransport,
        data: bytes,
    ) -> None:
        receiver = self.find_le_controller(destination_address)
        sender = sender_controller.le_connections.get(destination_address)
        if receiver is not None and sender is not None:
            asyncio.get_running_loop().call_soon(receiver.on_link_acl_data, sender.self_address, transport, data)


class _Backlog:
    """The packets of one connection that its controller has not sent yet."""

    def __init__(self, connection: bumble.controller.Connection) -> None:
        self.connection = connection
        self.packets: deque[hci.HCI_AclDataPacket] = deque()


class Controller(bumble.controller.Controller):
    """A controller that sends when there is a connection event, and gives its host credit then."""

    le_acl_data_packet_length = _LL_OCTETS
    supported_max_tx_octets = supported_max_rx_octets = suggested_max_tx_octets = _LL_OCTETS
    # Privacy is claimed, but its connection event is never sent.
    le_features = bumble.controller.Controller.le_features & ~hci.LeFeatureMask.LL_PRIVACY

    def __init__(self, radio: Radio, address: str, **more: Any) -> None:
        super().__init__(address, link=radio, public_address=_address(address), **more)
        self._radio = radio
        self._backlogs: dict[int, _Backlog] = {}  # by handle, which later connections use again

    def on_hci_acl_data_packet(self, packet: hci.HCI_AclDataPacket) -> None:
        connection = self.find_le_connection_by_handle(packet.connection_handle)
        if connection is None:
            return
        backlog = self._backlogs.get(connection.handle)
        if backlog is None or backlog.connection is not connection:
            backlog = self._backlogs[connection.handle] = _Backlog(connection)
        backlog.packets.append(packet)
        if len(backlog.packets) == 1:
            self._plan(backlog)

    def _plan(self, backlog: _Backlog) -> None:
        """Connection events are at whole multiples of the interval."""
        loop, interval_s = asyncio.get_running_loop(), self._radio.interval_of(backlog.connection)
        event = (loop.time() + 1e-9) // interval_s + 1  # virtual time is exactly that of the last one
        loop.call_at(event * interval_s, self._event, backlog)

    def _event(self, backlog: _Backlog) -> None:
        connection, packets = backlog.connection, backlog.packets
        if self.find_le_connection_by_handle(connection.handle) is not connection:
            return
        count = min(len(packets), self._radio.packets)
        for _ in range(count):
            connection.assembler.feed_packet(packets.popleft())
        self.send_hci_packet(
            hci.HCI_Number_Of_Completed_Packets_Event(
                connection_handles=[connection.handle], num_completed_packets=[count]
            )
        )
        if packets:
            self._plan(backlog)

    def on_hci_le_create_connection_cancel_command(
        self, command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
                connection_handle=0,
                role=hci.Role.CENTRAL,
                peer_address_type=pending.peer_address.address_type,
                peer_address=pending.peer_address,
                connection_interval=0,
                peripheral_latency=0,
                supervision_timeout=0,
                central_clock_accuracy=0,
            )
        )
        return super().on_hci_le_create_connection_cancel_command(command)


def _host(controller: Controller) -> Host:
    return Host(controller, AsyncPipeSink(controller))


# -- bleak's end ------------------------------------------------------------------------------------------------------


class Central:
    """The Bluetooth adapter of a program, whose `stack` is what bleak takes for a system's.

    Attributes:
        scans, connects: how often each was begun.
    """

    def __init__(self, host: Host) -> None:
        self.device = Device(config=DeviceConfiguration(name="central"), host=host)
        self.connecting = asyncio.Lock()  # a controller connects to one device at a time
        self.scans = 0
        self.connects = 0
        # bleak makes the objects itself, so they find their adapter in their class.
        client = type("BumbleClient", (_Client,), {"central": self})
        scanner = type("BumbleScanner", (_Scanner,), {"central": self})
        self.stack = Stack(client, scanner)

    @classmethod
    @asynccontextmanager
    async def on(cls, host: Host) -> AsyncIterator[Central]:
        """An adapter over any HCI, that of a controller in another process for example."""
        central = cls(host)
        await central.device.power_on()
        try:
            yield central
        finally:
            for connection in list(central.device.connections.values()):
                await connection.disconnect()

    @classmethod
    @asynccontextmanager
    async def in_range_of(
        cls, radio: Radio, *peripherals: Peripheral, address: str = "AA:AA:AA:AA:AA:AA"
    ) -> AsyncIterator[Central]:
        """An adapter and its peripherals, all of them in this process."""
        async with contextlib.AsyncExitStack() as stack:
            for peripheral in peripherals:
                await stack.enter_async_context(peripheral.on_air(radio))
            yield await stack.enter_async_context(cls.on(_host(Controller(radio, address))))


def _fits(data: bytes, mtu: int) -> None:
    # Bumble would send it, and no peripheral could take it.
    if len(data) > mtu - 3:
        raise BleakError(f"a write of {len(data)} bytes does not fit an MTU of {mtu}")


class _Client(BaseBleakClient):
    central: ClassVar[Central]

    def __init__(self, address_or_ble_device: BLEDevice | str, **more: Any) -> None:
        super().__init__(
            address_or_ble_device,
            disconnected_callback=more["disconnected_callback"],
            timeout=more["timeout"],
        )
        self._device = address_or_ble_device if isinstance(address_or_ble_device, BLEDevice) else None
        self._wanted: set[str] | None = more.get("services")
        self._connection: Connection | None = None
        self._peer: Peer | None = None

    @property
    def name(self) -> str:
        return (self._device and self._device.name) or self.address.replace(":", "-")

    @property
    def mtu_size(self) -> int:
        return self._open().att_mtu

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def _open(self) -> Connection:
        if self._connection is None:
            raise BleakError("Not connected")
        return self._connection

    async def connect(self, pair: bool, **more: Any) -> None:
        if pair:
            raise BleakError("pairing was not tried with Bumble")
        async with self.central.connecting:
            self.central.connects += 1
            connection = await self._establish()
        self._connection, self._peer = connection, Peer(connection)
        connection.on(Connection.EVENT_DISCONNECTION, self._gone)
        try:
            await self._ask(self._peer.request_mtu(_MTU))
            self.services = await self._ask(self._discover(self._peer))
        except BaseException:
            await self.disconnect()
            raise

    async def _establish(self) -> Connection:
        device = self.central.device
        address = _address(self.address) if self._device is None else self._device.details
        connecting = asyncio.ensure_future(
            device.connect(address, own_address_type=hci.OwnAddressType.PUBLIC, timeout=None)
        )
        try:
            await asyncio.wait([connecting], timeout=self._timeout)
        finally:
            if not connecting.done():
                await _whole(self._give_up(connecting))
        if connecting.cancelled():
            raise TimeoutError
        return connecting.result()

    async def _give_up(self, connecting: asyncio.Task[Connection]) -> None:
        with contextlib.suppress(hci.HCI_Error):  # it has just come through
            await self.central.device.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command())
        try:
            connection = await connecting
        except ConnectionError:
            return
        await connection.disconnect()

    async def _discover(self, peer: Peer) -> BleakGATTServiceCollection:
        found = BleakGATTServiceCollection()
        for service in await peer.discover_services():
            uuid = _text(service.uuid)
            if self._wanted is not None and uuid not in self._wanted:
                continue
            ours = BleakGATTService(service, service.handle, uuid)
            found.add_service(ours)
            for characteristic in await peer.discover_characteristics(service=service):
                theirs = BleakGATTCharacteristic(
                    characteristic,
                    characteristic.handle,
                    _text(characteristic.uuid),
                    [bit.name.lower().replace("_", "-") for bit in characteristic.properties],  # type: ignore[union-attr,misc]
                    lambda: self.mtu_size - 3,
                    ours,
                )
                found.add_characteristic(theirs)
                for descriptor in await peer.discover_descriptors(characteristic):
                    handle, kind = descriptor.handle, _text(descriptor.type)
                    found.add_descriptor(BleakGATTDescriptor(descriptor, handle, kind, theirs))
        return found

    def _gone(self, _: int) -> None:
        self._connection = self._peer = self.services = None
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which Bumble cancels when the link ends, though its caller was not."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        if task.cancelled():
            raise BleakError("Not connected")
        return task.result()

    async def disconnect(self) -> None:
        if self._connection is not None:
            await _whole(self._connection.disconnect())

    async def pair(self, *arguments: Any, **more: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError

    async def read_gatt_char(self, characteristic: BleakGATTCharacteristic, **more: Any) -> bytearray:
        self._open()
        return bytearray(await self._ask(characteristic.obj.read_value()))

    async def read_gatt_descriptor(self, descriptor: BleakGATTDescriptor, **more: Any) -> bytearray:
        self._open()
        return bytearray(await self._ask(descriptor.obj.read_value()))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: Any, response: bool) -> None:
        _fits(data, self.mtu_size)
        writing = characteristic.obj.write_value(bytes(data), with_response=response)
        # A write command is queued, and nothing is waited for.
        await (self._ask(writing) if response else writing)

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: Any) -> None:
        _fits(data, self.mtu_size)
        await self._ask(descriptor.obj.write_value(bytes(data), with_response=True))

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **more: Any
    ) -> None:
        self._open()
        await self._ask(characteristic.obj.subscribe(lambda data: callback(bytearray(data))))

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        self._open()
        await self._ask(characteristic.obj.unsubscribe())


def _text(uuid: UUID) -> str:
    return normalize_uuid_str(uuid.to_hex_str("-"))


class _Scanner(BaseBleakScanner):
    central: ClassVar[Central]

    def __init__(self, detection_callback: Any, service_uuids: list[str] | None, *_: Any, **more: Any) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        if self.central.device.is_scanning:
            raise BleakError("Operation already in progress")  # as BlueZ says
        self.seen_devices = {}
        self.central.scans += 1
        self.central.device.on(Device.EVENT_ADVERTISEMENT, self._heard)
        await _whole(self.central.device.start_scanning(own_address_type=hci.OwnAddressType.PUBLIC))

    async def stop(self) -> None:
        self.central.device.remove_listener(Device.EVENT_ADVERTISEMENT, self._heard)
        await _whole(self.central.device.stop_scanning())

    def _heard(self, heard: Advertisement) -> None:
        name = heard.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME)
        listed = heard.data.get(AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS) or []
        uuids = [_text(uuid) for uuid in listed]
        if not self.is_allowed_uuid(uuids):
            return
        address = heard.address.to_string(with_type_qualifier=False)
        advertisement = AdvertisementData(name, {}, {}, uuids, None, heard.rssi, (heard,))
        device = self.create_or_update_device(address, address, name, heard.address, advertisement)
        self.call_detection_callbacks(device, advertisement)


# -- the device's end -------------------------------------------------------------------------------------------------


class Peripheral:
    """A simulated device with a GATT server. Attributes may be changed at any time; some apply to the next link.

    Attributes:
        mtu: the largest that it agrees to; next link.
        reassembles: whether it puts several writes together; next link.
        faults: what goes wrong, message by message, over all links.
        names_service: whether its advertisement contains the UUID of the service; next link.
        cut_at_write: the link is lost when this write has been taken, counted in `writes` from 1.
    """

    def __init__(
        self,
        device: SimulatedDevice,
        *,
        name: str = "smp-rig",
        address: str = ADDRESS,
        mtu: int = 247,
        reassembles: bool = True,
        faults: Faults | None = None,
    ) -> None:
        self.device = device
        self.name = name
        self.address = address
        self.mtu = mtu
        self.reassembles = reassembles
        self.faults = faults if faults is not None else Faults()
        self.names_service = True
        self.cut_at_write: int | None = None
        self.writes: list[int] = []  # sizes
        self._partial: list[bytes] = []
        self._framing = StreamFraming(ops=0xFF)
        self._outgoing: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._link: SimulatedTransport | None = None
        value: CharacteristicValue[bytes] = CharacteristicValue(write=self._written)
        self._characteristic: Characteristic[bytes] = Characteristic(
            SMP_CHARACTERISTIC,
            Characteristic.Properties.WRITE_WITHOUT_RESPONSE | Characteristic.Properties.NOTIFY,
            Characteristic.WRITEABLE,
            value,
        )

    @asynccontextmanager
    async def on_air(self, radio: Radio) -> AsyncIterator[None]:
        """Switched on as long as it is entered; whether it advertises is a matter of the device."""
        controller = Controller(radio, self.address)
        host = Device(config=DeviceConfiguration(name=self.name), host=_host(controller))
        host.add_service(Service(SMP_SERVICE, [self._characteristic]))
        await host.power_on()
        off = asyncio.Event()
        task = asyncio.ensure_future(self._live(host, off))
        try:
            yield
        finally:
            off.set()
            await task
            radio.remove_controller(controller)

    def lose(self) -> None:
        """End the link, if there is one."""
        if self._link is not None:
            self._link.cut()

    def _advertisement(self) -> bytes:
        parts: list[tuple[int, bytes]] = [
            (AdvertisingData.Type.FLAGS, bytes([0x06])),
            (AdvertisingData.Type.COMPLETE_LOCAL_NAME, self.name.encode()),
        ]
        if self.names_service:
            uuid = bytes(UUID(SMP_SERVICE))
            parts.append((AdvertisingData.Type.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, uuid))
        data = bytes(AdvertisingData(parts))
        assert len(data) <= 31, f"{self.name} does not fit an advertisement"
        return data

    async def _live(self, host: Device, off: asyncio.Event) -> None:
        while not off.is_set():
            model = replace(
                LinkModel.ble(self.mtu, reassembles=self.reassembles),
                latency_s=0.0,  # the radio's business
                bytes_per_s=None,
                connect_s=0.0,
                notice_s=_SUPERVISION_S,
            )
            link = SimulatedTransport(self.device, model, faults=self.faults)
            try:
                await _first(link.open(_RUNNING_S), off.wait())
            except ConnectFailed:
                continue  # its application has crashed, or is slow to start
            if not off.is_set():
                await self._serve(host, link, off)
            self._link = None
            await link.close()

    async def _serve(self, host: Device, link: SimulatedTransport, off: asyncio.Event) -> None:
        """Advertise, and then carry messages until the connection or the device ends."""
        host.gatt_server.max_mtu = self.mtu
        self._partial, self._framing, self._outgoing = [], StreamFraming(ops=0xFF), asyncio.Queue()
        connected: list[Connection] = []
        ended = asyncio.Event()

        def connect(connection: Connection) -> None:
            connected.append(connection)
            connection.once(Connection.EVENT_DISCONNECTION, lambda _: ended.set())
            self._link = link

        host.on(Device.EVENT_CONNECTION, connect)
        await host.start_advertising(
            own_address_type=hci.OwnAddressType.PUBLIC,
            advertising_data=self._advertisement(),
            advertising_interval_min=_ADVERTISING_MS,
            advertising_interval_max=_ADVERTISING_MS,
        )
        await _first(self._carry_down(host, link, connected), self._carry_up(link), ended.wait(), off.wait())
        await host.stop_advertising()
        host.remove_listener(Device.EVENT_CONNECTION, connect)
        if connected and not ended.is_set():
            await connected[0].disconnect(hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)

    def _written(self, _: object, data: bytes) -> None:
        self.writes.append(len(data))
        if len(self.writes) == self.cut_at_write:
            self.lose()
            return
        # The writes of one message together, so that faults count messages.
        if not self.reassembles:
            self._outgoing.put_nowait([data])
            return
        self._partial.append(data)
        if self._framing.feed(data):
            self._outgoing.put_nowait(self._partial)
            self._partial = []

    async def _carry_up(self, link: SimulatedTransport) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await link.send(await self._outgoing.get())

    async def _carry_down(self, host: Device, link: SimulatedTransport, connected: list[Connection]) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                data = await link.receive()
                await host.notify_subscriber(connected[0], self._characteristic, data)
