"""From an address to a connected client, and the real `Device` that flows lose and find again.

This is where plugins, transports and the client come together; nothing below knows about plugins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .address import Address
from .client import DEFAULT_TIMEOUT_S, Client
from .contracts import ReturnHint
from .errors import ConnectFailed, DeviceNotFound, UsageError
from .events import DeviceText, Progress, ignore_progress
from .memory import MOST_ID, Memory, tells_apart
from .registry import Registry, default_registry
from .transport import Transport

__all__ = ["SessionDevice", "connect", "device"]

log = logging.getLogger("mcumgrx.session")

# Opening a link; BLE scans, connects and discovers in this time.
CONNECT_TIMEOUT_S = 15.0

# Between attempts to open the link of a device that is restarting: quick at first, for links that are back at once.
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class SessionDevice:
    """A device by its address (`contracts.Device`). Holds the transport; each connection is a client of its own.

    Arguments:
        timeout_s: seconds for ordinary answers.
        on_text: gets what the device prints, besides the `progress` of `rediscover`.
        memory: where to keep what transfers learn of the device, for the next program; None for nowhere.
        name: what tells the device from all others, where the link cannot, or says it of an adapter in between.
    """

    def __init__(
        self,
        address: Address,
        transport: Transport,
        registry: Registry,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_text: Callable[[str], None] | None = None,
        memory: Memory | None = None,
        name: str | None = None,
    ) -> None:
        self._address = address
        self._transport = transport
        self._registry = registry
        self._timeout_s = timeout_s
        self._on_text = on_text
        self._memory = memory
        self._name = name
        self._client: Client | None = None
        self._listener: Progress = ignore_progress

    def __repr__(self) -> str:
        return f"<device {self._address}>"

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def identity(self) -> str | None:
        return self._name or self._transport.identity

    async def connect(self, timeout_s: float = CONNECT_TIMEOUT_S) -> Client:
        """Open a link; a previous one is closed first. Raises `DeviceNotFound` or `ConnectFailed`."""
        await self.close()
        client = Client(
            self._transport,
            timeout_s=self._timeout_s,
            groups=self._registry.group,
            on_text=self._hear,
        )
        await client.open(timeout_s)
        if (key := self._key()) is not None and self._memory is not None:  # only an open link tells the identity
            client.learned = self._memory.recall(*key)
        self._client = client
        return client

    async def close(self) -> None:
        """Close the link, if one is open."""
        if self._client is not None:
            client, self._client = self._client, None
            key = self._key()
            try:
                await client.close()
            finally:
                if key is not None and self._memory is not None:
                    self._memory.remember(*key, client.learned)

    def _key(self) -> tuple[str, str] | None:
        """What the device is remembered by; None if nothing tells it from others."""
        identity = self._name
        if identity is None and (told := self._transport.identity) is not None and tells_apart(told):
            identity = told
        plugin = self._registry.transports.get(self._address.scheme)
        return None if identity is None else (identity, self._address.scheme if plugin is None else plugin.scheme)

    async def rediscover(self, hint: ReturnHint, progress: Progress = ignore_progress) -> Client:
        """See `contracts.Device.rediscover`."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        deadline = begin + hint.timeout_s
        quiet_s = self._transport.quiet_after_reset_s if hint.quiet_s is None else hint.quiet_s
        self._listener = progress
        try:
            if self._client is not None and await self._keeps_quiet(self._client, begin, quiet_s, deadline):
                self._client.forget_device()
                return self._client
            while True:
                client = await self._reopen(deadline)
                if not self._transport.silent_boot and hint.quiet_s is None:
                    return client
                if await self._keeps_quiet(client, loop.time(), quiet_s, deadline):
                    return client
        except BaseException:
            await self.close()  # nobody else could: the caller got no connection
            raise
        finally:
            self._listener = ignore_progress

    async def _reopen(self, deadline: float) -> Client:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            try:
                return await self.connect(min(CONNECT_TIMEOUT_S, max(0.1, deadline - loop.time())))
            except (DeviceNotFound, ConnectFailed) as error:
                pause_s = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)]
                if loop.time() + pause_s >= deadline:
                    raise
                log.debug("not back yet: %s", error)
                await asyncio.sleep(pause_s)
                attempt += 1

    async def _keeps_quiet(self, client: Client, since: float, quiet_s: float, deadline: float) -> bool:
        """Listen until the device has been quiet for `quiet_s` seconds (or the deadline); false if the link ends."""
        loop = asyncio.get_running_loop()
        lost = asyncio.create_task(client.wait_lost())
        try:
            while True:
                heard = since if client.last_heard_s is None else max(since, client.last_heard_s)
                remaining_s = min(heard + quiet_s, deadline) - loop.time()
                if not client.connected:
                    return False
                if remaining_s <= 0:
                    return True
                await asyncio.wait([lost], timeout=remaining_s)
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)

    def _hear(self, text: str) -> None:
        self._listener(DeviceText(text))
        if self._on_text is not None:
            self._on_text(text)


def device(
    address: str | Address,
    *,
    timeout_s: float | None = None,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
    memory: Memory | None = None,
    name: str | None = None,
) -> SessionDevice:
    """The device at `address`, not yet connected. Raises `UsageError` or `PluginError` for what is no address.

    Arguments: see `connect`.
    """
    if name is not None and not 0 < len(name.strip()) <= MOST_ID:
        raise UsageError(f"the name of a device has 1 to {MOST_ID} characters", hint="name it as its label does")
    registry = default_registry() if registry is None else registry
    parsed = Address.parse(address) if isinstance(address, str) else address
    return SessionDevice(
        parsed,
        registry.transport(parsed),
        registry,
        timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
        on_text=on_text,
        memory=memory,
        name=name,
    )


@asynccontextmanager
async def connect(
    address: str | Address,
    *,
    timeout_s: float | None = None,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
    memory: Memory | None = None,
    name: str | None = None,
) -> AsyncIterator[Client]:
    """Open the device at `address`, and close it in every case.

    ::

        async with mcumgrx.connect("serial:/dev/ttyACM0") as client:
            ...

    Arguments:
        timeout_s: seconds for the answer to an ordinary request.
        on_text: gets what the device prints beside SMP.
        memory: keeps what transfers learn of the device for the next program, as the command line does:
            `mcumgrx.memory.Memory()`. Default: nothing is kept.
        name: what tells the device from all others, for `memory`; default: what the link says, such as the USB serial
            number. Without either nothing is kept.
    """
    found = device(address, timeout_s=timeout_s, on_text=on_text, registry=registry, memory=memory, name=name)
    try:
        yield await found.connect()
    finally:
        await found.close()
