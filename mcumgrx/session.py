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
from .errors import ConnectFailed, DeviceNotFound
from .events import DeviceText, Progress, ignore_progress
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
    """

    def __init__(
        self,
        address: Address,
        transport: Transport,
        registry: Registry,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._address = address
        self._transport = transport
        self._registry = registry
        self._timeout_s = timeout_s
        self._on_text = on_text
        self._client: Client | None = None
        self._listener: Progress = ignore_progress

    def __repr__(self) -> str:
        return f"<device {self._address}>"

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def identity(self) -> str | None:
        return self._transport.identity

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
        self._client = client
        return client

    async def close(self) -> None:
        """Close the link, if one is open."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

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
) -> SessionDevice:
    """The device at `address`, not yet connected. Raises `UsageError` or `PluginError` for what is no address."""
    registry = default_registry() if registry is None else registry
    parsed = Address.parse(address) if isinstance(address, str) else address
    return SessionDevice(
        parsed,
        registry.transport(parsed),
        registry,
        timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
        on_text=on_text,
    )


@asynccontextmanager
async def connect(
    address: str | Address,
    *,
    timeout_s: float | None = None,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Client]:
    """Open the device at `address`, and close it in every case.

    ::

        async with mcumgrx.connect("serial:/dev/ttyACM0") as client:
            ...

    Arguments:
        timeout_s: seconds for the answer to an ordinary request.
        on_text: gets what the device prints beside SMP.
    """
    found = device(address, timeout_s=timeout_s, on_text=on_text, registry=registry)
    try:
        yield await found.connect()
    finally:
        await found.close()
