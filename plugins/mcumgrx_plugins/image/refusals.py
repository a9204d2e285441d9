"""Why a device has refused what concerns its images: told from its list, the file and the request, not from the number.

The number of an error says what the server has stumbled over, and the same number has many causes. Here is what decides
between them: which slot is on trial or marked, how large the file is, whether it is padded, which image was meant.
Pure; whoever has asked the device reads its list for this. Sources: Zephyr `img_mgmt.c` and `img_mgmt_state.c`,
MCUboot `boot_serial.c`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mcumgrx.plugin_api import (
    DeviceError,
    ErrorCode,
    Hint,
    Image,
    ImageErrorCode,
    ImageState,
    Run,
    Slot,
    SlotInfo,
    SmpError,
)


class Doing(Enum):
    """What the device was asked to do."""

    UPLOAD = "upload"
    ERASE = "erase"
    TEST = "test"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that was refused, and what is known of the device.

    Attributes:
        number: of the image that it was for.
        image: the file that was sent.
        hash: of the image that was named; None for the running one.
        slot: that was to be erased, counted over all images; None for the device's choice.
        images: the image list after the refusal, where it could be read.
        slots: the slots and their sizes, likewise.
    """

    doing: Doing
    number: int = 0
    image: Image | None = None
    hash: bytes | None = None
    slot: int | None = None
    images: ImageState | None = None
    slots: tuple[SlotInfo, ...] | None = None

    @property
    def running(self) -> Slot | None:
        return None if self.images is None else self.images.active(self.number)

    @property
    def other(self) -> Slot | None:
        return None if self.images is None else self.images.other(self.number)

    @property
    def slot_size(self) -> int | None:
        """Of the slots of this image, which are alike."""
        sizes = [info.size for info in self.slots or () if info.image == self.number and info.size is not None]
        return min(sizes, default=None)

    @property
    def named(self) -> Slot | None:
        """The slot that a mark was for."""
        if self.images is None or self.hash is None:
            return None
        return next((slot for slot in self.images.slots if slot.hash == self.hash), None)


def refusal_hint(error: DeviceError, asked: Asked) -> str | None:
    """What to do about `error`, or None where the state says nothing beyond the error itself."""
    find = next((tell for code, tell in _TELLING if error.says(code)), None)
    return None if find is None else find(asked)


# -- a slot that is in use ------------------------------------------------------------------------------------------

_SLOT_LOST = (
    "if it is still there after that, the bootloader can never install it, and only its serial recovery or a debugger "
    "gets rid of it"
)


def _bad_state(asked: Asked) -> str | None:
    """How version 1 of SMP told that no slot is free, or that the mark cannot be changed."""
    return _in_use(asked) if asked.doing in (Doing.UPLOAD, Doing.ERASE) else _marked_otherwise(asked)


def _in_use(asked: Asked) -> str | None:
    running, other = asked.running, asked.other
    if asked.images is None:
        return None
    if running is not None and not running.confirmed:
        back = f" to {other.version}" if other is not None else ""
        confirm = Run("image confirm", *_by_hash(running))
        return Hint(
            f"{running.version} runs on trial, and the other slot is kept to go back{back}: keep what runs with ",
            confirm,
            ", or go back with ",
            Run("os reset"),
        )
    if other is not None and other.pending:
        mark = "to stay" if other.permanent else "for a test boot"
        return Hint(
            f"slot {other.slot} holds {other.version}, which is marked {mark}, and this device gives up no slot "
            "that is marked (CONFIG_MCUMGR_GRP_IMG_ALLOW_ERASE_PENDING): install it with ",
            Run("os reset"),
            f"; {_SLOT_LOST}",
        )
    if asked.doing is Doing.ERASE and running is not None and asked.slot == 2 * running.image + running.slot:
        return f"slot {running.slot} holds {running.version}, which runs"
    if running is None:
        return Hint("the list shows no image that runs: see ", Run("image list"))
    return Hint(
        f"the list shows nothing that holds a slot: {running.version} runs and is confirmed, and nothing is marked. A "
        "device with a single slot takes no image while its application runs; see ",
        Run("image slots"),
    )


def _by_hash(slot: Slot) -> tuple[str, ...]:
    """A confirm without a hash means image 0."""
    return (slot.hash.hex(),) if slot.image and slot.hash is not None else ()


def _erase(slot: Slot | None) -> Run:
    """What erases this slot; by default that is the one of image 0 that does not run."""
    if slot is None or not slot.image:
        return Run("image erase")
    return Run("image erase --slot", str(2 * slot.image + slot.slot))


def _marked_otherwise(asked: Asked) -> str | None:
    slot = next((slot for slot in asked.images.slots if slot.pending), None) if asked.images is not None else None
    if slot is None:
        return None
    mark = "to stay" if slot.permanent else "for a test boot"
    return Hint(
        f"{slot.version} in slot {slot.slot} is marked {mark} already, and a mark cannot be changed: boot it with ",
        Run("os reset"),
        ", or take it back with ",
        _erase(slot),
    )


# -- sizes and flash ------------------------------------------------------------------------------------------------


def _size_texts(asked: Asked) -> tuple[str, str] | None:
    """The sizes of file and slot, where both are known."""
    if asked.image is None or asked.slot_size is None:
        return None
    return f"{asked.image.size:,}", f"{asked.slot_size:,}"


def _trimmed(image: Image) -> tuple[str | Run, ...]:
    """How to send a padded file without its padding."""
    run = Run("dfu", image.path or "FILE", "--trim")
    return run, " sends it without its padding, and with --mode upload-only does no more"


def _too_large(asked: Asked) -> str | None:
    if asked.image is None:
        return None
    if asked.image.padded:
        bytes_left = f"{asked.image.content_size:,} bytes"
        return Hint(f"the file is padded to the size of a slot, and has {bytes_left} without: ", *_trimmed(asked.image))
    sizes = _size_texts(asked)
    if sizes is None:
        return Hint(f"the file has {asked.image.size:,} bytes; for the sizes of the slots see ", Run("image slots"))
    if asked.slot_size is not None and asked.image.size <= asked.slot_size:
        return f"the file has {sizes[0]} bytes, and the slot of {sizes[1]} keeps some of them for the bootloader"
    return Hint(
        f"the file has {sizes[0]} bytes, the slot {sizes[1]}: is it built for this board? See ", Run("image slots")
    )


_FLASH = "otherwise its flash cannot be written, or is laid out in another way: the device's log tells"


def _erase_failed(asked: Asked) -> str | None:
    if asked.doing is not Doing.UPLOAD or asked.image is None:
        return "the flash refused it: the device's log tells why"
    if asked.image.padded:
        return Hint(
            "the file is padded to the size of the slot, and a bootloader that swaps using offset keeps a sector of it "
            "free: ",
            *_trimmed(asked.image),
        )
    sizes = _size_texts(asked)
    size = f" ({sizes[0]} of {sizes[1]} bytes)" if sizes else ""
    return f"a file that fills the slot{size} is refused so where the bootloader keeps a sector of it free; {_FLASH}"


def _write_failed(asked: Asked) -> str | None:
    if asked.image is None:
        return None
    sizes = _size_texts(asked)
    size = f", {sizes[0]} of {sizes[1]} bytes" if sizes else f" ({asked.image.size:,} bytes)"
    return f"the file{size} may reach into the end of the slot, which the bootloader keeps for itself; {_FLASH}"


def _no_slot(asked: Asked) -> str | None:
    if asked.number:
        return f"most devices have image 0 alone, and this one may have no image {asked.number}"
    return Hint("for the slots that the device has see ", Run("image slots"))


# -- a first chunk that is refused ----------------------------------------------------------------------------------


def _invalid(asked: Asked) -> str | None:
    """MCUboot's recovery says this of an image number or a size that it has not, Zephyr of a map it cannot read."""
    if asked.doing is not Doing.UPLOAD or asked.image is None:
        return None
    causes = []
    if asked.number:
        causes.append(f"the device has no image {asked.number}")
    causes.append(_larger_than(asked))
    causes.append("its buffers are smaller than it says (try --chunk 64)")
    return f"most likely {', or '.join(causes)}"


def _larger_than(asked: Asked) -> str:
    assert asked.image is not None
    sizes = _size_texts(asked)
    if sizes is not None:
        return f"the file of {sizes[0]} bytes is too large for a slot of {sizes[1]}"
    return f"the file of {asked.image.size:,} bytes is too large for the slot"


def _unknown(asked: Asked) -> str | None:
    """Version 1 of SMP says this of nearly everything that a slot or its flash refuses."""
    if asked.doing in (Doing.TEST, Doing.CONFIRM):
        return _not_found(asked)
    if asked.image is None:
        return "its flash cannot be erased, or there is no such slot; the device's log tells"
    return f"most likely its flash cannot be written or erased, or {_larger_than(asked)}; the device's log tells which"


def _no_memory(asked: Asked) -> str | None:
    if asked.doing is not Doing.UPLOAD:
        return None
    return "its buffers may be smaller than it says: try --chunk 64 and --window 1"


def _no_entry(asked: Asked) -> str | None:
    if asked.doing is Doing.UPLOAD:
        return _no_slot(asked)
    return _not_found(asked)


# -- marks ----------------------------------------------------------------------------------------------------------


def _not_found(asked: Asked) -> str | None:
    if asked.images is None or asked.hash is None:
        return None
    if not any(slot.hash is not None for slot in asked.images.slots):
        return "the device lists no hashes at all"
    lengths = sorted({len(slot.hash) for slot in asked.images.slots if slot.hash is not None})
    if len(asked.hash) not in lengths:
        bits = " or ".join(str(8 * length) for length in lengths)
        return f"the device works with hashes of {bits} bits, and this one has {8 * len(asked.hash)}"
    if asked.named is not None:
        return "the list shows it, but the device does not take it: the device's log tells why"
    return Hint("an image that is empty, half written or refused is not there; see ", Run("image list"))


def _bad_trailer(asked: Asked) -> str | None:
    """Zephyr calls a trailer that is neither erased nor good a wrong header (`img_mgmt_set_next_boot_slot_common`)."""
    if asked.doing is Doing.UPLOAD:
        if asked.image is None:
            return None
        return "the file is a good image here: its beginning was damaged on the way, or the device wants another kind"
    slot = asked.named or asked.other
    where = "its slot" if slot is None else f"slot {slot.slot}"
    erase = _erase(slot)
    if asked.image is not None and asked.image.padded:
        return Hint(
            f"the file is padded for a flash with alignment {asked.image.padding_align}, which is not this one's: "
            "erase the slot with ",
            erase,
            "; ",
            *_trimmed(asked.image),
        )
    return Hint(
        f"the trailer at the end of {where} is damaged, not the image: erase the slot with ", erase, " and upload again"
    )


def _confirmation_denied(asked: Asked) -> str | None:
    slot = asked.named
    if slot is None:
        return None
    if slot.image:
        return (
            f"most devices let only its own application confirm what runs of image {slot.image}; 'dfu --mode "
            "confirm-only' makes it permanent before it has run"
        )
    return Hint(
        "this device confirms only what runs: boot it once, with ",
        Run("image test", (slot.hash or b"").hex()),
        " and ",
        Run("os reset"),
    )


def _linked_elsewhere(asked: Asked) -> str | None:
    if asked.image is None or asked.image.rom_address is None:
        return None
    running = asked.running
    target = "the one that is not running" if running is None else f"slot {1 - running.slot}"
    return (
        f"the file is linked for address 0x{asked.image.rom_address:x}: send the one that the build made for {target}"
    )


def _not_newer(asked: Asked) -> str | None:
    if asked.image is None or asked.running is None:
        return None
    return (
        f"{asked.running.version} runs, and the file is {asked.image.version}: leave out --upgrade-only to install it "
        "all the same"
    )


_TELLING: tuple[tuple[ErrorCode, Callable[[Asked], str | None]], ...] = (
    (SmpError.UNKNOWN, _unknown),
    (SmpError.NO_MEMORY, _no_memory),
    (SmpError.INVALID, _invalid),
    (SmpError.NO_ENTRY, _no_entry),
    (SmpError.BAD_STATE, _bad_state),
    (ImageErrorCode.HASH_NOT_FOUND, _not_found),
    (ImageErrorCode.NO_FREE_SLOT, _in_use),
    (ImageErrorCode.FLASH_OPEN_FAILED, _no_slot),
    (ImageErrorCode.FLASH_WRITE_FAILED, _write_failed),
    (ImageErrorCode.FLASH_ERASE_FAILED, _erase_failed),
    (ImageErrorCode.INVALID_SLOT, _no_slot),
    (ImageErrorCode.INVALID_IMAGE_HEADER_MAGIC, _bad_trailer),
    (ImageErrorCode.INVALID_HASH, _not_found),
    (ImageErrorCode.INVALID_FLASH_ADDRESS, _linked_elsewhere),
    (ImageErrorCode.CURRENT_VERSION_IS_NEWER, _not_newer),
    (ImageErrorCode.IMAGE_ALREADY_PENDING, _marked_otherwise),
    (ImageErrorCode.INVALID_IMAGE_TOO_LARGE, _too_large),
    (ImageErrorCode.IMAGE_CONFIRMATION_DENIED, _confirmation_denied),
)

NEEDS_SIZES: tuple[ErrorCode, ...] = (
    SmpError.UNKNOWN,
    SmpError.INVALID,
    ImageErrorCode.FLASH_WRITE_FAILED,
    ImageErrorCode.FLASH_ERASE_FAILED,
    ImageErrorCode.INVALID_IMAGE_TOO_LARGE,
)
"""Errors about which the sizes of the slots tell something."""


def tells(error: DeviceError) -> bool:
    """Whether the device's state can say more about `error` than its number does."""
    return any(error.says(code) for code, _ in _TELLING)
