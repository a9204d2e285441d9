"""From an address to a connected client, and the real `Device` that flows lose and find again.

This is where plugins, transports and the client come together; nothing below knows about plugins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from .address import Address
from .boot_text import BootText
from .client import Client
from .contracts import ReturnHint
from .errors import ConnectFailed, DeviceNotFound, UsageError, WrongDevice
from .events import DeviceText, Note, Progress, ignore_progress
from .link.profile import LinkProfile
from .memory import MOST_ID, Memory, Remembered, tells_apart
from .protocol.codes import look_for_tables
from .registry import Registry, Roles, default_registry
from .transport import Transport

log = logging.getLogger("mcumgrx.session")

# Opening a link; BLE scans, connects and discovers in this time.
CONNECT_TIMEOUT_S = 15.0

# Between attempts to open the link of a device that is restarting: quick at first, for links that are back at once.
_BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)

# A port may show another device for a moment while ours is still on its way; for longer than this it is no passing one.
_WRONG_DEVICE_S = 10.0

# A device that logs on the line that also carries SMP is never quiet. After so many times the silence that was wanted
# it is asked all the same: the window in which MCUboot waits for a request is long over, or was never there.
_CHATTER = 3


class SessionDevice:
    """A device by its address (`contracts.Device`). Holds the transport; each connection is a client of its own.

    What transfers learn of the device is read when it is met, and kept for the next program when it is closed.

    Its first identity is kept, where it lasts: whatever else is found behind the same address later is another device.

    Arguments:
        address: how it was named; what stands for it, where a transport was given instead.
        timeout_s: seconds for an answer, as of `Client`.
        on_text: gets what the device prints, besides the `progress` of `rediscover`.
        memory: where to keep what transfers learn of the device, for the next program; None for nowhere.
        name: what tells the device from all others, where the link cannot, or says it of an adapter in between.
        roles: who fills the roles of `contracts` for this device; see `connect`.
    """

    def __init__(
        self,
        address: Address | str,
        transport: Transport,
        registry: Registry,
        *,
        timeout_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
        memory: Memory | None = None,
        name: str | None = None,
        roles: Roles | None = None,
    ) -> None:
        self._address = address
        self._transport = transport
        self._registry = registry
        self._roles = roles
        self._link = address.scheme if isinstance(address, Address) else ""
        self._timeout_s = timeout_s
        self._on_text = on_text
        self._remembered = Remembered(memory)
        self._name = name
        self._seen: str | None = None  # the transport's identity
        self._lasting = False  # which no restart can change
        self._client: Client | None = None
        self._listener: Progress = ignore_progress
        self._boot = BootText()
        self._boot_waiters: set[asyncio.Future[None]] = set()

    def __repr__(self) -> str:
        return f"<device {self._address}>"

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def identity(self) -> str | None:
        return self._name or self._seen or self._transport.identity

    @property
    def restarted(self) -> bool:
        return self._boot.started

    @property
    def reaches_bootloader(self) -> bool:
        return self._transport.reaches_bootloader

    @property
    def by_name(self) -> bool:
        return self._transport.by_name

    async def connect(self, timeout_s: float = CONNECT_TIMEOUT_S, *, name: str | None = None) -> Client:
        """Open a link, to whatever goes by `name` as well; a previous one is closed first.

        Raises `DeviceNotFound`, `ConnectFailed`; `WrongDevice` where the link's identity is not that of the first time.
        """
        if name is not None:
            self._transport.look_for(name)
        return await self._connect(timeout_s, self._check_identity)

    async def _connect(self, timeout_s: float, on_reopened: Callable[[], None] | None) -> Client:
        await self.disconnect()
        profile = LinkProfile()
        client = Client(
            self._transport,
            timeout_s=self._timeout_s,
            groups=partial(self._registry.group, roles=self._roles, link=self._link),
            on_text=self._hear,
            profile=profile,
            on_reopened=on_reopened,
        )
        await client.open(timeout_s)
        try:
            self._check_identity()
            if (key := self._key()) is not None:  # only an open link tells the identity
                profile.learned = await self._remembered.recall(*key)
            profile.begun = await self._remembered.begun(str(self._address) if key is None else key[0])
        except BaseException:
            await client.close()
            raise
        self._client = client
        return client

    async def disconnect(self) -> None:
        """See `contracts.Device.disconnect`."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def close(self) -> None:
        """See `contracts.Device.close`."""
        try:
            await self.disconnect()
        finally:
            await self._remembered.store()

    def _check_identity(self) -> None:
        found, seen = self._transport.identity, self._seen
        if found is None or found == seen:
            return
        lasting = self._transport.lasting_identity is not None
        if seen is not None and lasting and self._lasting:
            raise WrongDevice(
                f"another device is at {self._address} now: {found} instead of {seen}",
                expected=seen,
                found=found,
                address=self.address,
                hint="connect the device that it was before, or begin anew with this one",
            )
        if seen is not None:
            self._listener(Note(f"the device is {found} now, and was {seen} before its reset", warning=True))
        self._seen, self._lasting = found, lasting

    def _key(self) -> tuple[str, str] | None:
        """What the device is remembered by; None if nothing tells it from others."""
        identity = self._name
        if identity is None and self._transport.memorable:
            told = self._transport.identity
            identity = told if told is not None and tells_apart(told) else None
        if identity is None:
            return None
        if not isinstance(self._address, Address):
            return identity, self._address
        plugin = self._registry.transports.get(self._address.scheme)
        return identity, self._address.scheme if plugin is None else plugin.scheme

    # -- after a reset -------------------------------------------------------------------------------------------------

    def expect_reset(self) -> None:
        self._boot.reset()

    async def wait_booted(self) -> None:
        if self._boot.booted:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._boot_waiters.add(waiter)
        try:
            await waiter
        finally:
            self._boot_waiters.discard(waiter)

    async def rediscover(self, hint: ReturnHint, progress: Progress = ignore_progress) -> Client:
        """See `contracts.Device.rediscover`."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        deadline = begin + hint.timeout_s
        quiet_s = self._transport.quiet_after_reset_s if hint.quiet_s is None else hint.quiet_s
        self._listener = progress
        if hint.name is not None:
            self._transport.look_for(hint.name)
        try:
            # A silence that somebody has asked for is kept, whatever the text says.
            trusting = hint.quiet_s is None
            if self._client is not None and await self._keeps_quiet(self._client, begin, quiet_s, deadline, trusting):
                self._client.forget_device()
                return self._client
            while True:
                client = await self._reopen(deadline)
                if not self._transport.silent_boot and hint.quiet_s is None:
                    return client
                if await self._keeps_quiet(client, loop.time(), quiet_s, deadline, trusting):
                    return client
        except BaseException:
            await self.disconnect()  # nobody else could: the caller got no connection
            raise
        finally:
            self._listener = ignore_progress

    async def _reopen(self, deadline: float) -> Client:
        loop = asyncio.get_running_loop()
        attempt = 0
        wrong_until: float | None = None
        while True:
            try:
                timeout_s = min(CONNECT_TIMEOUT_S, max(0.1, deadline - loop.time()))
                return await self._connect(timeout_s, None)  # at once would break the silence after a reset
            except (DeviceNotFound, ConnectFailed) as error:
                pause_s = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)]
                if not isinstance(error, WrongDevice):
                    wrong_until = None
                elif wrong_until is None:
                    wrong_until = loop.time() + _WRONG_DEVICE_S
                    self._listener(Note(f"{error}; waiting up to {_WRONG_DEVICE_S:g} s for the right one"))
                if loop.time() + pause_s >= min(deadline, deadline if wrong_until is None else wrong_until):
                    raise
                log.debug("not back yet: %s", error)
                await asyncio.sleep(pause_s)
                attempt += 1

    async def _keeps_quiet(self, client: Client, since: float, quiet_s: float, deadline: float, trusting: bool) -> bool:
        """Listen until the device may be asked; false if the link ends.

        That is when it has been quiet for `quiet_s` seconds; when its text shows that its application is up, if that
        is trusted; when it has printed on and on; or at the deadline.
        """
        loop = asyncio.get_running_loop()
        lost = asyncio.create_task(client.wait_lost())
        booted = asyncio.create_task(self.wait_booted())
        latest = min(since + _CHATTER * quiet_s, deadline)
        told = False
        try:
            while True:
                heard = since if client.last_heard_s is None else max(since, client.last_heard_s)
                remaining_s = min(heard + quiet_s, latest) - loop.time()
                if not client.connected:
                    return False
                if remaining_s <= 0 or (trusting and booted.done()):
                    return True
                if not told and loop.time() >= since + quiet_s:
                    told = True
                    left_s = latest - loop.time()
                    text = f"it is asked after {quiet_s:g} s of silence, or in {left_s:.0f} s at the latest"
                    self._listener(Note(f"the device still prints: {text}"))
                await asyncio.wait(
                    [lost, booted] if trusting and not booted.done() else [lost],
                    timeout=remaining_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            lost.cancel()
            booted.cancel()
            await asyncio.gather(lost, booted, return_exceptions=True)

    def _hear(self, text: str) -> None:
        self._boot.feed(text)
        if self._boot.booted:
            for waiter in self._boot_waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self._listener(DeviceText(text))
        if self._on_text is not None:
            self._on_text(text)


def device(
    address: str | Address | Transport,
    *,
    timeout_s: float | None = None,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
    memory: Memory | None = None,
    name: str | None = None,
    roles: Roles | None = None,
) -> SessionDevice:
    """The device at `address`, or at the other end of a transport, not yet connected.

    Raises `UsageError` or `PluginError` for what is no address. Arguments: see `connect`.
    """
    if name is not None and not 0 < len(name.strip()) <= MOST_ID:
        raise UsageError(f"the name of a device has 1 to {MOST_ID} characters", hint="name it as its label does")
    registry = default_registry() if registry is None else registry
    look_for_tables(registry.error_table)
    named: Address | str
    if isinstance(address, Transport):
        named, transport = f"{type(address).__module__}.{type(address).__qualname__}", address
    elif isinstance(address, str | Address):
        named = Address.parse(address) if isinstance(address, str) else address
        transport = registry.transport(named)
    else:
        raise TypeError(f"a device is named by an address or reached by a Transport, not by {address!r}")
    return SessionDevice(
        named,
        transport,
        registry,
        timeout_s=timeout_s,
        on_text=on_text,
        memory=memory,
        name=name,
        roles=roles,
    )


@asynccontextmanager
async def connect(
    address: str | Address | Transport,
    *,
    timeout_s: float | None = None,
    on_text: Callable[[str], None] | None = None,
    registry: Registry | None = None,
    memory: Memory | None = None,
    name: str | None = None,
    roles: Roles | None = None,
) -> AsyncIterator[Client]:
    """Open the device at `address`, and close it in every case.

    ::

        async with mcumgrx.connect("serial:/dev/ttyACM0") as client:
            ...

    Arguments:
        address: `SCHEME:TARGET[,key=value…]`, or a `Transport` of your own that is not open, such as
            `mcumgrx.sim.link.SimulatedTransport(…)`.
        timeout_s: seconds for the answer to a request; default: 5, and more for those that take longer.
        on_text: gets what the device prints beside SMP.
        memory: keeps what transfers learn of the device for the next program, as the command line does:
            `mcumgrx.memory.Memory()`. Default: nothing is kept.
        name: what tells the device from all others, for `memory`; default: what the link says, such as the USB serial
            number. Without either nothing is kept.
        roles: which group fills a role of `mcumgrx.contracts` for this device, where it is not the usual one: a class
            derived from `Group` and the role, or the name of the plugin that has it: `{ImageGroup: "acme"}`.
    """
    found = device(
        address, timeout_s=timeout_s, on_text=on_text, registry=registry, memory=memory, name=name, roles=roles
    )
    try:
        yield await found.connect()
    finally:
        await found.close()
