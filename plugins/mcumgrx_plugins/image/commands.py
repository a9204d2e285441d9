"""The commands `mcumgrx image …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import (
    Argument,
    Bytes,
    CliContext,
    DeviceError,
    Event,
    Hint,
    LinkLost,
    MalformedReply,
    Note,
    Option,
    RequestTimeout,
    Run,
    Speed,
    Stage,
    StageName,
    UsageError,
    aligned,
    cli_command,
    system_says,
    value_text,
)

if TYPE_CHECKING:
    from mcumgrx.plugin_api import FlowError, Image, ImageState, Package, PackageImage, PlanRefused, Slot, SlotInfo

    from .group import ImageGroup

_FLAGS = ("active", "confirmed", "pending", "permanent", "bootable")

# Whether a loader and the application split from it fit each other; 0, "not applicable", is not shown (newtmgr).
_SPLIT = {1: "loader and application do not match", 2: "loader and application match"}

_BAD_FILE = 6  # the exit code of a file that no device can take

_FEWEST_DIGITS = 4
_HASH = re.compile(rf"[0-9a-fA-F]{{{_FEWEST_DIGITS},128}}")
_HASH_DIGITS = (64, 96, 128)  # SHA-256, SHA-384, SHA-512

_HASH_ARGUMENT_HELP = f"hash of the image, or its first {_FEWEST_DIGITS} digits or more"
_ERASE_TIMEOUT = Option(
    "--erase-timeout",
    "How long the device may take to erase the slot.",
    type=float,
    default=60.0,
    metavar="SECONDS",
)


# -- image list -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageList:
    """The image list. `split_status` and `extra` are what the device says beside it."""

    slots: tuple[Slot, ...]
    split_status: int | None = None
    extra: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, state: ImageState) -> ImageList:
        return cls(state.slots, state.split_status, state.extra)

    def lines(self) -> list[str]:
        lines = self._slot_lines() if self.slots else ["the device lists no image"]
        if self.split_status:
            lines.append(f"split status {self.split_status} ({_SPLIT.get(self.split_status, 'unknown')})")
        return lines + [f"{key} {value_text(value)}" for key, value in self.extra.items()]

    def _slot_lines(self) -> list[str]:
        """Two lines a slot, and those of one image together under its number where there are several."""
        images = list(dict.fromkeys(slot.image for slot in self.slots))
        if images == [0]:
            return [line for slot in self.slots for line in _described(slot)]
        lines: list[str] = []
        for image in images:
            lines.append(f"image {image}")
            lines += [f"  {line}" for slot in self.slots if slot.image == image for line in _described(slot)]
        return lines


def _described(slot: Slot) -> list[str]:
    name = f"slot {_number(slot.slot)}"
    flags = ", ".join(flag for flag in _FLAGS if getattr(slot, flag) and flag != "bootable")
    if not slot.bootable and flags:
        flags += ", not bootable"
    indent = " " * len(name)
    return [
        f"{name}  {slot.version or 'no version'}" + (f"  {flags}" if flags else ""),
        f"{indent}  hash {slot.hash.hex() if slot.hash is not None else 'not told'}",
        *(f"{indent}  {key} {value_text(value)}" for key, value in slot.extra.items()),
    ]


@cli_command(
    epilog="""
    mcumgrx image list -d serial:/dev/ttyACM0
    mcumgrx image list --json -d serial:/dev/ttyACM0
    """
)
async def list_images(context: CliContext) -> ImageList:
    """Show the images in the device: slot, version, state and hash.

    Empty slots are not listed; see 'mcumgrx image slots' for those.
    """
    from .group import ImageGroup

    async with context.connect() as client:
        return ImageList.of(await client.group(ImageGroup).state())


# -- image upload ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What was transferred; `match` is the device's own check, where it makes one. Sizes in bytes.

    `speed` is that of the transfer, at its end. `slot` is where the image list shows the image afterwards, None where
    it does not; `placed` says in a sentence what that means, and what comes next.
    """

    file: str
    version: str
    hash: str
    size: int
    sent: int
    elapsed_s: float
    match: bool | None
    speed: Speed | None = None
    slot: int | None = None
    placed: str = ""

    def lines(self) -> list[str]:
        rate = f", {self.sent / self.elapsed_s / 1000:.1f} KB/s" if self.elapsed_s >= 0.05 else ""
        resumed = "" if self.sent == self.size else f" (the other {self.size - self.sent} were there already)"
        lines = [
            f"uploaded {self.version}: {self.sent} bytes in {self.elapsed_s:.1f} s{rate}{resumed}",
            f"hash {self.hash}",
        ]
        if self.match is not None:
            lines.append(f"the device's own check: {'good' if self.match else 'BAD, the data in the slot differ'}")
        return [*lines, self.placed] if self.placed else lines


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the image list shows an uploaded image, and what to tell of it."""

    slot: int | None
    text: str


def _place(image: Image, number: int, state: ImageState) -> _Place:
    """What the list, read after the upload, says of it. Raises `FlowError` where it contradicts the upload."""
    hashes = {image.hash, *image.hashes_when_running}
    holding = [slot for slot in state.slots if slot.hash in hashes]
    of_image = [slot for slot in holding if slot.image == number] or holding
    waiting = [slot for slot in of_image if not slot.active]
    if waiting:
        return _Place(waiting[0].slot, _next_for(waiting[0], state, image.padded))
    if of_image:
        return _Place(of_image[0].slot, f"it is in slot {of_image[0].slot}, which runs")
    if state.slots and not any(slot.hash is not None for slot in state.slots):
        return _Place(None, "not checked: the device lists no hashes")
    if number:
        # The primary slot of another core cannot be read by the application that answers, and is not listed.
        return _Place(None, f"not checked: the device does not list it, as some do with image {number}")
    from mcumgrx.plugin_api import FlowError

    raise FlowError(
        f"the upload of {image.version} is complete, but the device does not list it", stage=StageName.UPLOAD
    )


def _next_for(slot: Slot, state: ImageState, padded: bool) -> str:
    """Where an image waits, and for what."""
    where = f"it is in {_slot_name(slot.image, slot.slot, slot.image != 0)}"
    others = [other for other in state.slots if not other.active]
    if slot.pending:
        boots = f"the next reset boots it{', to stay' if slot.permanent else ''}"
        if not padded:
            return f"{where}; {boots}"
        number = str(2 * slot.image + slot.slot)
        erase = Run("image erase", "--slot", number) if slot.image else Run("image erase")
        return Hint(f"{where}, and marked by its padding: {boots}, unless it is erased: ", erase)
    if padded:
        where += ", which its padding does not fill, so that it is not marked"
    if not any(other.active for other in state.slots):
        return f"{where}; nothing runs: a reset starts what the bootloader chooses"
    mark = Run("image test") if len(others) == 1 or slot.hash is None else Run("image test", slot.hash.hex()[:12])
    return Hint(f"{where}; it will not be booted before it is marked: ", mark)


@cli_command(
    Argument("file", "signed .bin or .hex, a package (dfu_application.zip) or a build directory", type=Path),
    Option("--image", "Number of the image (core) [default: what the file says, or 0].", type=int, metavar="N"),
    _ERASE_TIMEOUT,
    Option(
        "--chunk", "At most this much data in a message; default: what device and link take.", type=int, metavar="BYTES"
    ),
    Option(
        "--window",
        "At most this many chunks on their way at once; default: what the device takes.",
        type=int,
        metavar="N",
    ),
    Option("--upgrade-only", "Let the device refuse a version that is not newer.", type=bool, default=False),
    epilog="mcumgrx image upload build/zephyr/zephyr.signed.bin -d /dev/ttyACM0",
)
async def upload(
    context: CliContext,
    file: Path,
    image: int | None,
    erase_timeout: float,
    chunk: int | None,
    window: int | None,
    upgrade_only: bool,
) -> UploadResult:
    """Transfer the image FILE into the free slot, without marking or booting it.

    An interrupted upload is resumed by running the same command again. For a whole update see 'mcumgrx dfu'.
    """
    import asyncio

    from mcumgrx.plugin_api import UploadOptions, in_thread, load_package

    from .group import ImageGroup

    if (
        (image is not None and image < 0)
        or erase_timeout <= 0
        or any(value is not None and value < 1 for value in (window, chunk))
    ):
        raise UsageError("--image starts at 0, --window and --chunk at 1, and --erase-timeout is more than 0")
    package = await in_thread(load_package, file)
    chosen = package.choose(image)
    loaded, number = chosen.image, chosen.number
    for note in package.notes:
        context.progress(Note(note))
    for warning in package.told_of(chosen):
        context.progress(Note(warning, warning=True))
    if loaded.padded:
        context.progress(_padding_warning(loaded, file, number))
    options = UploadOptions(number, erase_timeout, chunk, window, upgrade_only)
    progress = _Counting(context)
    async with context.connect() as client:
        group = client.group(ImageGroup)
        begin = asyncio.get_running_loop().time()
        context.progress(Stage(StageName.UPLOAD, f"{loaded.version}, {loaded.size} bytes"))
        answer = await group.upload(loaded, options, progress)
        elapsed_s = asyncio.get_running_loop().time() - begin
        context.progress(Stage(StageName.UPLOAD, "", finished=True, elapsed_s=elapsed_s))
        try:
            place = _place(loaded, number, await group.state())
        except (DeviceError, RequestTimeout, MalformedReply, LinkLost) as error:
            place = _Place(None, f"not checked whether it is in the device: {error}")
    return UploadResult(
        file=str(file),
        version=str(loaded.version),
        hash=loaded.hash.hex(),
        size=loaded.size,
        sent=loaded.size - progress.resumed_from,
        elapsed_s=elapsed_s,
        match=answer.match,
        speed=progress.speed,
        slot=place.slot,
        placed=place.text,
    )


def _padding_warning(loaded: Image, file: Path, image: int) -> Note:
    effect = "for good, with no way back" if loaded.pad_confirmed else "for a test boot"
    text = f"the file is padded: in a slot of its size ({loaded.size:,} bytes) any reset installs it {effect}. "
    trimmed = Run("dfu", str(file), "--image", str(image), "--trim", "--mode", "upload-only")
    return Note(Hint(text, trimmed, " sends it without its padding"), warning=True)


class _Counting:
    """Passes progress on, and keeps how much had been there before, and how fast the rest came."""

    def __init__(self, context: CliContext) -> None:
        self._progress = context.progress
        self.resumed_from = 0
        self.speed: Speed | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Bytes):
            self.resumed_from = event.resumed_from
            self.speed = event.speed
        self._progress(event)


# -- image test, image confirm --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MarkResult:
    """An image that was marked, and the list that the device answered with."""

    done: str
    hash: str | None
    slots: tuple[Slot, ...]

    def lines(self) -> list[str]:
        return [self.done, "", *ImageList(self.slots).lines()]


@cli_command(
    Argument("hash", f"{_HASH_ARGUMENT_HELP}; default: the image in the other slot", required=False),
    epilog="mcumgrx image test 4f1c -d /dev/ttyACM0",
)
async def test(context: CliContext, hash: str | None) -> MarkResult:
    """Mark an image to be booted once.

    After the next reset it runs on trial: confirm it, or the reset after that brings the old image back.
    """
    from .group import ImageGroup

    _check_hash(hash)
    async with context.connect() as client:
        group = client.group(ImageGroup)
        wanted = await _other_hash(group) if hash is None else await _full_hash(group, hash)
        state = await group.test(wanted)
    return MarkResult("marked to be booted once, at the next reset", wanted.hex(), state.slots)


@cli_command(
    Argument("hash", f"{_HASH_ARGUMENT_HELP}; default: the running image", required=False),
    epilog="mcumgrx image confirm -d /dev/ttyACM0",
)
async def confirm(context: CliContext, hash: str | None) -> MarkResult:
    """Make an image permanent: the running one, or the one with this hash from the next reset on."""
    from .group import ImageGroup

    _check_hash(hash)
    async with context.connect() as client:
        group = client.group(ImageGroup)
        wanted = None if hash is None else await _full_hash(group, hash)
        state = await group.confirm(wanted)
    running = wanted is None or any(slot.active and slot.hash == wanted for slot in state.slots)
    done = "the running image is confirmed" if running else "the image will be booted for good at the next reset"
    if wanted is None and not any(slot.active for slot in state.slots):
        done = "the device says that the running image is confirmed; not checked: it does not list what runs"
    return MarkResult(done, wanted.hex() if wanted is not None else None, state.slots)


def _check_hash(text: str | None) -> None:
    """Before a device is bothered. Raises `UsageError`."""
    if text is not None and not _HASH.fullmatch(text):
        raise UsageError(
            f"{text!r} is not a hash",
            hint=Hint(f"give {_FEWEST_DIGITS} or more hexadecimal digits of a hash that ", Run("image list"), " shows"),
        )


async def _full_hash(group: ImageGroup, text: str) -> bytes:
    """The hash that `text` means: all of it, or the beginning of one in the image list."""
    if len(text) in _HASH_DIGITS:
        return bytes.fromhex(text)  # perhaps of an image that the list does not show; the device decides
    state = await group.state()
    hashes = {slot.hash for slot in state.slots if slot.hash is not None}
    found = [hash for hash in hashes if hash.hex().startswith(text.lower())]
    if not found:
        raise _refused(f"no image in the device has a hash that begins with {text}", _known(state.slots))
    if len(found) > 1:
        raise UsageError(f"{text} is the beginning of {len(found)} hashes", hint=_known(state.slots))
    return found[0]


async def _other_hash(group: ImageGroup) -> bytes:
    """The hash of the one image that does not run."""
    state = await group.state()
    others = [slot for slot in state.slots if not slot.active]
    if not others:
        numbers = [f"{1 - slot.slot}" for slot in state.slots if slot.active and slot.image == 0] or ["1"]
        raise _refused(f"no image in slot {numbers[0]}", "upload one first ('image upload')")
    if len(others) > 1:
        raise UsageError(f"{len(others)} images do not run: say which by its hash", hint=_known(others))
    if others[0].hash is None:
        raise _refused(
            "the device does not tell the hash of its images",
            "give the hash that the file has ('image inspect')",
        )
    return others[0].hash


def _refused(message: str, hint: str) -> PlanRefused:
    from mcumgrx.plugin_api import PlanRefused

    return PlanRefused(message, hint=hint)


def _known(slots: Iterable[Slot]) -> str:
    known = [
        f"{slot.hash.hex()[:12]}… ({slot.version}, {_slot_name(slot.image, slot.slot, slot.image != 0)})"
        for slot in slots
        if slot.hash is not None
    ]
    return f"the device has {', '.join(known)}" if known else "the device lists no image: upload one first"


# -- image erase ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EraseResult:
    """The slot that was erased, counted over all images; None for the one that the device chose.

    `gone` says that the image list showed an image there before, and not afterwards; None where it cannot tell.
    """

    slot: int | None
    elapsed_s: float
    gone: bool | None = None

    def lines(self) -> list[str]:
        line = f"erased {_erased_slot(self.slot)} in {self.elapsed_s:.1f} s"
        if self.gone:
            return [line]
        return [f"{line}, says the device; the image list cannot show it"]


def _erased_slot(slot: int | None) -> str:
    return "the slot that is not running" if slot is None else f"slot {slot}"


@cli_command(
    Option(
        "--slot",
        "The slot to erase, counted over all images (2 * image + slot); default: the one not running.",
        type=int,
        metavar="N",
    ),
    _ERASE_TIMEOUT,
    epilog="mcumgrx image erase --slot 1 -d /dev/ttyACM0",
)
async def erase(context: CliContext, slot: int | None, erase_timeout: float) -> EraseResult:
    """Erase a slot; this also takes back a mark for the next boot.

    Never needed before an upload, which erases by itself. The device answers nothing else meanwhile.
    """
    import asyncio

    from .group import ImageGroup

    if erase_timeout <= 0 or (slot is not None and slot < 0):
        raise UsageError("--erase-timeout is more than 0, and --slot starts at 0")
    async with context.connect() as client:
        group = client.group(ImageGroup)
        begin = asyncio.get_running_loop().time()
        context.progress(Stage(StageName.ERASE, "this can take a minute"))
        gone = await group.erase(slot, timeout_s=erase_timeout)
        elapsed_s = asyncio.get_running_loop().time() - begin
        if gone is False:
            raise _still_there(slot)
        context.progress(Stage(StageName.ERASE, "", finished=True, elapsed_s=elapsed_s))
    return EraseResult(slot, elapsed_s, gone)


def _still_there(slot: int | None) -> FlowError:
    from mcumgrx.plugin_api import FlowError

    return FlowError(
        f"not erased: the device said yes, but its image list still shows the image in {_erased_slot(slot)}",
        stage=StageName.ERASE,
        slot=slot,
        hint="its flash driver failed, as it seems, and old servers do not tell that; an upload erases the slot too",
    )


# -- image slots ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotList:
    """The slots of the device; sizes in bytes."""

    slots: tuple[SlotInfo, ...]

    def lines(self) -> list[str]:
        if not self.slots:
            return ["the device lists no slot"]
        several = any(slot.image != 0 for slot in self.slots)
        rows = [("slot", "size", "largest image", "upload with", "erase with")]
        for slot in self.slots:
            rows.append(
                (
                    _slot_name(slot.image, slot.slot, several).removeprefix("slot "),
                    _size(slot.size) if slot.size is not None else f"unknown (error {slot.rc})",
                    _size(slot.max_image_size) if slot.max_image_size is not None else "",
                    f"--image {slot.upload_image_id}" if slot.upload_image_id is not None else "",
                    # Clear by itself with one image.
                    f"--slot {2 * slot.image + slot.slot}" if several else "",
                )
            )
        lines = aligned(rows, head=True)
        for slot in self.slots:
            name = _slot_name(slot.image, slot.slot, several)
            lines += [f"{name}: {key} {value_text(value)}" for key, value in slot.extra.items()]
        return lines


@cli_command(epilog="mcumgrx image slots -d /dev/ttyACM0")
async def slots(context: CliContext) -> SlotList:
    """Show the device's slots, their sizes, and with which image number an upload reaches them."""
    from mcumgrx.plugin_api import SmpError

    from .group import ImageGroup

    async with context.connect() as client:
        found = await client.group(ImageGroup).slots()
    if found is None:
        raise DeviceError(
            "the device does not tell its slots",
            group=None,
            rc=SmpError.NOT_SUPPORTED,
            code=SmpError.NOT_SUPPORTED,
            hint="Zephyr can from 4.0 on, built with CONFIG_MCUMGR_GRP_IMG_SLOT_INFO; nothing else needs it",
        )
    return SlotList(found)


# -- image inspect --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TlvFacts:
    """One record behind the image."""

    name: str
    size: int
    protected: bool
    value: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What one image file contains. Sizes in bytes, hashes and values in hexadecimal."""

    file: str
    version: str
    size: int
    header_size: int
    image_size: int
    protected_tlv_size: int
    load_address: int
    flags: tuple[str, ...]
    hash_type: str
    hash: str
    file_sha256: str
    signature: str | None
    signature_name: str | None
    key_hash: str | None
    security_counter: int | None
    dependencies: tuple[str, ...]
    padded: bool
    pad_confirmed: bool
    padding_align: int | None
    vendor_id: str | None
    class_id: str | None
    tlvs: tuple[TlvFacts, ...]
    warnings: tuple[str, ...]
    reset_vector: int | None = None
    sample_key: str | None = None
    """The file name of MCUboot's sample key, where it was signed with one of those."""
    verified: bool | None = None
    """Whether it was signed with the key that was given; None without one, or where it cannot be told."""
    member: str | None = None
    """The file in the package; like what follows, None for what the package does not say, or without one."""
    image: int | None = None
    slot: int | None = None
    """Within the image: the one that the file is linked for."""
    role: str = ""
    board: str | None = None
    soc: str | None = None
    address: int | None = None
    """Where it lies in an Intel HEX, or the address that it is linked for."""
    device: tuple[str, ...] = ()
    """What the device says that goes with it; with `-d`."""
    device_warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Image | PackageImage, file: str, key: bytes | None = None) -> FileFacts:
        from mcumgrx.plugin_api import PackageImage, TlvType, sample_key, signed_by

        entry = found if isinstance(found, PackageImage) else PackageImage(found)
        image = entry.image

        return cls(
            file=file,
            version=str(image.version),
            size=image.size,
            header_size=image.header.header_size,
            image_size=image.header.image_size,
            protected_tlv_size=image.header.protected_tlv_size,
            load_address=image.load_address,
            flags=tuple(flag.name or f"0x{flag:08x}" for flag in image.flags),
            hash_type=image.hash_type.name,
            hash=image.hash.hex(),
            file_sha256=image.file_sha256.hex(),
            signature=image.signature_type.name if image.signature_type is not None else None,
            signature_name=image.signature_name,
            key_hash=image.key_hash.hex() if image.key_hash is not None else None,
            security_counter=image.security_counter,
            dependencies=tuple(f"image {need.image} at least {need.minimum}" for need in image.dependencies),
            padded=image.padded,
            pad_confirmed=image.pad_confirmed,
            padding_align=image.padding_align,
            vendor_id=_uuid(image, TlvType.UUID_VID),
            class_id=_uuid(image, TlvType.UUID_CID),
            tlvs=tuple(TlvFacts(tlv.name, len(tlv.value), tlv.protected, tlv.value.hex()) for tlv in image.tlvs),
            warnings=image.warnings,
            reset_vector=image.reset_vector,
            sample_key=sample_key(image),
            verified=None if key is None else signed_by(image, key),
            member=entry.name,
            image=entry.index,
            slot=entry.slot,
            role=entry.role.value,
            board=entry.board,
            soc=entry.soc,
            address=entry.address,
        )

    def _for_address(self) -> str:
        if "ROM_FIXED" in self.flags:
            return f", for a slot at address 0x{self.load_address:x}"
        if "RAM_LOAD" in self.flags:
            return f", to be loaded into RAM at 0x{self.load_address:x}"
        return f", load address 0x{self.load_address:08x}" if self.load_address else ""

    def lines(self) -> list[str]:
        padding = "marked as confirmed" if self.pad_confirmed else "marked for a test boot"
        padding += f", for a flash with alignment {self.padding_align}"
        target = "" if self.image is None else f"image {self.image}"
        target += "" if self.slot is None else f" slot {self.slot}"
        purpose = [part for part in (target, self.role, self.board or "") if part]
        address = "" if self.address is None or self._for_address() else f"0x{self.address:x}"
        rows = [
            ("for", "" if purpose == ["application"] else ", ".join(purpose)),
            ("version", self.version),
            ("file size", _size(self.size)),
            ("header", f"{_size(self.header_size)}{self._for_address()}"),
            ("payload", _size(self.image_size)),
            ("address", address),
            ("code starts", "" if self.reset_vector is None else f"0x{self.reset_vector & ~1:x} (reset vector)"),
            ("flags", ", ".join(self.flags) or "none"),
            ("hash", f"{self.hash} ({self.hash_type})"),
            ("file SHA-256", self.file_sha256),
            ("signature", self.signature_name or "none"),
            ("key hash", self.key_hash or ""),
            ("key", f"MCUboot's sample key {self.sample_key}: everybody has it" if self.sample_key else ""),
            ("verified", {None: "", True: "signed with this key", False: "NOT signed with this key"}[self.verified]),
            ("security counter", "" if self.security_counter is None else str(self.security_counter)),
            ("needs", ", ".join(self.dependencies)),
            ("vendor", self.vendor_id or ""),
            ("device class", self.class_id or ""),
            ("padded", f"to the end of the slot, {padding}" if self.padded else "no"),
        ]
        heading = f"{self.file}: {self.member}" if self.member else self.file
        lines = [heading, *(f"  {line}" for line in aligned([row for row in rows if row[1]]))]
        tlvs = [("TLV", "bytes", "", "value")]
        for tlv in self.tlvs:
            # The long ones are signatures and keys: their beginning tells them apart.
            value = tlv.value if len(tlv.value) <= 64 else f"{tlv.value[:32]}…"
            tlvs.append((tlv.name, str(tlv.size), "protected" if tlv.protected else "", value))
        lines += [f"  {line}" for line in aligned(tlvs, head=True)]
        lines += [f"  device: {text}" for text in self.device]
        return lines + [f"  warning: {warning}" for warning in (*self.warnings, *self.device_warnings)]


def _uuid(image: Image, kind: int) -> str | None:
    """The UUID in the TLV of this type, as people write it."""
    value = image.tlv_value(kind, protected=True)
    if value is None or len(value) != 16:
        return None
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(frozen=True, slots=True)
class FileRefused:
    """A file that is no image, or cannot be read, and why."""

    file: str
    message: str
    hint: str | None

    def lines(self) -> list[str]:
        return [self.file, f"  error: {self.message}", *([f"  hint: {self.hint}"] if self.hint else [])]


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """A file that is more than one signed binary: what it is, how many images it holds, and what else."""

    file: str
    kind: str
    name: str | None
    images: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, package: Package, file: str) -> PackageFacts:
        return cls(file, package.kind.value, package.name, len(package.images), package.notes, package.warnings)

    def lines(self) -> list[str]:
        count = "1 image" if self.images == 1 else f"{self.images} images"
        name = f" {self.name!r}" if self.name else ""
        return [
            f"{self.file}: {self.kind}{name}, {count}",
            *(f"  {note}" for note in self.notes),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]


@dataclass(frozen=True, slots=True)
class InspectResult:
    """The images, the packages that hold them, and the other files, each in the order given."""

    files: tuple[FileFacts, ...]
    refused: tuple[FileRefused, ...] = ()
    packages: tuple[PackageFacts, ...] = ()

    @property
    def exit_code(self) -> int:
        return _BAD_FILE if self.refused or any(one.verified is False for one in self.files) else 0

    def lines(self) -> list[str]:
        packages = {one.file: one for one in self.packages}
        told: list[list[str]] = []
        for one in self.files:
            package = packages.pop(one.file, None)
            told += [package.lines()] if package else []
            told.append(one.lines())
        lines: list[str] = []
        for part in (*told, *(one.lines() for one in self.refused)):
            lines += ["", *part] if lines else part
        return lines


@cli_command(
    Argument("files", "signed .bin or .hex, package (dfu_application.zip), build directory", type=Path, many=True),
    Option("--key", "Check the signatures with this key, public or private, in PEM.", type=Path, metavar="PEM"),
    needs_device=None,
    epilog="""
    mcumgrx image inspect build/zephyr/zephyr.signed.bin
    mcumgrx image inspect build/dfu_application.zip --key public.pem
    mcumgrx image inspect build/dfu_application.zip -d /dev/ttyACM0
    """,
)
async def inspect(context: CliContext, files: Sequence[Path], key: Path | None = None) -> InspectResult:
    """Show which images FILES contain, and check their structure and hash, and with --key their signature.

    With -d they are compared with what the device says of itself; nothing is changed.
    """
    from mcumgrx.plugin_api import ImageError, in_thread, load_package

    pem = None if key is None else await in_thread(_read_key, key)
    images: list[tuple[PackageImage, FileFacts]] = []
    packages: list[PackageFacts] = []
    refused: list[FileRefused] = []
    for file in files:
        try:
            package = await in_thread(load_package, file)
        except ImageError as error:
            if len(files) == 1:
                raise
            refused.append(FileRefused(str(file), error.message, error.hint))
            continue
        images += [(one, FileFacts.of(one, str(file), pem)) for one in package.images]
        if package.kind != "signed image":
            packages.append(PackageFacts.of(package, str(file)))
    facts = await _compared(context, images) if context.has_device else [one for _, one in images]
    return InspectResult(tuple(facts), tuple(refused), tuple(packages))


async def _compared(context: CliContext, images: Sequence[tuple[PackageImage, FileFacts]]) -> list[FileFacts]:
    from .compare import ask, compared

    async with context.connect() as client:
        device = await ask(client)
    told = [(facts, compared(one, device)) for one, facts in images]
    return [replace(facts, device=good, device_warnings=wrong) for facts, (good, wrong) in told]


_MOST_OF_A_KEY = 64 * 1024


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_OF_A_KEY)
    except (OSError, ValueError) as error:
        reason = system_says(error)
        raise UsageError(
            f"cannot read the key {path}: {reason}", hint="--key names a file with a key, public or private, in PEM"
        ) from error


# -- words ----------------------------------------------------------------------------------------------------------


def _slot_name(image: int, slot: int, several: bool) -> str:
    return f"image {_number(image)} slot {_number(slot)}" if several else f"slot {_number(slot)}"


def _number(told: int) -> str:
    return str(told) if told >= 0 else "?"  # something else than a number, which `extra` shows


def _size(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size:,} bytes ({size / 1024:.0f} KiB)"
