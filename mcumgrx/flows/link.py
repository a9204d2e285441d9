"""The link to the device of one update: lost and opened again, and listened on after a reset.

What is asked over it is the business of the steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from ..contracts import Connection, Device, OsGroup, ReturnHint
from ..errors import DeviceError, LinkLost, ProtocolError, TransportError, WrongDevice
from ..events import Note, Progress
from ..messages.standard import ImageState, Slot
from .device_state import UNLISTED
from .listing import NO_LIST_CODES, image_list
from .loader import loader_name
from .policy import DfuPolicy

__all__ = ["KNOCK_S", "DeviceLink", "NoReturn", "now"]

T = TypeVar("T")

# How long a device whose link was lost in the middle of an operation is searched for.
_RECONNECT_TIMEOUT_S = 60.0

# Before a lost link is opened again, one after the other while nothing advances.
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)

# For the answer to the image list after a reset, one after the other: short, because the first requests often go to a
# device that is still starting; longer, because MCUboot's recovery checks all signatures before it answers. They grow
# by a third of the time that has passed, which is what a start at the wrong moment costs. The last is for devices that
# leave version 2 of SMP unanswered: the client asks in version 1 after two attempts of 10 s.
_PATIENCE_S = (2.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0, 8.0, 8.0, 35.0)

# For an answer that is perhaps on its way, when the device's text shows that it is up. Then it is asked anew.
_UP_PATIENCE_S = 0.5

# For the answer of a device that should be up.
_LOOK_S = 5.0

# Between questions to a device that answers, but not yet what is to come.
PAUSE_S = 0.5

# Between two questions to a device that is to be caught while it starts: MCUboot waits 500 ms by default
# (`BOOT_SERIAL_WAIT_FOR_DFU_TIMEOUT`).
KNOCK_S = 0.075
_LONG_KNOCK = 8  # every so many questions
_LONG_KNOCK_S = 0.35

# Between two words about a device that does not answer yet.
_WORD_S = 10.0


class NoReturn(Exception):
    """The device has not answered in the time that it may take to boot; `reason` is what came of the last attempt."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class DeviceLink:
    """See the module. `failures` counts links lost in a row without an advance; whoever advances sets it to 0."""

    def __init__(self, device: Device, policy: DfuPolicy, progress: Progress) -> None:
        self.device = device
        self.policy = policy
        self.progress = progress
        self.failures = 0
        self.reconnects = 0
        # The silence after a reset that is asked for; longer after the bootloader's recovery has answered.
        self.quiet_s = policy.quiet_s
        self.reset_at_s = 0.0
        # The connection is kept after its end; `_up` says whether it can be used.
        self._connection: Connection | None = None
        self._up = False
        # By which its firmware loader is found, and what it is found by at present.
        self.loader = loader_name(device.address) if device.by_name else None
        self.name: str | None = None
        # What runs where an application answers that lists nothing, as its loader has listed it; None: nothing known.
        self.application: Slot | None = None
        self.inferred = False  # what runs has been known so
        self._knocks = 0

    async def connect(self) -> None:
        self._connection = await self.device.connect(name=self.loader)
        self._up = True

    def has_reset(self) -> None:
        """The device has been asked for a reset, and begins it about now."""
        self._up = False
        self.reset_at_s = now()

    @property
    def deadline_s(self) -> float:
        """When the device must have answered after its reset."""
        return self.reset_at_s + self.policy.boot_timeout_s

    async def run(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `operation`, which is begun again over a new link when the link is lost, a few times."""
        while True:
            try:
                return await operation(await self._usable())
            except LinkLost as error:
                self._up = False
                await self.device.disconnect()  # it may be the answers alone that were lost
                if self.failures >= self.policy.reconnects:
                    error.hint = error.hint or "run the same command again: it goes on from where the device is"
                    raise
                pause_s = _BACK_OFF_S[min(self.failures, len(_BACK_OFF_S) - 1)]
                self.failures += 1
                self.progress(Note(f"{error}; reconnecting, for up to {_RECONNECT_TIMEOUT_S:g} s"))
                await asyncio.sleep(pause_s)

    async def release(self) -> None:
        """Close the link, so that others can use it. The next operation opens it again."""
        self._connection, self._up = None, False
        await self.device.disconnect()

    async def _usable(self) -> Connection:
        if self._connection is None or not self._up:
            self.reconnects += self._connection is not None
            hint = ReturnHint(self.policy.quiet_s, _RECONNECT_TIMEOUT_S, self.name)
            self._connection = await self.device.rediscover(hint, self.progress)
            self._up = True
        return self._connection

    async def look(self) -> tuple[ImageState, bool]:
        """The image list of a device that should be up, and whether it was there at once.

        One that has gone silent is waited for as after a reset, because it may have had one. Raises as `hear`.
        """
        if not self._up:
            self.has_reset()
        try:
            return await self._listed(_LOOK_S), True
        except WrongDevice:
            raise
        except (TransportError, TimeoutError, DeviceError, ProtocolError) as error:
            what = f"no answer for {_LOOK_S:g} s" if isinstance(error, TimeoutError) else str(error)
            self.progress(Note(f"{what}; waiting for the device, for up to {self.policy.boot_timeout_s:g} s"))
        self.has_reset()
        return await self.hear(), False

    # -- after a reset -------------------------------------------------------------------------------------------------

    async def hear(self, *, or_refusal: bool = False) -> ImageState:
        """The image list, asked for until it comes or the time to boot is over. Raises `NoReturn`, `WrongDevice`.

        `or_refusal`: what answers may have no image list at all, which then is an answer (`DeviceError`).
        """
        attempt = 0
        told_s = now()
        while True:
            try:
                return await self._listed(_PATIENCE_S[min(attempt, len(_PATIENCE_S) - 1)])
            except WrongDevice:
                raise
            # `RequestTimeout` is a `TimeoutError` too. A refusal or nonsense comes from a device still on its way.
            except (TransportError, TimeoutError, DeviceError, ProtocolError) as error:
                if isinstance(error, TransportError):
                    self._up = False
                if or_refusal and isinstance(error, DeviceError) and error.says(*NO_LIST_CODES):
                    raise
                if now() >= self.deadline_s:
                    raise NoReturn(error) from error
                if now() >= told_s + _WORD_S:
                    told_s = now()
                    self.progress(Note(self._word()))
                if not isinstance(error, TimeoutError):
                    await asyncio.sleep(PAUSE_S)
            attempt += 1

    async def knock(self, until_s: float) -> bool | None:
        """Ask once who answers, at any time, also of a device that starts: its recovery, or else an application.

        None where that stays unanswered. It is waited for only briefly, so that MCUboot, which waits at its start for a
        request, gets one in time; now and then for longer, for links on which an answer takes long.
        """
        self._knocks += 1
        try:
            if self._connection is None or not self._up:
                hint = ReturnHint(0.0, max(until_s - now(), 0.1))
                self._connection = await self.device.rediscover(hint, self.progress)
                self._up = True
            async with asyncio.timeout(KNOCK_S if self._knocks % _LONG_KNOCK else _LONG_KNOCK_S):
                return await self._connection.group(OsGroup).in_recovery()
        except (TransportError, TimeoutError, DeviceError, ProtocolError) as error:
            if isinstance(error, WrongDevice):
                raise
            if isinstance(error, TransportError):
                self._up = False
        return None

    def known(self, images: ImageState) -> ImageState:
        """This list or, of an application that has none, what is known of it: nothing else can run."""
        if images is not UNLISTED or self.application is None:
            return images
        self.inferred = True
        return ImageState((replace(self.application, active=True, confirmed=True),), split_status=0)

    def _word(self) -> str:
        since_s = now() - self.reset_at_s
        return f"no answer yet, {since_s:.0f} s after the reset; it is asked until {self.policy.boot_timeout_s:g} s"

    async def _listed(self, patience_s: float) -> ImageState:
        """The image list. Raises `TimeoutError` when it does not come in time, or is worth being asked for anew."""
        if not self._up:
            hint = ReturnHint(self.quiet_s, max(self.deadline_s - now(), 0.1), self.name)
            self._connection = await self.device.rediscover(hint, self.progress)
            self._up = True
        assert self._connection is not None
        asking = asyncio.ensure_future(image_list(self._connection))
        booted = asyncio.ensure_future(self.device.wait_booted())
        try:
            await asyncio.sleep(0)
            waiting: set[asyncio.Future[ImageState] | asyncio.Future[None]] = {asking}
            if not booted.done():  # otherwise it was up already when it was asked
                waiting.add(booted)
            await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and booted in waiting and booted.done():
                await asyncio.wait([asking], timeout=_UP_PATIENCE_S)
            if not asking.done():
                raise TimeoutError
            return self.known(asking.result())
        finally:
            asking.cancel()
            booted.cancel()
            await asyncio.gather(asking, booted, return_exceptions=True)


def now() -> float:
    """Seconds on the clock of the running loop."""
    return asyncio.get_running_loop().time()
