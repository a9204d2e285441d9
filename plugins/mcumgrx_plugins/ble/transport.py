"""`BleTransport`: SMP over the GATT characteristic of a Bluetooth LE device, through bleak.

What bleak and the systems under it do is theirs; here is what SMP makes of it: how long a write may be, when a message
has left, how a device is found again after a reset, and what an error means. Tested with bleak's BlueZ backend; what is
done for Windows and macOS follows their documentation and bleak's sources, and was never run there.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from functools import partial
from itertools import chain, repeat
from typing import NamedTuple, Self

from bleak import BleakAdapter, BleakClient
from bleak.args.bluez import BlueZAdapterArgs, BlueZClientArgs
from bleak.backends import BleakBackend
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import BaseBleakScanner
from bleak.exc import BleakError
from bleak.uuids import normalize_uuid_str

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    DeviceNotFound,
    Flow,
    Limits,
    LinkLost,
    OptionReader,
    StreamFraming,
    Transport,
    TransportError,
    UsageError,
)

from .bluez import Bluez, Turns, direct_line, leave
from .discovery import SMP_CHARACTERISTIC, SMP_SERVICE, Sighting, listening, unhurried
from .pace import Pace
from .trouble import (
    PAIRING_HINT,
    SERVICE_HINT,
    SILENCE_HINT,
    STALE_HINT,
    forgotten,
    hopeless,
    nobody,
    passing,
    stale,
    translated,
    unlinked,
    wants_pairing,
)

log = logging.getLogger("mcumgrx.ble")

# No attribute value is longer (Core Specification, vol. 3, part F, 3.2.9). BlueZ sends 513 and 514 bytes at an MTU of
# 517 without complaint, and the device drops them.
_MAX_WRITE = 512

# ATT's MTU of 23 less its header: what every link carries, and what a system says that does not know it yet.
_MIN_WRITE = 20

# Subscribing is two requests of the attribute protocol. BlueZ never answers if the device wants an encrypted link for
# it and nobody pairs.
_SUBSCRIBING_S = 8.0

# For subscribing again, which is two requests of the attribute protocol. A device that blocks its radio while it erases
# may need seconds, and may have done by the next message.
_SUBSCRIBE_S = 5.0

# BlueZ needs up to 2.7 s to disconnect, 2 s of them a timer.
_CLOSE_S = 5.0

# Unsubscribing before that, so that it shows whether others are subscribed, too.
_UNSUBSCRIBE_S = 1.0

# Between two attempts at what another program on this computer is in the way of, and for how long: while it connects
# or has its link, which a short command does not have for longer; until it has found the services and subscribes, or
# BlueZ has disconnected it (2.7 s); and while it asks for the MTU, some milliseconds.
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5)
_IN_USE_S = 5.0
_UNUSED_S = 3.0
_WRITE_REFUSED_S = 2.0

# A device seen a moment ago is connected to without a new scan; if that fails this is lost.
_DIRECT_S = 5.0

# Windows tells the MTU some time after connecting.
_LATE_MTU_S = 2.0

# bleak opens a connection to the D-Bus first, a matter of milliseconds; its socket leaks if it is cancelled in them.
_HANDSHAKE_S = 0.05

# For looking at what the system gives no event for.
_POLL_S = 0.05

# After a device of the wanted name, how long another one of the same name is listened for. Devices that can be
# connected to usually advertise every 100 to 150 ms.
_NAMESAKE_S = 0.3

# So many other devices are named where the wanted one was not seen.
_MOST_SEEN = 8

_MAC = re.compile(r"(?:[0-9A-F]{2}[:-]){5}[0-9A-F]{2}", re.IGNORECASE)
_UUID = re.compile(r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.IGNORECASE)

_FASTER = (
    "a larger MTU and longer packets (CONFIG_BT_L2CAP_TX_MTU, CONFIG_BT_CTLR_DATA_LENGTH_MAX), shorter connection "
    "intervals (CONFIG_MCUMGR_TRANSPORT_BT_CONN_PARAM_CONTROL), the 2M PHY"
)

# Among what has arrived: the device does not go on with the message before.
_NOTHING = b""

_GONE = "has gone"
_CLOSED = "was closed"
_SERVICES_CHANGED = "is of no use any more: the device offers other services now"
_SERVICE_GONE = "was lost with the Bluetooth service of this computer"

_IN_USE_HINT = "wait until that program is done, or end it; a device answers one program at a time"

_HINTS = {_GONE: "it has reset, was switched off, or is out of range", _SERVICE_GONE: SERVICE_HINT}

_SERVICE_HINT = (
    "does its firmware have CONFIG_MCUMGR_TRANSPORT_BT (before Zephyr 3.3: CONFIG_MCUMGR_SMP_BT)? "
    f"Another service can be named with the options service and characteristic. Or, {STALE_HINT}"
)


class _Fit(IntEnum):
    """How surely a device that is heard is the one that is looked for."""

    NOT = 0
    NAME = 1
    """It goes by its name."""
    LOADER = 2
    """It goes by the name of its firmware loader."""
    BESIDE = 3
    """Its address is one that another program on the same device has."""
    ADDRESS = 4
    """It has the address that was given, or where it was connected last."""


class Stack(NamedTuple):
    """Backends of bleak to use in place of the system's own; both or none."""

    client: type[BaseBleakClient] | None = None
    scanner: type[BaseBleakScanner] | None = None


class BleTransport(Transport):
    """`ble:NAME` or `ble:AA:BB:CC:DD:EE:FF`[,adapter=hci0][,pair=yes][,service=UUID][,characteristic=UUID]

    On macOS, which hides addresses, the system's UUID of the device stands in place of the address.

    * `adapter`: which of several Bluetooth adapters, on Linux.
    * `pair`: pair before anything else, unless that has been done.
    * `service`, `characteristic`: for devices that do not use the UUIDs of SMP.

    In Python `BleTransport.of` takes what a scan has found, or a client of bleak.
    """

    # A reset ends the link. The system notices after the supervision time-out: 0.42 s with Zephyr's and BlueZ's
    # defaults, several seconds where device or system ask for more. Only a device that has not reset keeps it longer.
    quiet_after_reset_s: float = 10.0
    reaches_bootloader: bool = False

    # A firmware loader goes by another name, at another address.
    by_name = True

    def __init__(
        self, address: Address, *, found: BLEDevice | BleakClient | None = None, stack: Stack | None = None
    ) -> None:
        options = OptionReader(address)
        self._adapter = options.text("adapter", "") or None
        self._pair = options.flag("pair", False)
        self._service = _uuid(options, "service", SMP_SERVICE)
        self._characteristic = _uuid(options, "characteristic", SMP_CHARACTERISTIC)
        options.finish()
        if not address.target:
            raise UsageError(f"{address} names no device", hint="for example ble:Widget or ble:C0:FF:EE:12:34:56")
        self.address = str(address)
        self._target = address.target
        self._by_address = bool(_MAC.fullmatch(self._target) or _UUID.fullmatch(self._target))
        self._stack = stack if stack is not None else Stack()
        self._given = found if isinstance(found, BleakClient) else None
        self._known = found if isinstance(found, BLEDevice) else None  # connects without a scan, perhaps
        self._seen: str | None = None  # the address of the device when it was connected last
        self._names: set[str] = set()  # that its firmware loader may have
        self._moving = False  # between two programs on it, so that it comes back at another address, perhaps
        self._elsewhere: set[str] = set()  # addresses that are not its own, but another program's on it
        self._others: dict[str, Sighting] = {}  # what scans have found in its place since it was connected last
        self._identity: str | None = None
        self._lasting = False
        self._link: _Link | None = None
        self._write_bytes = _MIN_WRITE

    @classmethod
    def of(cls, found: BLEDevice | BleakClient, options: dict[str, str] | None = None) -> Self:
        """The transport to a device that a scan of bleak has found, or that a client of bleak is made for.

        A client that is connected stays so after `close`. Of `options`, those of an address, `adapter` and `pair` have
        no meaning for a client, which was made with its own.
        """
        return cls(Address("ble", found.address, options or {}), found=found)

    @property
    def identity(self) -> str | None:
        return self._identity

    @property
    def lasting_identity(self) -> str | None:
        # A static address may be made up anew at each start (Core Specification, vol. 6, part B, 1.3.2.1).
        return self._identity if self._lasting else None

    @property
    def silence_hint(self) -> str:
        return SILENCE_HINT

    # -- opening and closing -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        await self.close()
        link = self._link = _Link(self._shown(), direct=self._stack.client is None)
        try:
            async with asyncio.timeout(timeout_s) as limit, link.turns, direct_line(link.direct) as bluez:
                if bluez is not None:
                    await bluez.refresh()
                await self._establish(link, bluez, timeout_s)
            self._others.clear()
        except TransportError:
            await unhurried(self.close())
            raise
        except Exception as error:
            await unhurried(self.close())
            late = isinstance(error, TimeoutError) and limit.expired()
            raise (self._too_late(link, timeout_s) if late else self._failed(error, timeout_s)) from error
        except BaseException:
            await unhurried(self.close())
            raise

    async def _establish(self, link: _Link, bluez: Bluez | None, timeout_s: float) -> None:
        try:
            await self._subscribed_client(link, bluez, timeout_s)
        except BleakError as error:
            if not stale(error) or self._given is not None:
                raise
            # What the system remembered of the device was from before its update; it has looked again meanwhile.
            log.debug("%s: its services have changed: %s", self.address, error)
            await link.disconnect()
            await self._subscribed_client(link, bluez, timeout_s)
        self._write_bytes = self._size(link)
        log.debug("%s takes writes of %d bytes", self.address, self._write_bytes)

    async def _subscribed_client(self, link: _Link, bluez: Bluez | None, timeout_s: float) -> None:
        client = await self._connected_client(link, bluez, timeout_s)
        link.connected()
        try:
            link.check()
            characteristic = self._find_characteristic(client)
            link.characteristic = characteristic
            with link.watched():
                await self._subscribe(link, client, characteristic)
                link.bluez_write_bytes = await self._ask_bluez(client)
                if link.bluez_write_bytes is None and characteristic.max_write_without_response_size <= _MIN_WRITE:
                    await self._late_mtu(client, characteristic)
        except LinkLost as error:
            raise ConnectFailed(
                f"{self._shown()} ended the link as soon as it was there", hint=f"it may demand pairing: {PAIRING_HINT}"
            ) from error

    async def _subscribe(self, link: _Link, client: BleakClient, characteristic: BleakGATTCharacteristic) -> None:
        link.subscribing = True
        try:
            async with asyncio.timeout(_SUBSCRIBING_S):
                for pause_s in _pauses():
                    try:
                        return await client.start_notify(characteristic, link.heard)
                    except BleakError as error:
                        if not passing(error):
                            raise
                        link.refusal = self._failed(error, 0.0)
                    await asyncio.sleep(pause_s)
        except TimeoutError as error:
            raise (link.refusal or self._not_subscribed(_SUBSCRIBING_S)) from error

    async def _connected_client(self, link: _Link, bluez: Bluez | None, timeout_s: float) -> BleakClient:
        if self._given is not None:
            try:
                return await self._connect_given(link, self._given)
            except BleakError as error:
                if not forgotten(error):
                    raise
                link.restore()
                self._given = None  # of no use any more, unlike its address
        known, self._known = self._known, None
        if known is not None:
            try:
                async with asyncio.timeout(min(_DIRECT_S, timeout_s / 2)):
                    return await self._connect(link, bluez, known)
            except (BleakError, TimeoutError) as error:
                # It may have gone, or come back under another address.
                if hopeless(error) or (wants_pairing(error) and not forgotten(error)):
                    raise
                log.debug("%s: not without a scan: %s", self.address, error)
                await link.disconnect()
        return await self._connect(link, bluez, await self._find(link, timeout_s))

    async def _connect(self, link: _Link, bluez: Bluez | None, device: BLEDevice) -> BleakClient:
        details = device.details
        link.path = details.get("path") if isinstance(details, dict) else None
        adapter: BlueZClientArgs = {} if self._adapter is None else {"adapter": self._adapter}
        client = BleakClient(
            device,
            disconnected_callback=link.gone,
            # Only this service: on Windows and macOS it saves time, and it is the one whose MTU BlueZ is asked for.
            services=[self._service],
            timeout=60.0,  # ours is shorter
            pair=self._pair and bluez is None,
            bluez=adapter,
            # What Windows remembers of a device's services may be from before its update.
            winrt={"use_cached_services": False},
            backend=self._stack.client,
        )
        if bluez is None or link.path is None:
            await unhurried(self._connect_client(link, client), _HANDSHAKE_S)
        else:
            await self._connect_in_turn(link, bluez, link.path, client)
        self._known = device
        self._seen = device.address
        self._identity = None if device.address in self._elsewhere else _identity(device)
        self._lasting = _address_type(device) == "public"
        return client

    async def _connect_in_turn(self, link: _Link, bluez: Bluez, path: str, client: BleakClient) -> None:
        """Connect the device, and pair with it, past other programs on this computer that do the same.

        Raises `ConnectFailed` if the device stays in use, and what bleak raises.
        """
        await link.turns.take(path)
        connected = False
        try:
            while True:
                connected = await self._take_turn(link, bluez, path)
                if self._pair:
                    await bluez.pair(path)
                await unhurried(self._connect_client(link, client), _HANDSHAKE_S)
                if self._characteristic not in (await bluez.use_of(path)).listened_to:
                    return
                # Another program was quicker: Connect succeeds for all, once there is a link.
                link.client, connected = None, False
                await leave(client)
        except BaseException:
            if connected and link.client is None:
                await bluez.disconnect(path)
            raise

    async def _take_turn(self, link: _Link, bluez: Bluez, path: str) -> bool:
        """Have the device connected; whether it was not before.

        A link that is there already is taken over if nobody gets the device's answers over it: BlueZ keeps that of a
        program that was killed. But one that has just connected needs a moment until it subscribes to them, and BlueZ
        needs one to disconnect.
        """
        loop = asyncio.get_running_loop()
        begin = loop.time()
        unused_since: float | None = None
        for pause_s in _pauses():
            now, use = loop.time(), await bluez.use_of(path)
            if not use.connected:
                try:
                    await bluez.connect(path)
                except BleakError as error:
                    if not passing(error):
                        raise
                    log.debug("%s: %s", self.address, error)
                    unused_since, link.refusal = None, self._failed(error, 0.0)
                else:
                    link.refusal = None
                    return True
            elif self._characteristic in use.listened_to:
                unused_since, link.refusal = None, self._in_use()
                if now - begin >= _IN_USE_S:
                    raise link.refusal
            else:
                unused_since = now if unused_since is None else unused_since
                if now - unused_since >= _UNUSED_S:
                    link.refusal = None
                    return False
            await asyncio.sleep(pause_s)
        raise AssertionError  # pauses do not end

    @staticmethod
    async def _connect_client(link: _Link, client: BleakClient) -> None:
        # Not raced against the loss of the link: bleak does that itself, and tries again where that helps. It cleans up
        # itself, too, if this fails; its `disconnect` would wait for ever for a D-Bus connection that never was.
        await client.connect()
        link.client = client

    async def _connect_given(self, link: _Link, client: BleakClient) -> BleakClient:
        backend = getattr(client, "_backend", None)
        link.borrowed = client.is_connected
        before = getattr(backend, "_disconnected_callback", None)

        def gone() -> None:
            link.gone(client)
            if before is not None:
                before()

        # There is no public way to hear of it from a client that somebody else has made.
        if backend is not None and hasattr(backend, "set_disconnected_callback"):
            backend.set_disconnected_callback(gone)
            link.restore = partial(backend.set_disconnected_callback, before)
        if link.borrowed:
            link.client = client
        else:
            await unhurried(self._connect_client(link, client), _HANDSHAKE_S)
        return client

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.end(_CLOSED)
            await link.disconnect()

    # -- finding the device --------------------------------------------------------------------------------------------

    def look_for(self, name: str) -> None:
        self._names.add(name)
        if self._seen is not None:
            self._moving = True
            self._known = self._given = None

    async def _find(self, link: _Link, timeout_s: float) -> BLEDevice:
        connected = await self._find_connected()
        if connected is not None:
            return connected
        loop = asyncio.get_running_loop()
        found: asyncio.Future[None] = loop.create_future()
        fitting: dict[str, tuple[_Fit, Sighting]] = {}
        link.scanning = True

        def listen(sighting: Sighting) -> None:
            names = {sighting.advertisement.local_name, sighting.device.name}
            fit = self._fit(sighting.device.address, names, offers_smp=sighting.offers_smp)
            if fit:
                fitting[sighting.device.address] = fit, sighting
                if not found.done():
                    found.set_result(None)
            elif sighting.name:
                self._others[sighting.device.address] = sighting

        async with listening(listen, adapter=self._adapter, backend=self._stack.scanner):
            await found
            link.scanning = False
            if max(fit for fit, _ in fitting.values()) is not _Fit.ADDRESS and (self._seen is None or self._moving):
                await asyncio.sleep(_NAMESAKE_S)
        surest = max(fit for fit, _ in fitting.values())
        chosen = {address: sighting for address, (fit, sighting) in fitting.items() if fit is surest}
        if len(chosen) > 1:
            called = self._target if surest is _Fit.NAME else " or ".join(sorted(self._names))
            raise ConnectFailed(
                f"{len(chosen)} devices are called {called}: {', '.join(chosen)}",
                hint=f"name the one by its address: {Address('ble', next(iter(chosen)))}",
            )
        ((address, sighting),) = chosen.items()
        if surest in (_Fit.LOADER, _Fit.BESIDE):
            self._elsewhere.add(address)
        return sighting.device

    async def _find_connected(self) -> BLEDevice | None:
        """The device, if this computer is connected to it already: it does not advertise then.

        BlueZ keeps the link of a program that was killed.
        """
        if self._stack.client is not None:
            return None
        bluez: BlueZAdapterArgs = {} if self._adapter is None else {"adapter": self._adapter}
        try:
            adapter = await unhurried(BleakAdapter.get(bluez=bluez))
            devices = await adapter.get_connected_devices([self._service])
        except Exception as error:  # it only saves a scan; not every system can tell
            if hopeless(error):
                raise
            log.debug("%s: what is connected cannot be told: %r", self.address, error)
            return None
        return next((device for device in devices if self._fit(device.address, {device.name}, offers_smp=True)), None)

    def _fit(self, address: str, names: set[str | None], *, offers_smp: bool) -> _Fit:
        if address == self._seen and (self._moving or not self._by_address):  # new firmware may have another name
            return _Fit.ADDRESS
        if self._by_address and address.replace("-", ":").upper() == self._target.replace("-", ":").upper():
            return _Fit.ADDRESS
        if self._moving and offers_smp and self._seen is not None and _are_beside(address, self._seen):
            return _Fit.BESIDE
        if self._names & names:
            return _Fit.LOADER
        return _Fit.NAME if not self._by_address and self._target in names else _Fit.NOT

    # -- what the link carries -----------------------------------------------------------------------------------------

    def _find_characteristic(self, client: BleakClient) -> BleakGATTCharacteristic:
        service = client.services.get_service(self._service)
        if service is None:
            raise ConnectFailed(f"{self._shown()} does not offer the SMP service", hint=_SERVICE_HINT)
        characteristic = service.get_characteristic(self._characteristic)
        if characteristic is None:
            raise ConnectFailed(f"the SMP service of {self._shown()} lacks its characteristic", hint=_SERVICE_HINT)
        properties = set(characteristic.properties)
        if not properties & {"write-without-response", "write"} or not properties & {"notify", "indicate"}:
            raise ConnectFailed(
                f"the SMP characteristic of {self._shown()} can do {', '.join(sorted(properties)) or 'nothing'}; "
                "writing and notifying are needed",
                hint=_SERVICE_HINT,
            )
        return characteristic

    async def _ask_bluez(self, client: BleakClient) -> int | None:
        """Bytes per write as BlueZ knows them now; None where it is not BlueZ, or does not tell.

        What bleak says by itself is what it was when the device was connected first: BlueZ sends no signal when the
        next link has another MTU. There is no public way to the truth.
        """
        acquire_mtu = getattr(getattr(client, "_backend", None), "_acquire_mtu", None)
        if acquire_mtu is None:
            return None
        try:
            await acquire_mtu()
            return client.mtu_size - 3
        except Exception as error:  # whatever a private method comes to raise, the public value is not much worse
            log.debug("%s: BlueZ does not tell the MTU: %r", self.address, error)
            return None

    async def _late_mtu(self, client: BleakClient, characteristic: BleakGATTCharacteristic) -> None:
        """Wait a moment for the MTU, where it is told late (Windows)."""
        if client.backend_id is BleakBackend.BLUEZ_DBUS:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + _LATE_MTU_S
        while characteristic.max_write_without_response_size <= _MIN_WRITE and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _size(self, link: _Link) -> int:
        if link.bluez_write_bytes is not None:
            size = link.bluez_write_bytes
        elif link.characteristic is not None:
            size = link.characteristic.max_write_without_response_size  # macOS: may change at any time
        else:
            size = _MIN_WRITE
        return max(_MIN_WRITE, min(size, _MAX_WRITE))

    @property
    def limits(self) -> Limits:
        if self._link is not None and not self._link.lost.done():
            self._write_bytes = self._size(self._link)
        return Limits(safe_message=self._write_bytes, write=self._write_bytes)

    @property
    def flow(self) -> Flow:
        return Flow(faster=_FASTER)

    def framing(self) -> StreamFraming:
        framing = self._opened().framing = StreamFraming()
        return framing

    def answered(self, writes: Sequence[bytes]) -> None:
        if self._link is not None:
            self._link.pace.answered(writes, asyncio.get_running_loop().time())

    def given_up(self) -> None:
        if self._link is not None:
            # Only a message in several parts leaves the device waiting for more.
            self._link.out_of_step |= self._link.pace.gave_up()

    def queued_s(self) -> float:
        return 0.0 if self._link is None else self._link.pace.queued_s(asyncio.get_running_loop().time())

    # -- sending and receiving -----------------------------------------------------------------------------------------

    async def send(self, writes: Sequence[bytes]) -> None:
        link = self._opened()
        link.check()
        if link.out_of_step:
            await self._subscribe_again(link)
        size = self._size(link)
        pieces = [piece for write in writes for piece in _cut(write, size)]
        link.pace.sending(writes, len(pieces), asyncio.get_running_loop().time())
        with link.watched():
            await self._write_all(link, pieces)

    async def _subscribe_again(self, link: _Link) -> None:
        """Have the device drop what it holds of a message, as a Zephyr server does when it is unsubscribed from.

        It may be in the middle of one: if it had no buffer for a first fragment, it has taken the next for a header,
        and will take what follows for the rest. Failing is no reason not to send: it is tried again before the next.
        """
        client, characteristic = link.client, link.characteristic
        assert client is not None
        assert characteristic is not None
        try:
            with link.watched():
                async with asyncio.timeout(_SUBSCRIBE_S):
                    await client.stop_notify(characteristic)
                    link.inbox.put_nowait(_NOTHING)
                    await client.start_notify(characteristic, link.heard)
        except LinkLost:
            raise
        except Exception as error:
            log.debug("%s: not subscribed again: %r", self.address, error)
        else:
            link.out_of_step = False
            log.debug("%s: subscribed again", self.address)

    async def _write_all(self, link: _Link, pieces: list[bytes]) -> None:
        for piece in pieces:
            await self._write(link, piece)

    async def _write(self, link: _Link, data: bytes) -> None:
        client = link.client
        assert client is not None
        assert link.characteristic is not None
        with_response = "write-without-response" not in link.characteristic.properties
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for pause_s in _pauses():
            if not with_response:
                await _until_ready(client)
            try:
                await client.write_gatt_char(link.characteristic, data, response=with_response)
                return
            except Exception as error:
                if not passing(error) or loop.time() - begin > _WRITE_REFUSED_S:
                    await self._not_written(link, client, data, error)
                    return
                log.debug("%s: written again: %s", self.address, error)
            await asyncio.sleep(pause_s)

    async def _not_written(self, link: _Link, client: BleakClient, data: bytes, error: Exception) -> None:
        """Make of `error` what it means for the link; write `data` all the same if it was only too long."""
        reason = _SERVICE_GONE if nobody(error) else _SERVICES_CHANGED if stale(error) else None
        if not client.is_connected or unlinked(error):
            reason = _GONE
        if reason is not None:  # a new link finds what there is then
            link.end(reason)
            raise link.error() from error
        link.bluez_write_bytes = await self._ask_bluez(client)
        size = self._size(link)
        if size < len(data):  # BlueZ sends nothing of what is too long
            await self._write_all(link, _cut(data, size))
            return
        link.out_of_step = True  # perhaps the device has got other parts of this message
        refused = passing(error)
        raise TransportError(
            f"{self._shown()} does not take a write: {error}",
            hint=PAIRING_HINT if wants_pairing(error) else _IN_USE_HINT if refused else "connect again",
        ) from error

    async def receive(self) -> bytes:
        link = self._opened()
        while True:
            if link.inbox.empty():
                link.check()
            data = await link.inbox.get()
            if data:
                return data
            if link.framing is not None:
                link.framing.reset()

    def _opened(self) -> _Link:
        if self._link is None:
            raise LinkLost(f"{self._shown()} is not connected")
        return self._link

    # -- errors --------------------------------------------------------------------------------------------------------

    def _shown(self) -> str:
        return f"the device {self._target}"

    def _failed(self, error: Exception, timeout_s: float) -> ConnectFailed | DeviceNotFound:
        return translated(error, self._shown(), timeout_s=timeout_s)

    def _too_late(self, link: _Link, timeout_s: float) -> TransportError:
        if link.scanning:
            return self._not_seen(timeout_s)
        if link.refusal is not None:
            return link.refusal
        if link.subscribing:
            return self._not_subscribed(timeout_s)
        return self._failed(TimeoutError(), timeout_s)

    def _not_seen(self, timeout_s: float) -> DeviceNotFound:
        hint = "is it switched on, near, and advertising? A device that is connected, to a phone perhaps, is not"
        if self._others:
            # Those first that may be it, after its firmware has given it another name and address.
            seen = sorted(self._others.values(), key=lambda one: (not one.offers_smp, one.name))
            hint += f". These were seen: {', '.join(map(_introduced, seen[:_MOST_SEEN]))}"
            if len(seen) > _MOST_SEEN:
                hint += f" and {len(seen) - _MOST_SEEN} more"
        loader = f" nor its firmware loader {' or '.join(sorted(self._names))}" if self._moving else ""
        text = f"{self._shown()} was not seen{loader} in {timeout_s:.3g} s"
        return DeviceNotFound(text, hint=hint)

    def _not_subscribed(self, timeout_s: float) -> ConnectFailed:
        return ConnectFailed(
            f"{self._shown()} did not let its answers be subscribed to within {timeout_s:.3g} s",
            hint=f"it may demand pairing: {PAIRING_HINT}",
        )

    def _in_use(self) -> ConnectFailed:
        return ConnectFailed(f"{self._shown()} is in use by another program on this computer", hint=_IN_USE_HINT)


class _Link:
    """One opening: the client of bleak, what has arrived, and the end."""

    def __init__(self, shown: str, *, direct: bool) -> None:
        self.direct = direct  # over the system's own stack, which can be asked
        self.path: str | None = None  # of the device, as BlueZ knows it
        self.turns = Turns()  # devices that nobody else in this program connects meanwhile
        self.refusal: ConnectFailed | DeviceNotFound | None = None  # what is in the way, until now
        self.client: BleakClient | None = None
        self.characteristic: BleakGATTCharacteristic | None = None
        self.bluez_write_bytes: int | None = None
        self.borrowed = False  # somebody else connected the client, and will disconnect it
        self.restore: Callable[[], None] = lambda: None  # gives a client its own callback back
        self.scanning = False  # looking for the device, which has not been seen yet
        self.subscribing = False
        self.out_of_step = False  # the device may wait for the rest of a message that will not come
        self.pace = Pace()
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.framing: StreamFraming | None = None  # reads what comes out of it, once there is one
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watched: asyncio.Task[object] | None = None  # what the end of the link interrupts
        self._interrupted = False
        self._shown = shown
        self._established = False

    def connected(self) -> None:
        """bleak has connected; from now on the end of the connection is the end of the link."""
        self._established = True
        if self.client is None or not self.client.is_connected:
            self.end(_GONE)

    def gone(self, client: BleakClient) -> None:
        """Called by bleak when the connection has ended."""
        if self._established and client is self.client:
            self.end(_GONE)

    def heard(self, _: BleakGATTCharacteristic, data: bytearray) -> None:
        """Called by bleak with each notification."""
        if data and not self.lost.done():
            self.inbox.put_nowait(bytes(data))

    def end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
            self.inbox.put_nowait(_NOTHING)
            if self._watched not in (None, asyncio.current_task()):
                self._interrupted = self._watched.cancel()

    def check(self) -> None:
        """Raises `LinkLost` when the link has ended."""
        if self.lost.done():
            raise self.error()

    def error(self) -> LinkLost:
        reason = self.lost.result()
        return LinkLost(f"the link to {self._shown} {reason}", hint=_HINTS.get(reason))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What is awaited inside is given up when the link ends: bleak wakes nobody then. Raises `LinkLost`.

        By cancelling the task that waits, as `asyncio.timeout` does. A task of its own for each message took 30 us,
        a third of the time that bleak and the D-Bus library need for a write.
        """
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        self.check()
        self._watched = task
        try:
            yield
        except asyncio.CancelledError:
            if not self._interrupted or task.uncancel() > before:
                raise
        finally:
            self._watched = None
        self.check()

    async def disconnect(self) -> None:
        """Give back what connecting took; never raises. Needed after a loss, too: bleak keeps its D-Bus connection."""
        client, self.client = self.client, None
        if client is None:
            self.restore()
            return
        try:
            async with asyncio.timeout(_CLOSE_S):
                if not self.borrowed or not client.is_connected:
                    await self._part(client)
                elif self.characteristic is not None:
                    await client.stop_notify(self.characteristic)
        except Exception as error:
            log.debug("%s: disconnecting failed: %r", self._shown, error)
        self.restore()

    async def _part(self, client: BleakClient) -> None:
        """End the link, unless other programs have come to use it: BlueZ would end it for all."""
        if client.is_connected and self.direct and self.path is not None:
            if self.subscribing and self.characteristic is not None:
                with suppress(BleakError, TimeoutError):
                    async with asyncio.timeout(_UNSUBSCRIBE_S):
                        await client.stop_notify(self.characteristic)
            async with direct_line() as bluez:
                others = bluez is not None and bool((await bluez.use_of(self.path)).listened_to)
            if others and await leave(client):
                log.info("%s: another program uses the device, too; its link is left as it is", self._shown)
                return
        await client.disconnect()


def _pauses() -> Iterator[float]:
    """How long to wait before the next attempt, for ever."""
    return chain(_PAUSES_S, repeat(_PAUSES_S[-1]))


def _introduced(sighting: Sighting) -> str:
    smp = ", offers SMP" if sighting.offers_smp else ""
    return f"{sighting.name} ({sighting.device.address}{smp})"


async def _until_ready(client: BleakClient) -> None:
    """Wait until the system takes a write without response, where it drops what comes too early (macOS)."""
    peripheral = getattr(getattr(client, "_backend", None), "_peripheral", None)
    ready = getattr(peripheral, "canSendWriteWithoutResponse", None)
    if ready is None:
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.0
    while not ready() and loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _uuid(options: OptionReader, key: str, default: str) -> str:
    text = options.text(key, default)
    try:
        return normalize_uuid_str(text.lower().removeprefix("0x"))
    except ValueError:
        raise UsageError(
            f"the option {key}={text!r} of ble: is not a UUID", hint=f"write it in full, as {default}"
        ) from None


def _are_beside(address: str, other: str) -> bool:
    """Whether an application and its firmware loader have these addresses, which differ in the lowest bit alone.

    Of a static random address, as sdk-nrf-bm makes it (`ble_change_address`): a public one may be another device's.
    """
    if not (_MAC.fullmatch(address) and _MAC.fullmatch(other)) or other[:2].upper() < "C0":
        return False
    one, two = (int(text.replace(":", "").replace("-", ""), 16) for text in (address, other))
    return one ^ two == 1


def _address_type(device: BLEDevice) -> object:
    """What BlueZ, and nobody else, tells of the address."""
    details = device.details
    properties = details.get("props") if isinstance(details, dict) else None
    return properties.get("AddressType") if isinstance(properties, dict) else None


def _identity(device: BLEDevice) -> str | None:
    """The address, if it is this device's for ever, or nearly so: a public or static one."""
    kind = _address_type(device)
    # A static address has its two upper bits set, a private one has not (Core Specification, vol. 6, part B, 1.3.2).
    static = kind == "random" and device.address[:2].upper() >= "C0"
    return device.address.upper() if kind == "public" or static else None
