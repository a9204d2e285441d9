"""The behaviour that flows ask for: a device that can be lost and found, and the roles of the groups they use.

A flow never imports a plugin or a session. `connection.group(ImageGroup)` gives the group that fills that role for this
device, so another implementation can stand in: a class derived from `Group` and from the role. What a role gets later
has a default, so that those that fill it go on working.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from .events import Progress, ignore_progress
from .mcuboot import Image
from .messages.standard import Bootloader, ImageState, Params, SlotInfo, UploadProgress
from .pause import Pause

G = TypeVar("G")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReturnHint:
    """How a device is expected to come back after a reset.

    Attributes:
        quiet_s: seconds without a byte from the device before it may be asked; None for what the link needs. On a
            serial line a request inside MCUboot's wait window would hold the device in recovery. A device that prints
            all the time is asked after a small multiple of it.
        timeout_s: seconds until it must have come back.
        name: the name that it may advertise from now on beside its own, at whatever address (firmware loader).
    """

    quiet_s: float | None = None
    timeout_s: float = 120.0
    name: str | None = None


class Connection(Protocol):
    """An open link to a device, as far as flows need one. `mcumgrx.client.Client` is one."""

    def group(self, kind: type[G]) -> G:
        """The group that fills the role `kind`. Raises `PluginError` when no plugin supplies it."""

    async def params(self) -> Params | None:
        """The device's buffers, or None when it does not tell. Asked once per connection."""

    async def optional(self, what: str, ask: Callable[[], Awaitable[T]], patience_s: float) -> T | None:
        """What `ask` finds out, of which many devices know nothing and some stay silent: asked briefly.

        `what` names it, for the memory of what this device leaves unanswered; `patience_s` is long enough for a device
        that has just answered something larger.
        """

    async def close(self) -> None:
        """Close the link; harmless when it is closed or lost."""


class Device(Protocol):
    """One device by its address, connected or not: what a flow holds while links come and go."""

    @property
    def address(self) -> str:
        """How the user named it."""

    @property
    def identity(self) -> str | None:
        """What tells it from all others (USB serial number, …), once known; never a port or network address."""

    @property
    def restarted(self) -> bool:
        """Whether its own text has shown that it has started anew since `expect_reset`."""

    @property
    def reaches_bootloader(self) -> bool:
        """Whether its bootloader answers over the same link, as far as links go: MCUboot knows serial ports alone."""

    @property
    def by_name(self) -> bool:
        """Whether its link finds it by what it calls itself, so that its firmware loader goes by another name."""

    async def connect(self, *, name: str | None = None) -> Connection:
        """Open a link, to whatever goes by `name` as well, as its firmware loader may.

        Raises `DeviceNotFound`, `ConnectFailed`, or `WrongDevice` where its identity has changed.
        """

    async def disconnect(self) -> None:
        """Close the link, if one is open."""

    async def close(self) -> None:
        """Disconnect, and keep for the next time what was learned of the device."""

    def expect_reset(self) -> None:
        """It is about to be asked for a reset: from now on its text tells of the new start."""

    async def rediscover(self, hint: ReturnHint, progress: Progress = ignore_progress) -> Connection:
        """Find the device again after a reset, without sending it a byte meanwhile; the open link to it.

        A link that survives the reset (UART, UDP) is kept open, since opening a port can reset a board, and its
        connection is returned again; so do not close it first. A link that drops is opened anew, with patience.
        Keeps silent as long as the link and `hint` demand, but for a device whose text shows that it is up, or that
        never stops printing; listens, and passes text that the device prints to `progress`. Raises `DeviceNotFound`,
        `ConnectFailed` or `LinkLost` when the device has not come back within `hint.timeout_s`, `WrongDevice` when
        another one has come in its place. Whether it answers, and what runs on it, is for the caller to find out.
        """

    async def wait_booted(self) -> None:
        """Wait until its own text shows that its application has started since `expect_reset`; perhaps for ever."""


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How an image is transferred.

    Attributes:
        image: number of the image (core) it is for.
        erase_timeout_s: for the answer to the first chunk, during which most devices erase the slot.
        chunk_bytes: at most this many bytes of data in a chunk; None for what device and link take.
        window: at most this many chunks in flight; None for as many as device and link take.
        upgrade_only: let the device refuse a version that is not newer.
        pause: holds the upload, and lets it go on.
        session: what the device knows this upload by, up to 31 bytes; it resumes one that it knows. None for the file's
            own hash. After an erase another one is needed: servers before Zephyr 3.3 keep the place of an upload that
            they have erased (zephyr #51798), and would go on behind a beginning that is blank.
    """

    image: int = 0
    erase_timeout_s: float = 60.0
    chunk_bytes: int | None = None
    window: int | None = None
    upgrade_only: bool = False
    pause: Pause | None = None
    session: bytes | None = None


@dataclass(frozen=True, slots=True)
class OnTrial:
    """A new image that runs and is not confirmed yet, as its checks get to know it; of several, the first.

    Attributes:
        address: of the device, as the user named it.
        hash: of the image, as the device lists it.
        image: number of the image (core).
        tell: gets what a check has to tell on its way.
    """

    address: str
    version: str
    hash: bytes
    image: int = 0
    tell: Progress = field(default=ignore_progress, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A question to a new image that runs, before it is confirmed.

    `ask` returns None where the image is healthy, and otherwise what is wrong, in a few words. It may be asked again
    after a lost link. An error of the device or the link counts as an answer, too: it is not healthy. What else it
    returns or raises is a mistake of the check's own, after which nothing is confirmed either.
    """

    name: str
    ask: Callable[[Connection, OnTrial], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class OutsideCheck:
    """As `HealthCheck`, from outside of this program: the link is closed meanwhile, so that others can use it."""

    name: str
    ask: Callable[[OnTrial], Awaitable[str | None]]


class ImageGroup(ABC):
    """Command group 1 as flows use it. Every method raises the errors of `Client.request`.

    A device's "yes" is no proof, nor is a missing answer a "no": what `test`, `confirm` and `erase` have done is looked
    up in the image list where the answer does not show it.
    """

    @abstractmethod
    async def state(self) -> ImageState:
        """The image list."""

    @abstractmethod
    async def upload(
        self, image: Image, options: UploadOptions = UploadOptions(), progress: Progress = ignore_progress
    ) -> UploadProgress:
        """Transfer the image into the slot that the device chooses; resumes what an earlier attempt has left."""

    @abstractmethod
    async def test(self, hash: bytes) -> ImageState:
        """Mark the image with this hash TLV to be booted once; the image list as it is then."""

    @abstractmethod
    async def confirm(self, hash: bytes | None = None) -> ImageState:
        """Make the image with this hash permanent; without a hash, the running one. The image list as it is then."""

    @abstractmethod
    async def erase(self, slot: int | None = None, *, timeout_s: float = 60.0) -> bool | None:
        """Erase a slot (2 · image + slot); by default the one that is not running.

        Returns whether an image that was there is gone; False where it is still listed although the device said yes,
        None where the list does not tell.
        """

    async def slots(self) -> tuple[SlotInfo, ...] | None:
        """The slots and their sizes, or None when the device cannot tell."""
        return None

    def begun(self) -> tuple[bytes, int] | None:
        """The SHA-256 of a file whose upload was interrupted, and how many bytes the device had; None for none.

        As it is remembered: the device is not asked, and has forgotten it if it has restarted since.
        """
        return None


class OsGroup(ABC):
    """Command group 0 as flows use it."""

    @abstractmethod
    async def echo(self, text: str) -> str:
        """Send a text and get it back."""

    @abstractmethod
    async def reset(self, *, force: bool = False, boot_mode: int | None = None) -> None:
        """Restart the device. A missing answer or a lost link counts as done; a refusal raises `DeviceError`."""

    async def board(self) -> str | None:
        """The board's name, as Zephyr's build has it (`nrf52840dk/nrf52840`), or None when the device cannot tell."""
        return None

    async def bootloader(self) -> Bootloader:
        """The bootloader's name and mode; `Bootloader()` with everything unknown when the device cannot tell."""
        return Bootloader()

    async def active_b0_slot(self) -> int | None:
        """The one of its two slots from which MCUboot itself was started, or None where there is no telling."""
        return None

    async def in_recovery(self) -> bool:
        """Whether MCUboot's serial recovery answers, and not an application; asked for in a way that does no harm."""
        return False


class SettingsGroup(ABC):
    """Command group 3 as flows use it, which give a firmware loader its name."""

    @abstractmethod
    async def write(self, name: str, value: bytes | str) -> None:
        """Give a setting another value for now."""

    @abstractmethod
    async def save(self, name: str | None = None) -> None:
        """Write all settings to the storage, or only `name` and what is below it."""
