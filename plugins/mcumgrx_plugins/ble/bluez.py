"""BlueZ, asked directly: what bleak has no way for, and what it goes on believing of a service that has died.

On other systems, and with other backends of bleak, there is nothing to ask: `direct_line` gives None. Questions do not
fail: what BlueZ does not tell is not known, and bleak runs into the reason by itself.

Connecting and pairing are done from here, too. If bleak's own attempt is refused, because another program is connecting
to the same device, it calls Disconnect, which ends the other's attempt or link.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from bleak import BleakClient
from bleak.exc import BleakDBusError

from .discovery import unhurried

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

log = logging.getLogger("mcumgrx.ble")

_BLUEZ = "org.bluez"
_DEVICE = "org.bluez.Device1"
_CHARACTERISTIC = "org.bluez.GattCharacteristic1"
_AGENTS = "org.bluez.AgentManager1"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_DBUS = "org.freedesktop.DBus"

_AGENT_PATH = "/org/mcumgrx/agent"

# Each of these calls is answered by BlueZ at once, or not at all.
_PATIENCE_S = 1.0

# Who connects to which device, in each event loop.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Lock]] = WeakKeyDictionary()

# Which program was BlueZ, when bleak learnt from it what it knows in an event loop.
_known: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Use:
    """How a device is in use on this computer.

    Attributes:
        connected: there is a link to it.
        listened_to: UUIDs of the characteristics that some program is subscribed to, or writes to through a socket.
    """

    connected: bool = False
    listened_to: frozenset[str] = frozenset()


@asynccontextmanager
async def direct_line(wanted: bool = True) -> AsyncIterator[Bluez | None]:
    """A connection to the system's D-Bus for some questions to BlueZ; None where there is none."""
    bus = await _connect() if wanted and sys.platform == "linux" else None
    if bus is None:
        yield None
        return
    try:
        yield Bluez(bus)
    finally:
        bus.disconnect()
        with suppress(Exception):
            await unhurried(bus.wait_for_disconnect(), _PATIENCE_S)  # type: ignore[no-untyped-call]


async def _connect() -> MessageBus | None:
    from bleak.backends.bluezdbus.utils import get_dbus_authenticator
    from dbus_fast import BusType
    from dbus_fast.aio import MessageBus

    bus: MessageBus | None = None
    try:
        bus = MessageBus(bus_type=BusType.SYSTEM, auth=get_dbus_authenticator())
        async with asyncio.timeout(_PATIENCE_S):
            await unhurried(bus.connect(), _PATIENCE_S)
    except BaseException as error:
        if bus is not None:
            bus.disconnect()  # its socket is open even so
        if not isinstance(error, Exception):
            raise
        log.debug("no D-Bus: %r", error)
        return None
    return bus


class Bluez:
    """See `direct_line`."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus

    # -- what bleak believes -------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Have bleak forget what it was told by a BlueZ that has died since.

        A service that is killed takes back nothing: its devices would stay connected for ever, and none be connected
        to. bleak begins anew when its connection to the D-Bus has ended.
        """
        loop = asyncio.get_running_loop()
        reply = await self._call("/org/freedesktop/DBus", _DBUS, "GetNameOwner", "s", _BLUEZ)
        owner = None if reply is None else str(reply[0])
        before = _known.pop(loop, None)
        if owner is not None:
            _known[loop] = owner
        if before in (None, owner):
            return
        log.debug("another BlueZ than before, or none: %s, %s", before, owner)
        from bleak.backends.bluezdbus import manager as bleaks

        manager = getattr(bleaks, "_global_instances", {}).get(loop)
        bus = getattr(manager, "_bus", None)
        if bus is not None and bus.connected:
            bus.disconnect()

    # -- who uses a device ---------------------------------------------------------------------------------------------

    async def use_of(self, path: str) -> Use:
        """How the device at this path is in use."""
        reply = await self._call("/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        if reply is None:
            return Use()
        connected = False
        listened_to: set[str] = set()
        for where, interfaces in reply[0].items():
            if where == path:
                connected = _told(interfaces, _DEVICE, "Connected") is True
            elif where.startswith(f"{path}/") and _CHARACTERISTIC in interfaces:
                flags = ("Notifying", "NotifyAcquired", "WriteAcquired")
                if any(_told(interfaces, _CHARACTERISTIC, flag) is True for flag in flags):
                    listened_to.add(str(_told(interfaces, _CHARACTERISTIC, "UUID")).lower())
        return Use(connected, frozenset(listened_to))

    async def connect(self, path: str) -> None:
        """Connect to the device at this path. Raises `BleakDBusError`, having touched no attempt of somebody else's."""
        try:
            await self._ask(path, _DEVICE, "Connect")
        except asyncio.CancelledError:  # BlueZ would go on trying
            await unhurried(self._call(path, _DEVICE, "Disconnect"), _PATIENCE_S)
            raise
        await self._heard_by_bleak(path)

    async def disconnect(self, path: str) -> None:
        """Take `connect` back, unless others have come to use the link. Who is cancelled meanwhile waits for it."""
        await unhurried(self._disconnect(path), 2 * _PATIENCE_S)

    async def _disconnect(self, path: str) -> None:
        if not (await self.use_of(path)).listened_to:
            await self._call(path, _DEVICE, "Disconnect")

    async def _heard_by_bleak(self, path: str) -> None:
        """Wait until bleak, too, knows that it is connected, and so does not connect itself."""
        from bleak.backends.bluezdbus.manager import get_global_bluez_manager

        manager = await get_global_bluez_manager()
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE_S
        while not manager.is_connected(path) and loop.time() < end:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)

    # -- pairing -------------------------------------------------------------------------------------------------------

    async def pair(self, path: str) -> None:
        """Pair with the device at this path, unless that has been done. Raises `BleakDBusError`.

        It is trusted afterwards, so that it may connect again; if pairing fails, no more than it was before.
        """
        if await self._told_of(path, "Paired") is True:
            return
        trusted = await self._told_of(path, "Trusted")
        async with self._agent(path):
            await self._trust(path, True)
            try:
                await self._ask(path, _DEVICE, "Pair")
            except BaseException:
                if trusted is False:
                    await unhurried(self._trust(path, False), _PATIENCE_S)
                raise

    @asynccontextmanager
    async def _agent(self, path: str) -> AsyncIterator[None]:
        """Meanwhile, answer what BlueZ asks to pair with the device at this path.

        Without an agent BlueZ pairs with nothing, and a computer without a desktop has none. Ours can neither show nor
        enter a passkey. BlueZ asks the agent of the program that pairs, so it is in nobody's way.
        """

        def answer(message: Message) -> Message | bool:
            return _agree(message, path)

        self._bus.add_message_handler(answer)
        try:
            await self._call("/org/bluez", _AGENTS, "RegisterAgent", "os", _AGENT_PATH, "NoInputNoOutput")
            yield
        finally:
            gone = self._call("/org/bluez", _AGENTS, "UnregisterAgent", "o", _AGENT_PATH)
            await unhurried(gone, _PATIENCE_S)
            self._bus.remove_message_handler(answer)

    async def _trust(self, path: str, trusted: bool) -> None:
        from dbus_fast import Variant

        await self._call(path, _PROPERTIES, "Set", "ssv", _DEVICE, "Trusted", Variant("b", trusted))

    async def _told_of(self, path: str, name: str) -> object:
        reply = await self._call(path, _PROPERTIES, "Get", "ss", _DEVICE, name)
        return None if reply is None else reply[0].value

    # -- the bus -------------------------------------------------------------------------------------------------------

    async def _call(self, path: str, interface: str, member: str, *values: Any) -> list[Any] | None:
        """As `_ask`; None if it is an error, or no answer comes soon."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._ask(path, interface, member, *values)
        except Exception as error:
            log.debug("%s: %r", member, error)
            return None

    async def _ask(self, path: str, interface: str, member: str, signature: str = "", *values: object) -> list[Any]:
        """The answer's values. Raises `BleakDBusError` where it is an error."""
        from dbus_fast import Message, MessageType

        asked = _DBUS if interface == _DBUS else _BLUEZ
        reply = await self._bus.call(Message(asked, path, interface, member, signature=signature, body=list(values)))
        if reply is None:
            raise EOFError("the D-Bus has ended the connection")
        if reply.message_type is MessageType.ERROR:
            raise BleakDBusError(str(reply.error_name), list(reply.body))
        return list(reply.body)


def _agree(message: Message, path: str) -> Message | bool:
    """What an agent answers that has nobody to ask: yes to the device at this path, where yes is all that is asked."""
    from dbus_fast import Message, MessageType

    if message.message_type is not MessageType.METHOD_CALL or message.path != _AGENT_PATH:
        return False
    ours = bool(message.body) and message.body[0] == path
    if message.member in ("Release", "Cancel") or (
        ours and message.member in ("RequestAuthorization", "AuthorizeService")
    ):
        return Message.new_method_return(message)
    return Message.new_error(message, "org.bluez.Error.Rejected", "there is nobody to ask")


class Turns(AsyncExitStack):
    """Devices that one link connects; meanwhile nobody else in this event loop does."""

    def __init__(self) -> None:
        super().__init__()
        self._paths: set[str] = set()

    async def take(self, path: str) -> None:
        """Wait for one's turn with the device at this path, unless one has it."""
        if path not in self._paths:
            locks = _turns.setdefault(asyncio.get_running_loop(), {})
            await self.enter_async_context(locks.setdefault(path, asyncio.Lock()))
            self._paths.add(path)


async def leave(client: BleakClient) -> bool:
    """Give `client` back without ending the link, which others use; false if bleak has no way to that any more."""
    forget = getattr(getattr(client, "_backend", None), "_on_disconnected", None)
    if forget is None:
        return False
    forget()  # it is disconnected, as far as it is concerned
    await client.disconnect()  # and closes its connection to the D-Bus, with which its subscription ends
    return True


def _told(interfaces: Any, interface: str, name: str) -> object:
    return getattr(interfaces.get(interface, {}).get(name), "value", None)
