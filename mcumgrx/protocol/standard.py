"""The messages that the core itself needs, and the results that flows work with.

Groups 0 (OS) and 1 (image): echo, reset, parameters, bootloader information; image state, upload, erase, slot
information. The rest of those groups, and every other group, is the business of their plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from ..errors import MalformedReply
from ..hints import Hint, Run
from .header import HEADER_SIZE, MAX_PAYLOAD, GroupId, Op
from .message import Body, Command, ErrorCode, Fields, encode_body

__all__ = [
    "ERROR_TABLES",
    "UNREADABLE",
    "Bootloader",
    "BootloaderMode",
    "Echo",
    "EraseImage",
    "ImageErrorCode",
    "ImageState",
    "OsErrorCode",
    "Params",
    "Probe",
    "ReadBootloader",
    "ReadBootloaderMode",
    "ReadImageState",
    "ReadParams",
    "ReadSlotInfo",
    "ReadUsableParams",
    "Reset",
    "Slot",
    "SlotInfo",
    "UploadChunk",
    "UploadProgress",
    "WriteImageState",
]


# What servers send for whatever has no code of its own.
_LOG = "anything can be behind it; the device's log tells"
_FLASH = "its flash does not work, or is laid out in another way than the firmware thinks; the device's log tells"
_OWN_REQUEST = "it arrived damaged, or the device's buffers are smaller than it says: try --chunk 64"
_AGAIN = "upload the file again, from its beginning"
_OLDER = "its firmware may be older, and know less of it"


class OsErrorCode(ErrorCode):
    """Codes of group 0 (Zephyr `os_mgmt.h`)."""

    UNKNOWN = 1, "unknown error", _LOG
    INVALID_FORMAT = 2, "the format of the request is not valid", _OLDER
    QUERY_YIELDS_NO_ANSWER = 3, "the bootloader does not know this query", _OLDER
    RTC_NOT_SET = 4, "the clock has not been set", Hint("set it with ", Run("os datetime --set now"))
    RTC_COMMAND_FAILED = 5, "the clock did not take the command", "its driver says why in the device's log"
    QUERY_RESPONSE_VALUE_NOT_VALID = (
        6,
        "the bootloader's answer to the query makes no sense",
        "bootloader and firmware may be of different ages",
    )


_UNCONFIRMED = Hint(
    "the running image may be on trial, or another one marked for the next boot: see ", Run("image list")
)
_HASHES = Hint("see ", Run("image list"), " for the hashes in the device")
_IN_SLOT = "upload the image again, if 'image inspect' finds nothing wrong with its file"
_SIZES = Hint("see ", Run("image slots"), " for the sizes")


class ImageErrorCode(ErrorCode):
    """Codes of group 1 (Zephyr `img_mgmt.h`)."""

    UNKNOWN = 1, "unknown error", _LOG
    FLASH_CONFIG_QUERY_FAIL = 2, "the flash layout cannot be read", _FLASH
    NO_IMAGE = 3, "there is no image in the slot", "upload one first"
    NO_TLVS = 4, "the image has no TLV area", "sign the image with imgtool"
    INVALID_TLV = 5, "the image has a broken TLV area", _IN_SLOT
    TLV_MULTIPLE_HASHES_FOUND = 6, "the image has several hashes", _IN_SLOT
    TLV_INVALID_SIZE = 7, "a TLV of the image has the wrong size", _IN_SLOT
    HASH_NOT_FOUND = (
        8,
        "no slot holds an image with this hash",
        _HASHES,
    )
    NO_FREE_SLOT = 9, "no slot is free: both are in use", _UNCONFIRMED
    FLASH_OPEN_FAILED = (
        10,
        "the slot cannot be opened",
        Hint("does the device have this slot? See ", Run("image slots")),
    )
    FLASH_READ_FAILED = 11, "reading the flash failed", _FLASH
    FLASH_WRITE_FAILED = 12, "writing the flash failed", _FLASH
    FLASH_ERASE_FAILED = 13, "erasing the flash failed", _FLASH
    INVALID_SLOT = 14, "there is no such slot", Hint("see ", Run("image slots"))
    NO_FREE_MEMORY = 15, "the device has no memory left for the upload", "reset the device and try again"
    FLASH_CONTEXT_ALREADY_SET = (
        16,
        "an interrupted upload is still open",
        "upload the same file again to resume it, or reset the device",
    )
    FLASH_CONTEXT_NOT_SET = 17, "no upload is open", _AGAIN
    FLASH_AREA_DEVICE_NULL = 18, "the slot has no flash device", _FLASH
    INVALID_PAGE_OFFSET = 19, "the flash page cannot be found", _FLASH
    INVALID_OFFSET = 20, "the upload request has no offset", _OWN_REQUEST
    INVALID_LENGTH = 21, "the first upload request has no length", _OWN_REQUEST
    INVALID_IMAGE_HEADER = 22, "the first chunk is too short to hold an image header", "use larger chunks"
    INVALID_IMAGE_HEADER_MAGIC = (
        23,
        "that is not an MCUboot image",
        "use the signed file, such as zephyr.signed.bin; if a slot is meant, its trailer is damaged: erase it",
    )
    INVALID_HASH = 24, "the hash is not of the length that the device works with", _HASHES
    INVALID_FLASH_ADDRESS = (
        25,
        "the image was built for another slot",
        "with direct XIP send the variant built for the slot that is not running",
    )
    VERSION_GET_FAILED = 26, "the version of the running image cannot be read", "leave out --upgrade-only"
    CURRENT_VERSION_IS_NEWER = (
        27,
        "the running version is not older",
        "leave out --upgrade-only to install it all the same",
    )
    IMAGE_ALREADY_PENDING = (
        28,
        "an image is already marked for the next boot",
        "reset the device to boot it, or erase the slot first",
    )
    INVALID_IMAGE_VECTOR_TABLE = (
        29,
        "the trailer of the running image is damaged",
        "no mark can be set while that runs: write its slot anew, with the bootloader's recovery or a debugger",
    )
    INVALID_IMAGE_TOO_LARGE = 30, "the image does not fit the slot", _SIZES
    INVALID_IMAGE_DATA_OVERRUN = 31, "more data than announced was sent", _AGAIN
    IMAGE_CONFIRMATION_DENIED = 32, "the device does not allow this image to be confirmed", "test it first"
    IMAGE_SETTING_TEST_TO_ACTIVE_DENIED = 33, "the running image cannot be set to test", "it runs already"
    ACTIVE_SLOT_NOT_KNOWN = 34, "the device does not know which slot is running", _FLASH


ERROR_TABLES: Mapping[int, type[ErrorCode]] = {GroupId.OS: OsErrorCode, GroupId.IMAGE: ImageErrorCode}


# -- group 0 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Params:
    """Buffers of the device: `buf_count` of `buf_size` bytes, shared by requests and answers of all transports."""

    buf_size: int
    buf_count: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadParams(Command[Params]):
    what: ClassVar[str] = "buffer query"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 6
    repeatable: ClassVar[bool] = True

    def parse(self, fields: Fields) -> Params:
        params = Params(fields.integer("buf_size"), fields.integer("buf_count"), fields.extra())
        if params.buf_size < 1 or params.buf_count < 1:
            raise MalformedReply(f"the device reports {params.buf_count} buffers of {params.buf_size} bytes")
        return params


# Of buffers: a request with a hash needs more than the least; the length field of SMP can tell no more than the most.
_SANE_SIZES = range(64, HEADER_SIZE + MAX_PAYLOAD + 1 + 64)
_SANE_COUNTS = range(1, 256)


@dataclass(frozen=True, slots=True)
class ReadUsableParams(Command[Params]):
    """As `ReadParams`, for what is to be relied on: what makes no sense in the answer is not told.

    A count that makes no sense is one buffer, which every device has. Raises `MalformedReply` without a size.
    """

    what: ClassVar[str] = ReadParams.what
    group: ClassVar[int] = ReadParams.group
    command: ClassVar[int] = ReadParams.command
    repeatable: ClassVar[bool] = True

    def parse(self, fields: Fields) -> Params:
        size = fields.integer("buf_size")
        if size not in _SANE_SIZES:
            raise MalformedReply(f"it tells of buffers of {size} bytes")
        count = fields.lenient.optional_integer("buf_count")
        return Params(size, count if count is not None and count in _SANE_COUNTS else 1, fields.extra())


@dataclass(frozen=True, slots=True)
class Echo(Command[str]):
    """Text that the device sends back."""

    text: str
    what: ClassVar[str] = "echo"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 0
    op: ClassVar[Op] = Op.WRITE
    repeatable: ClassVar[bool] = True
    changes: ClassVar[bool | None] = False

    def body(self) -> Body:
        return {"d": self.text}

    def parse(self, fields: Fields) -> str:
        return fields.text("r")


@dataclass(frozen=True, slots=True)
class Probe(Command[None]):
    """An echo of nothing that is `size` bytes long, header included, and has a short answer.

    What makes it long stands under a key that servers skip. Any answer tells that so many bytes arrive in one piece;
    a server without echo says so, which is an answer.
    """

    size: int = 0
    what: ClassVar[str] = "probe"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 0
    op: ClassVar[Op] = Op.WRITE
    repeatable: ClassVar[bool] = True
    changes: ClassVar[bool | None] = False

    def body(self) -> Body:
        body: Body = {"d": ""}
        padding = self.size - HEADER_SIZE - len(encode_body({**body, "_": b""}))
        for head in (0, 1, 2):  # the padding's length needs so many bytes more
            filled = {**body, "_": bytes(max(0, padding - head))}
            if padding >= head and HEADER_SIZE + len(encode_body(filled)) <= self.size:
                return filled
        return body

    def parse(self, fields: Fields) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Reset(Command[None]):
    """Restart the device; the answer may never arrive. `boot_mode` 1 asks for the bootloader's recovery mode.

    `force` only informs the application, which may refuse a reset that is not forced. Zephyr ignores a `boot_mode`
    it was not built for, and an old server both.
    """

    force: bool = False
    boot_mode: int | None = None
    what: ClassVar[str] = "reset"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 5
    op: ClassVar[Op] = Op.WRITE

    def body(self) -> Body:
        body: Body = {}
        if self.force:
            body["force"] = True
        if self.boot_mode is not None:
            body["boot_mode"] = self.boot_mode
        return body

    def parse(self, fields: Fields) -> None:
        return None


class BootloaderMode(IntEnum):
    """How the bootloader updates (MCUboot `boot_status.h`)."""

    UNKNOWN = -1
    SINGLE_SLOT = 0
    SWAP_SCRATCH = 1
    OVERWRITE = 2
    SWAP_MOVE = 3
    DIRECT_XIP = 4
    DIRECT_XIP_REVERT = 5
    RAM_LOAD = 6
    FIRMWARE_LOADER = 7
    SINGLE_SLOT_RAM_LOAD = 8
    SWAP_OFFSET = 9


@dataclass(frozen=True, slots=True)
class Bootloader:
    """What the device tells of its bootloader; `mode` keeps a number that is not in `BootloaderMode`."""

    name: str | None = None
    mode: int = BootloaderMode.UNKNOWN
    no_downgrade: bool = False
    extra: Body = field(default_factory=dict)

    @property
    def swaps(self) -> bool:
        """Whether a new image is swapped in and can be swapped back (the common case, assumed when unknown)."""
        return self.mode in (
            BootloaderMode.UNKNOWN,
            BootloaderMode.SWAP_SCRATCH,
            BootloaderMode.SWAP_MOVE,
            BootloaderMode.SWAP_OFFSET,
        )


@dataclass(frozen=True, slots=True)
class ReadBootloader(Command[str]):
    """The bootloader's name."""

    what: ClassVar[str] = "bootloader query"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 8
    repeatable: ClassVar[bool] = True

    def parse(self, fields: Fields) -> str:
        return fields.text("bootloader")


@dataclass(frozen=True, slots=True)
class ReadBootloaderMode(Command[Bootloader]):
    """How the bootloader updates; the result's `name` is None.

    Forks answer without `mode`, or with something that is no number: that is unknown, and kept in `extra`.
    """

    what: ClassVar[str] = "bootloader mode query"
    group: ClassVar[int] = GroupId.OS
    command: ClassVar[int] = 8
    repeatable: ClassVar[bool] = True

    def body(self) -> Body:
        return {"query": "mode"}

    def parse(self, fields: Fields) -> Bootloader:
        # Without a mode, or with one that is no number, nothing is known of it; that is no reason to stop.
        mode = fields.lenient.integer("mode", BootloaderMode.UNKNOWN)
        return Bootloader(None, mode, fields.lenient.flag("no-downgrade"), fields.extra())


# -- group 1 --------------------------------------------------------------------------------------------------------


UNREADABLE = -1


def _numbered(item: Fields, key: str) -> int:
    """The number `key` of an image or slot: 0 where it is left out, as recovery without several images does."""
    number = item.optional_integer(key)
    return number if number is not None else UNREADABLE if item.extra().get(key) is not None else 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot that holds an image. Slots that are empty or unreadable are not listed at all.

    `hash` is the image's hash TLV (32, 48 or 64 bytes), not the SHA-256 of the file; MCUboot built without it leaves
    it out. `version` is shown as the device writes it. `image` and `slot` are `UNREADABLE` where the device gives
    something else than a number, so that no other slot is taken for this one.
    """

    image: int
    slot: int
    version: str
    hash: bytes | None = None
    bootable: bool = False
    pending: bool = False
    confirmed: bool = False
    active: bool = False
    permanent: bool = False
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageState:
    """The image list, in the device's order."""

    slots: tuple[Slot, ...]
    split_status: int | None = None
    extra: Body = field(default_factory=dict)

    def active(self, image: int = 0) -> Slot | None:
        """The running slot of `image`."""
        return next((slot for slot in self.slots if slot.image == image and slot.active), None)

    def other(self, image: int = 0) -> Slot | None:
        """The slot of `image` that is not running, if it is listed."""
        return next((slot for slot in self.slots if slot.image == image and not slot.active), None)

    def holding(self, hash: bytes, image: int = 0) -> tuple[Slot, ...]:
        """All slots of `image` whose hash is `hash`: both may hold the same image."""
        return tuple(slot for slot in self.slots if slot.image == image and slot.hash == hash)


def _image_state(fields: Fields) -> ImageState:
    slots = tuple(
        Slot(
            image=_numbered(item, "image"),
            slot=_numbered(item, "slot"),
            version=item.text("version", ""),
            hash=item.optional_data("hash"),
            bootable=item.flag("bootable"),
            pending=item.flag("pending"),
            confirmed=item.flag("confirmed"),
            active=item.flag("active"),
            permanent=item.flag("permanent"),
            extra=item.extra(),
        )
        for item in fields.maps("images")
    )
    return ImageState(slots, fields.lenient.optional_integer("splitStatus"), fields.extra())


@dataclass(frozen=True, slots=True)
class ReadImageState(Command[ImageState]):
    """The image list. MCUboot checks every image first, which takes seconds."""

    what: ClassVar[str] = "image list"
    group: ClassVar[int] = GroupId.IMAGE
    command: ClassVar[int] = 0
    repeatable: ClassVar[bool] = True
    timeout_s: ClassVar[float] = 10.0

    def parse(self, fields: Fields) -> ImageState:
        return _image_state(fields)


@dataclass(frozen=True, slots=True)
class WriteImageState(Command[ImageState]):
    """Mark an image: `confirm` false boots it once, true for good. Without a hash `confirm` means the running one.

    The answer is the new image list: a flag that is not set in it says that the device did not do it. Sending it
    twice does the same as once.
    """

    hash: bytes | None = None
    confirm: bool = False
    what: ClassVar[str] = "image mark"
    group: ClassVar[int] = GroupId.IMAGE
    command: ClassVar[int] = 0
    op: ClassVar[Op] = Op.WRITE
    repeatable: ClassVar[bool] = True
    timeout_s: ClassVar[float] = 10.0

    def body(self) -> Body:
        body: Body = {} if self.hash is None else {"hash": self.hash}
        return {**body, "confirm": self.confirm}

    def parse(self, fields: Fields) -> ImageState:
        return _image_state(fields)


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """The device's answer to a chunk: the `offset` it wants next. `match` is its own final check, where it has one."""

    offset: int
    match: bool | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadChunk(Command[UploadProgress]):
    """One chunk of an image. `length`, `image`, `sha` and `upgrade` belong to the first one, at offset 0, alone.

    `sha` is the SHA-256 of the whole file; with the same one the device resumes an interrupted upload. `upgrade`
    makes the device refuse a version that is not newer.
    """

    offset: int
    data: bytes
    length: int | None = None
    image: int | None = None
    sha: bytes | None = None
    upgrade: bool = False
    what: ClassVar[str] = "image upload"
    group: ClassVar[int] = GroupId.IMAGE
    command: ClassVar[int] = 1
    op: ClassVar[Op] = Op.WRITE
    repeatable: ClassVar[bool] = True

    def body(self) -> Body:
        body: Body = {}
        if self.image is not None:
            body["image"] = self.image
        if self.length is not None:
            body["len"] = self.length
        body["off"] = self.offset
        if self.sha is not None:
            body["sha"] = self.sha
        if self.upgrade:
            body["upgrade"] = True
        body["data"] = self.data
        return body

    def parse(self, fields: Fields) -> UploadProgress:
        progress = UploadProgress(fields.integer("off"), fields.lenient.optional_flag("match"), fields.extra())
        if progress.offset < 0:
            raise MalformedReply(f"the device asks for the offset {progress.offset}")
        return progress


@dataclass(frozen=True, slots=True)
class EraseImage(Command[None]):
    """Erase a slot, counted over all images (2 · image + slot); the device's default is the one not running.

    It blocks the device for 10 to 60 s and more. Erasing twice does the same as once.
    """

    slot: int | None = None
    what: ClassVar[str] = "erase"
    group: ClassVar[int] = GroupId.IMAGE
    command: ClassVar[int] = 5
    op: ClassVar[Op] = Op.WRITE
    timeout_s: ClassVar[float] = 60.0

    def body(self) -> Body:
        return {} if self.slot is None else {"slot": self.slot}

    def parse(self, fields: Fields) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """Size of one slot in bytes, or the code `rc` of why it is not known.

    `max_image_size` and unknown keys of the image are repeated in each of its slots.
    """

    image: int
    slot: int
    size: int | None = None
    rc: int | None = None
    upload_image_id: int | None = None
    max_image_size: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadSlotInfo(Command[tuple[SlotInfo, ...]]):
    """Slots and their sizes (Zephyr 4.0 and later)."""

    what: ClassVar[str] = "slot query"
    group: ClassVar[int] = GroupId.IMAGE
    command: ClassVar[int] = 6
    repeatable: ClassVar[bool] = True

    def parse(self, fields: Fields) -> tuple[SlotInfo, ...]:
        found: list[SlotInfo] = []
        for item in fields.maps("images"):
            image = _numbered(item, "image")
            largest = item.optional_integer("max_image_size")
            slots = list(item.maps("slots"))
            more = item.extra()
            for slot in slots:
                found.append(
                    SlotInfo(
                        image=image,
                        slot=_numbered(slot, "slot"),
                        size=slot.optional_integer("size"),
                        rc=slot.optional_integer("rc"),
                        upload_image_id=slot.optional_integer("upload_image_id"),
                        max_image_size=largest,
                        extra={**more, **slot.extra()},
                    )
                )
        return tuple(found)
