"""The messages that the core itself needs, and the results that flows work with.

Groups 0 (OS) and 1 (image): echo, reset, parameters, bootloader information; image state, upload, erase, slot
information. The rest of those groups, and every other group, is the business of their plugins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from ..errors import MalformedReply
from ..protocol import codec
from ..protocol.header import HEADER_SIZE, MAX_PAYLOAD, GroupId, Op
from .message import Body, Fields, Reply, Request, SmpCommand, encode_body

# -- group 0 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Params:
    """Buffers of the device: `buf_count` of `buf_size` bytes, shared by requests and answers of all transports."""

    buf_size: int
    buf_count: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadParams(SmpCommand[Params], group=GroupId.OS, number=6, what="buffer query", repeatable=True):
    def parse(self, fields: Fields) -> Params:
        params = Params(fields.integer("buf_size"), fields.integer("buf_count"), fields.extra())
        if params.buf_size < 1 or params.buf_count < 1:
            raise MalformedReply(f"the device reports {params.buf_count} buffers of {params.buf_size} bytes")
        return params


# Of buffers: a request with a hash needs more than the least; the length field of SMP can tell no more than the most.
_SANE_SIZES = range(64, HEADER_SIZE + MAX_PAYLOAD + 1 + 64)
_SANE_COUNTS = range(1, 256)


@dataclass(frozen=True, slots=True)
class ReadUsableParams(
    SmpCommand[Params],
    group=ReadParams.facts.group,
    number=ReadParams.facts.number,
    what=ReadParams.facts.what,
    repeatable=True,
):
    """As `ReadParams`, for what is to be relied on: what makes no sense in the answer is not told.

    A count that makes no sense is one buffer, which every device has. Raises `MalformedReply` without a size.
    """

    def parse(self, fields: Fields) -> Params:
        size = fields.integer("buf_size")
        if size not in _SANE_SIZES:
            raise MalformedReply(f"it tells of buffers of {size} bytes")
        count = fields.lenient.optional_integer("buf_count")
        return Params(size, count if count is not None and count in _SANE_COUNTS else 1, fields.extra())


@dataclass(frozen=True, slots=True)
class Echo(SmpCommand[str], group=GroupId.OS, number=0, op=Op.WRITE, what="echo", repeatable=True, changes=False):
    """Text that the device sends back."""

    text: str

    def body(self) -> Body:
        return {"d": self.text}

    def parse(self, fields: Fields) -> str:
        return fields.text("r")


@dataclass(frozen=True, slots=True)
class Probe(SmpCommand[None], group=GroupId.OS, number=0, op=Op.WRITE, what="probe", repeatable=True, changes=False):
    """An echo of nothing that is `size` bytes long, header included, and has a short answer.

    What makes it long stands under a key that servers skip. Any answer tells that so many bytes arrive in one piece;
    a server without echo says so, which is an answer.
    """

    size: int = 0

    def body(self) -> Body:
        body: Body = {"d": ""}
        padding = self.size - HEADER_SIZE - len(encode_body({**body, "_": b""}))
        for head in (0, 1, 2):  # the padding's length needs so many bytes more
            filled = {**body, "_": bytes(max(0, padding - head))}
            if padding >= head and HEADER_SIZE + len(encode_body(filled)) <= self.size:
                return filled
        return body


@dataclass(frozen=True, slots=True)
class Reset(SmpCommand[None], group=GroupId.OS, number=5, op=Op.WRITE, what="reset"):
    """Restart the device; the answer may never arrive. `boot_mode` 1 asks for the bootloader's recovery mode.

    `force` only informs the application, which may refuse a reset that is not forced. Zephyr ignores a `boot_mode`
    it was not built for, and an old server both.
    """

    force: bool = False
    boot_mode: int | None = None

    def body(self) -> Body:
        body: Body = {}
        if self.force:
            body["force"] = True
        if self.boot_mode is not None:
            body["boot_mode"] = self.boot_mode
        return body


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
class ReadBootloader(SmpCommand[str], group=GroupId.OS, number=8, what="bootloader query", repeatable=True):
    """The bootloader's name."""

    def parse(self, fields: Fields) -> str:
        return fields.text("bootloader")


@dataclass(frozen=True, slots=True)
class ReadBootloaderMode(
    SmpCommand[Bootloader], group=GroupId.OS, number=8, what="bootloader mode query", repeatable=True
):
    """How the bootloader updates; the result's `name` is None.

    Forks answer without `mode`, or with something that is no number: that is unknown, and kept in `extra`.
    """

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
class ReadImageState(
    SmpCommand[ImageState], group=GroupId.IMAGE, number=0, what="image list", repeatable=True, timeout_s=10.0
):
    """The image list. MCUboot checks every image first, which takes seconds."""

    def parse(self, fields: Fields) -> ImageState:
        return _image_state(fields)


@dataclass(frozen=True, slots=True)
class WriteImageState(
    SmpCommand[ImageState],
    group=GroupId.IMAGE,
    number=0,
    op=Op.WRITE,
    what="image mark",
    repeatable=True,
    timeout_s=10.0,
):
    """Mark an image: `confirm` false boots it once, true for good. Without a hash `confirm` means the running one.

    The answer is the new image list: a flag that is not set in it says that the device did not do it. Sending it
    twice does the same as once.
    """

    hash: bytes | None = None
    confirm: bool = False

    def parse(self, fields: Fields) -> ImageState:
        return _image_state(fields)


@dataclass(slots=True)  # one for each chunk: see `Reply`
class UploadProgress:
    """The device's answer to a chunk: the `offset` it wants next. `match` is its own final check, where it has one."""

    offset: int
    match: bool | None = None
    extra: Body = field(default_factory=dict)


_NO_MORE: Body = {}  # beside the offset


@dataclass(slots=True)  # as the answer to it
class UploadChunk(
    SmpCommand[UploadProgress], group=GroupId.IMAGE, number=1, op=Op.WRITE, what="image upload", repeatable=True
):
    """One chunk of an image. `length`, `image`, `sha` and `upgrade` belong to the first one, at offset 0, alone.

    `sha` is the SHA-256 of the whole file; with the same one the device resumes an interrupted upload. `upgrade`
    makes the device refuse a version that is not newer.

    It is laid, and its usual answer read, by the codec instead of a CBOR library. Only the time differs, not a byte;
    whatever the codec does not hold goes the general way.
    """

    offset: int
    data: bytes
    length: int | None = None
    image: int | None = None
    sha: bytes | None = None
    upgrade: bool = False

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

    def request(self) -> Request:
        payload = codec.build_upload(self.offset, self.data, self.length, self.image, self.sha, self.upgrade)
        return SmpCommand.request(self) if payload is None else Request(self.facts, payload)

    def result(self, reply: Reply) -> UploadProgress:
        offset = codec.read_upload_offset(reply.payload)
        return SmpCommand.result(self, reply) if offset is None else UploadProgress(offset, None, _NO_MORE)

    def parse(self, fields: Fields) -> UploadProgress:
        progress = UploadProgress(fields.integer("off"), fields.lenient.optional_flag("match"), fields.extra())
        if progress.offset < 0:
            raise MalformedReply(f"the device asks for the offset {progress.offset}")
        return progress


@dataclass(frozen=True, slots=True)
class EraseImage(SmpCommand[None], group=GroupId.IMAGE, number=5, op=Op.WRITE, what="erase", timeout_s=60.0):
    """Erase a slot, counted over all images (2 · image + slot); the device's default is the one not running.

    It blocks the device for 10 to 60 s and more. Erasing twice does the same as once.
    """

    slot: int | None = None


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
class ReadSlotInfo(SmpCommand[tuple[SlotInfo, ...]], group=GroupId.IMAGE, number=6, what="slot query", repeatable=True):
    """Slots and their sizes (Zephyr 4.0 and later)."""

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
