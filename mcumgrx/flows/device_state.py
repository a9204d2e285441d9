"""What a device says of itself before an update, and what its bootloader does with an image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from ..errors import UsageError
from ..mcuboot import Version
from ..messages.standard import Bootloader, BootloaderMode, ImageState, Params, Slot, SlotInfo

__all__ = [
    "UNLISTED",
    "DeviceState",
    "Kind",
    "in_recovery",
    "is_board",
    "loader_answers",
    "read_version",
    "shown_version",
]


class Kind(Enum):
    """Bootloader modes by what a mark and a reset do."""

    SWAP = "swap"  # also what is assumed when the device does not tell
    OVERWRITE = "overwrite"  # installs for good, whatever the mark
    NEWEST = "newest"  # runs the highest version in place; there are no marks
    NEWEST_REVERT = "newest with revert"  # runs the highest version that is marked
    NEWEST_MAYBE_REVERT = "newest, perhaps with revert"  # RAM load: its number does not say which of the two
    LOADER = "firmware loader"
    SINGLE = "single slot"


_KINDS = {
    BootloaderMode.SINGLE_SLOT: Kind.SINGLE,
    BootloaderMode.OVERWRITE: Kind.OVERWRITE,
    BootloaderMode.DIRECT_XIP: Kind.NEWEST,
    BootloaderMode.DIRECT_XIP_REVERT: Kind.NEWEST_REVERT,
    BootloaderMode.RAM_LOAD: Kind.NEWEST_MAYBE_REVERT,
    BootloaderMode.FIRMWARE_LOADER: Kind.LOADER,
    BootloaderMode.SINGLE_SLOT_RAM_LOAD: Kind.SINGLE,
}


UNLISTED = ImageState((), split_status=0)
"""Of an application that answers and has no image list, because a firmware loader has it. Empty ones are others."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device says of itself; all but the image list may be unknown.

    `reaches_bootloader`: MCUboot's serial recovery can answer over the link, too. `loader`: what a firmware loader is
    to be called, where the link finds devices by name. `begun`: the SHA-256 of a file whose upload was interrupted, and
    how many bytes of it the device had, as far as that is remembered. `active_b0_slot`: the one of its two slots from
    which the bootloader itself runs.
    """

    images: ImageState
    slots: tuple[SlotInfo, ...] | None = None
    bootloader: Bootloader = field(default_factory=Bootloader)
    params: Params | None = None
    board: str | None = None
    reaches_bootloader: bool = True
    loader: str | None = None
    begun: tuple[bytes, int] | None = None
    active_b0_slot: int | None = None

    @property
    def recovery(self) -> bool:
        """Whether it is MCUboot's serial recovery that answers, as far as that can be told."""
        return not self.mode_known and in_recovery(self.images)

    @property
    def in_loader(self) -> bool:
        """Whether it is its firmware loader that answers, and not the application."""
        return self.kind is Kind.LOADER and loader_answers(self.images)

    def installed(self, image: int) -> Slot | None:
        """What runs of this image; seen from a firmware loader, what lies in the application's slot."""
        if not self.in_loader:
            return self.images.active(image)
        return next((slot for slot in self.images.slots if (slot.image, slot.slot) == (image, 0)), None)

    @property
    def mode_known(self) -> bool:
        """Whether the device tells in which mode its bootloader works."""
        return self.bootloader.mode != BootloaderMode.UNKNOWN

    @property
    def kind(self) -> Kind:
        """What its bootloader does."""
        return next((kind for mode, kind in _KINDS.items() if self.bootloader.mode == mode), Kind.SWAP)

    def slot_info(self, image: int, slot: int) -> SlotInfo | None:
        """What it tells of this slot."""
        return next((info for info in self.slots or () if (info.image, info.slot) == (image, slot)), None)

    def preferred_slot(self, image: int) -> int | None:
        """The slot of an image that the bootloader takes whatever the version, as far as the list shows it.

        With direct XIP the higher version runs next, and shows as pending. Where it does not, or where a lower one
        does, the application of the nRF Connect SDK has left a boot request (`NRF_MCUBOOT_BOOT_REQUEST`). With trial
        boots a higher one that does not show may only not be marked.
        """
        a, b = self.images.active(image), self.images.other(image)
        if self.kind not in (Kind.NEWEST, Kind.NEWEST_REVERT) or a is None or b is None:
            return None
        old, new = read_version(a.version), read_version(b.version)
        if old is None or new is None or old[:3] == new[:3]:  # the list and the bootloader may count the build number
            return None
        if b.pending:
            return b.slot if new < old else None
        return a.slot if new > old and self.kind is Kind.NEWEST else None

    @property
    def image_numbers(self) -> frozenset[int]:
        """The images that it lists or has slots for."""
        return frozenset({slot.image for slot in self.images.slots} | {info.image for info in self.slots or ()})


def in_recovery(images: ImageState) -> bool:
    """Whether this image list is one of MCUboot's serial recovery: nothing runs, and no `splitStatus`."""
    return images.split_status is None and not any(slot.active for slot in images.slots)


def loader_answers(images: ImageState) -> bool:
    """Whether this is the list of a firmware loader, given that the device has one: its own slot is not slot 0."""
    active = images.active()
    return images is not UNLISTED and (active is None or active.slot != 0)


def is_board(told: str, wanted: str) -> bool:
    """Whether a device that calls its board `told` is a `wanted`, which may leave out revision and qualifiers.

    Zephyr's names are BOARD[@REVISION][/QUALIFIERS], as `nrf9160dk@0.14.0/nrf9160/ns`.
    """
    if "@" not in wanted:
        told = re.sub("@[^/]*", "", told)
    return told == wanted or told.startswith(f"{wanted}/")


def shown_version(text: str) -> str:
    """A device's version as files write theirs (1.2.3+4); what is no version stays as it is."""
    version = read_version(text)
    return text if version is None else str(version)


def read_version(text: str) -> Version | None:
    """A device's version, or None where the text is none."""
    try:
        return Version.parse(text)
    except UsageError:
        return None
