"""What a file holds for a device: one image or several, each with what it is for.

Signed binaries, Intel HEX, packages of the nRF Connect SDK (`dfu_application.zip`, both versions of its format, and
`dfu_multi_image.bin`) and archives made by hand become the same value. Sources: sdk-nrf's `generate_zip.py`,
`zip.cmake`, `b0_packaging.cmake` and `dfu_multi_image_tool.py`, and the readers in Nordic's libraries for phones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from mcumgrx.errors import ImageError
from mcumgrx.hints import Hint, Run
from mcumgrx.mcuboot.archive import Archive, shown
from mcumgrx.mcuboot.boards import is_same_board
from mcumgrx.mcuboot.file_bytes import FileBytes
from mcumgrx.mcuboot.header import IMAGE_MAGIC
from mcumgrx.mcuboot.hex import Segment, read_hex
from mcumgrx.mcuboot.image import Image, parse_image
from mcumgrx.mcuboot.kinds import SIGNED_HINT, is_hex, is_multi_image, is_vector_table
from mcumgrx.mcuboot.manifest import Entry, Manifest, find_manifest
from mcumgrx.mcuboot.trailer import TRAILER_ALIGNMENTS, trailer_magic

__all__ = ["ImageRole", "Package", "PackageImage", "PackageKind", "by_slot", "parse_package"]

_MAGIC = IMAGE_MAGIC.to_bytes(4, "little")


class PackageKind(StrEnum):
    """What was given."""

    IMAGE = "signed image"
    HEX = "Intel HEX"
    ARCHIVE = "package (ZIP)"
    MULTI_IMAGE = "package of several images (dfu_multi_image.bin)"
    BUILD = "build directory"

    @property
    def named(self) -> str:
        """With its article."""
        return f"{'an' if self is PackageKind.HEX else 'a'} {self.value}"


class ImageRole(StrEnum):
    """What an image is for, as far as the file says it."""

    APPLICATION = "application"
    NETWORK_CORE = "network core"
    WIFI = "patch of the nRF70 (Wi-Fi)"
    BOOTLOADER = "bootloader"
    INSTALLER = "installer of SoftDevice and firmware loader"


@dataclass(frozen=True, slots=True)
class PackageImage:
    """One image, and what the package says of it."""

    image: Image
    index: int | None = None
    """Number of the image (core) at the device; None where nothing says it, as with a signed binary alone."""
    slot: int | None = None
    """The slot of that image, 0 or 1, that the file is linked for, where there is a file for each; else None."""
    role: ImageRole = ImageRole.APPLICATION
    name: str | None = None
    """Of the file in the package."""
    board: str | None = None
    soc: str | None = None
    address: int | None = None
    """Where it lies, by an Intel HEX or by its flags, or where its code does, by the package."""

    @property
    def number(self) -> int:
        """The image number, 0 where nothing else is said."""
        return self.index or 0

    def is_for(self, board: str) -> bool | None:
        """Whether a device that calls itself `board` can be the one that it was built for; None where nothing says."""
        return None if self.board is None else is_same_board(self.board, board, self.number)

    def __str__(self) -> str:
        parts = [self.name or "", self.board or "", "" if self.address is None else f"at 0x{self.address:x}"]
        told = ", ".join(part for part in parts if part)
        return f"{self.image.version} ({told})" if told else str(self.image.version)


@dataclass(frozen=True, slots=True)
class Package:
    """The images that a file holds; there is at least one.

    `notes` say what else is in it and is not sent, `warnings` what looks wrong, `doubts` what looks so wrong that no
    image is taken out of it: `choose` refuses then.
    """

    kind: PackageKind
    images: tuple[PackageImage, ...]
    path: str | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def installer(self) -> PackageImage | None:
        """The installer of SoftDevice and firmware loader that comes before the application in the same package."""
        if not any(one.role is ImageRole.APPLICATION for one in self.images):
            return None
        return next((one for one in self.images if one.role is ImageRole.INSTALLER), None)

    @property
    def by_index(self) -> dict[int, tuple[PackageImage, ...]]:
        """The images for the application's bootloader to install, by image number; of several each is a variant, linked
        for another slot. An installer is none of them where there is an application to follow it."""
        found: dict[int, tuple[PackageImage, ...]] = {}
        others = {ImageRole.BOOTLOADER, *([ImageRole.INSTALLER] if self.installer else [])}
        for one in sorted((one for one in self.images if one.role not in others), key=lambda one: one.number):
            found[one.number] = (*found.get(one.number, ()), one)
        return found

    def choose(self, index: int | None = None) -> PackageImage:
        """The one image to send: that for image `index`, or the only one. It has a number then, 0 if nothing says one.

        Raises `ImageError` where there is none or more than one, saying what there is.
        """
        images = self._takeable(index)
        if len(images) > 1:
            raise self._refused(
                f"this is {self.kind.named} of {len(images)} images: {_listed(images)}",
                Hint(
                    "all of them belong together, and ",
                    Run("dfu", self.path or "FILE"),
                    f" brings them at once; one alone is chosen with --image {' or '.join(map(str, images))}",
                ),
            )
        ((number, variants),) = images.items()
        if len(variants) > 1:
            raise self._refused(
                f"this is {self.kind.named} with {len(variants)} files for image {number}, linked for different slots: "
                f"{_variants(variants)}",
                Hint("which of them a device takes is found out by ", Run("dfu", self.path or "FILE")),
            )
        return variants[0]

    def choose_all(self, index: int | None = None, *, bootloader: bool = False) -> tuple[PackageImage, ...]:
        """What there is to send of it: as `choose`, but all images, and of each the files for all of its slots.

        `bootloader`: those that update the bootloader itself, and no others.
        """
        if bootloader:
            found = tuple(one for one in self.images if one.role is ImageRole.BOOTLOADER)
            if not found or len(found) < len(self.images):
                raise self._refused(
                    f"this is {self.kind.named} for the application, and not for the bootloader",
                    "take the dfu_mcuboot.zip of the build; without --bootloader this one goes to the application",
                )
            return found
        return tuple(one for variants in self._takeable(index).values() for one in variants)

    def _takeable(self, index: int | None) -> dict[int, tuple[PackageImage, ...]]:
        """As `by_index`, of this image alone if it is said; all of them have a number."""
        for doubt in self.doubts:
            raise self._refused(doubt, "build the package again, or unpack it and check its files one by one")
        images = self.by_index
        if not images:
            raise self._refused(
                f"this is {self.kind.named} that updates the bootloader: it would replace MCUboot, not the application",
                Hint(
                    "for the application take dfu_application.zip; to replace the bootloader itself: ",
                    Run("dfu", self.path or "FILE", "--bootloader"),
                ),
            )
        if all(one.index is None for variants in images.values() for one in variants):
            images = {index or 0: images[0]}
        if index is not None and index not in images:
            numbers = " and ".join(str(number) for number in images)
            raise self._refused(
                f"this is {self.kind.named} without an image {index}: it holds {_listed(images)}",
                f"add --image {numbers}",
            )
        return {
            number: tuple(replace(one, index=number) for one in variants)
            for number, variants in images.items()
            if index in (None, number)
        }

    def told_of(self, *chosen: PackageImage) -> tuple[str, ...]:
        """What to warn of where these images alone are sent."""
        numbers = {one.number for one in chosen}
        others = [str(number) for number in self.by_index if number not in numbers]
        if not others or len(self.by_index) == 1:
            return self.warnings
        alone = f"image {min(numbers)} alone is sent, and the package holds image {' and '.join(others)} to go with it"
        return (*self.warnings, alone)

    def _refused(self, message: str, hint: str) -> ImageError:
        return ImageError(message, path=self.path, hint=hint)


def by_slot(images: Iterable[PackageImage]) -> dict[int, Image | dict[int, Image]]:
    """The images by their numbers, as updates take them; files that are linked for a slot by that."""
    found: dict[int, Image | dict[int, Image]] = {}
    for one in images:
        if one.slot is None:
            found[one.number] = one.image
            continue
        files = found.setdefault(one.number, {})
        if isinstance(files, dict):
            files[one.slot] = one.image
    return found


def _listed(images: dict[int, tuple[PackageImage, ...]]) -> str:
    return "; ".join(
        f"image {number} is {variants[0]}" if len(variants) == 1 else f"image {number} has {len(variants)} variants"
        for number, variants in images.items()
    )


def _variants(images: Iterable[PackageImage]) -> str:
    return "; ".join(f"slot {one.slot if one.slot is not None else '?'} takes {one}" for one in images)


def parse_package(data: bytes | FileBytes, *, path: str | None = None) -> Package:
    """What `data` holds, all of it checked: structure and hash of every image, and that they belong together.

    Raises `ImageError` where it holds no image, or not all that it should.
    """
    try:
        package = _parse(data)
    except ImageError as error:
        error.path = path
        raise
    images = tuple(replace(one, image=replace(one.image, path=path)) for one in package.images)
    return replace(package, images=images, path=path)


def _parse(data: bytes | FileBytes) -> Package:
    start = bytes(data[:4096])
    if start.startswith(b"PK\x03\x04"):
        return _from_archive(Archive(data))
    if is_hex(start):
        return _from_hex(data)
    if is_multi_image(start):
        return _from_multi_image(data)
    return _of_image(parse_image(data))


def _where(error: ImageError, place: str) -> ImageError:
    """The error, with where in the file it is."""
    return ImageError(f"{place}: {error.message}", path=error.path, hint=error.hint)


def _of_image(image: Image) -> Package:
    """A signed binary by itself."""
    return Package(PackageKind.IMAGE, (PackageImage(image, address=_address(image), role=_role(image)),), image.path)


def _address(image: Image) -> int | None:
    return image.load_address or None


def _role(image: Image, name: str = "") -> ImageRole:
    if image.for_network_core:
        return ImageRole.NETWORK_CORE
    if image.installer:
        return ImageRole.INSTALLER
    return ImageRole.WIFI if "nrf70" in name.lower() else ImageRole.APPLICATION


# -- Intel HEX ---------------------------------------------------------------------------------------------------------

_MAX_SLOT = 16 * 1024 * 1024
_TRAILER_BYTES = 96
"""As much as `imgtool` writes of a trailer: the magic, and what says confirmed before it."""


def _from_hex(data: bytes | FileBytes) -> Package:
    """An image is what begins a segment; what merely holds the magic somewhere has it in its code."""
    text = read_hex(data)
    segments = list(text.segments)
    found: list[PackageImage] = []
    rest: list[Segment] = []
    while segments:
        segment = segments.pop(0)
        if not segment.data.startswith(_MAGIC):
            rest.append(segment)
            continue
        try:
            image = parse_image(_with_trailer(segment, segments))
        except ImageError as error:
            raise _where(error, f"the image at 0x{segment.address:x}") from None
        found.append(PackageImage(image, address=segment.address, role=_role(image)))
    if not found:
        what = "an Intel HEX text without a record of data"
        if rest:
            code = any(is_vector_table(one.data, 0) for one in rest)
            what = (
                f"an Intel HEX text of {'unsigned firmware' if code else 'something else'}: none of its "
                f"segments ({len(rest)}) begins with an image"
            )
        raise ImageError(f"this is {what}", hint="take zephyr.signed.hex or zephyr.signed.bin, or dfu_application.zip")
    return Package(PackageKind.HEX, _numbered(found), notes=tuple(_left_out(rest)), warnings=text.warnings)


def _with_trailer(segment: Segment, later: list[Segment]) -> bytes:
    """The image with the trailer of its slot, where the file has one: nothing lies between but erased flash."""
    for count, one in enumerate(later[:2], 1):
        if len(one.data) > _TRAILER_BYTES or one.end - segment.address > _MAX_SLOT or one.data.startswith(_MAGIC):
            break
        if any(one.data.endswith(trailer_magic(align)) for align in TRAILER_ALIGNMENTS):
            whole = bytearray(b"\xff") * (one.end - segment.address)
            for part in (segment, *later[:count]):
                whole[part.address - segment.address : part.end - segment.address] = part.data
            del later[:count]
            return bytes(whole)
    return segment.data


def _numbered(found: list[PackageImage]) -> tuple[PackageImage, ...]:
    """One image can be for any number. Of several, the network core's is image 1, and two for one core are linked for
    its two slots, the lower address being slot 0."""
    if len(found) == 1:
        return tuple(found)
    numbered: list[PackageImage] = []
    for index, role in enumerate((ImageRole.APPLICATION, ImageRole.NETWORK_CORE)):
        same = [one for one in found if one.role is role]
        slots = range(2) if len(same) == 2 else [None] * len(same)
        numbered += [replace(one, index=index, slot=slot) for one, slot in zip(same, slots, strict=True)]
    return tuple(numbered)


_UICR = (range(0x1000_1000, 0x1000_2000), range(0x00FF_8000, 0x0100_0000), range(0x01FF_8000, 0x0200_0000))
"""Of nRF52 and nRF53 (application), nRF91 and nRF54L, nRF53 (network core)."""


def _left_out(rest: list[Segment]) -> Iterator[str]:
    settings = [one for one in rest if any(one.address in area for area in _UICR)]
    if settings:
        size = sum(len(one.data) for one in settings)
        yield f"not sent: {size:,} bytes of UICR (settings of the chip) at 0x{settings[0].address:x}"
    for one in rest:
        if one not in settings:
            what = "a program without image header, as a bootloader is" if is_vector_table(one.data, 0) else "data"
            yield f"not sent: {len(one.data):,} bytes at 0x{one.address:x}, {what}"


# -- archives ----------------------------------------------------------------------------------------------------------


def _from_archive(archive: Archive) -> Package:
    manifest = find_manifest(archive)
    return _by_hand(archive) if manifest is None else _from_manifest(archive, manifest)


def _by_hand(archive: Archive) -> Package:
    """Without a manifest: the one binary, or the one HEX."""
    names = [name for name in archive.members if not _litter(name)]
    packages = [name for name in names if name.lower().endswith(".zip")]
    if packages:
        raise ImageError(
            "this is a ZIP archive with another one in it, not a signed MCUboot image",
            hint=f"unpack it: it holds {_names(packages)}; take that",
        )
    if any("firmware.update.image" in name for name in names):
        raise ImageError(
            "this is a package for the modem of an nRF91 (ZIP), not a signed MCUboot image",
            hint="it is written with nrfutil, or by the application; for the application take dfu_application.zip",
        )
    found = [name for name in names if name.lower().endswith(".bin")]
    found = found or [name for name in names if name.lower().endswith(".hex")]
    if len(found) == 2 and (both := _with_installer(archive, found)):
        return both
    if len(found) > 1:
        raise ImageError(
            f"this is a ZIP archive of several images: {_names(found)}, and nothing in it says which is for what",
            hint="take dfu_application.zip with its manifest.json, or unpack it and bring each signed .bin by itself",
        )
    if not found:
        raise ImageError(
            "this is a ZIP archive, not a signed MCUboot image", hint=f"there is no .bin in it; {SIGNED_HINT}"
        )
    data = archive.read(archive.members[found[0]])
    name = found[0].rpartition("/")[2]
    try:
        inner = _from_hex(data) if is_hex(data[:4096]) else _of_image(parse_image(data))
    except ImageError as error:
        raise _where(error, f"{shown(name)} in the ZIP archive") from None
    notes = (f"the archive has no manifest: {shown(name)} is all that it holds", *inner.notes)
    return replace(
        inner, kind=PackageKind.ARCHIVE, notes=notes, images=tuple(replace(one, name=name) for one in inner.images)
    )


def _with_installer(archive: Archive, names: list[str]) -> Package | None:
    """Of two files one may be an installer, and the other the application that follows it."""
    images: list[PackageImage] = []
    for name in names:
        try:
            image = parse_image(archive.read(archive.members[name]))
        except ImageError:
            return None
        images.append(PackageImage(image, address=_address(image), role=_role(image), name=name.rpartition("/")[2]))
    package = Package(
        PackageKind.ARCHIVE, tuple(images), notes=("the archive has no manifest: an installer and an application",)
    )
    return package if package.installer is not None else None


def _litter(name: str) -> bool:
    """What macOS and Windows put into folders."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith((".", "Thumbs.db"))


def _names(names: list[str]) -> str:
    more = len(names) - 4
    return ", ".join(map(shown, names[:4])) + (f" and {more} more" if more > 0 else "")


def _from_manifest(archive: Archive, manifest: Manifest) -> Package:
    found: list[PackageImage] = []
    warnings: list[str] = []
    doubts: list[str] = []
    for entry in manifest.entries:
        image = _entry_image(archive, entry, warnings)
        role = ImageRole.BOOTLOADER if entry.bootloader else _role(image, entry.file)
        address = entry.load_address if image.rom_address is None else image.rom_address
        found.append(PackageImage(image, entry.index, entry.slot, role, entry.file, entry.board, entry.soc, address))
        if told := _contradiction(entry, image):
            doubts.append(told)
    if len(doubts) > 1:
        doubts = [f"files in the package look exchanged: {'; '.join(doubts)}"]
    notes = [f"its {what}" for what in manifest.sources]
    if all(one.role is ImageRole.BOOTLOADER for one in found):
        notes.append("it updates the bootloader, in two variants of which a device takes one; not the application")
    return Package(
        PackageKind.ARCHIVE,
        tuple(found),
        None,
        manifest.name,
        tuple(notes),
        (*manifest.warnings, *warnings, *doubts),
        tuple(doubts),
    )


def _entry_image(archive: Archive, entry: Entry, warnings: list[str]) -> Image:
    """The image of an entry. Nothing is unpacked that is much more than the manifest says."""
    name = shown(entry.file)
    size = entry.member.size
    if entry.size is not None and entry.size != size:
        if size > 2 * entry.size:
            raise ImageError(
                f"the manifest says {entry.size:,} bytes for {name}, but it unpacks to {size:,}",
                hint="build the package again; this one is damaged or was made to do harm",
            )
        warnings.append(f"the manifest says {entry.size:,} bytes for {name}, which has {size:,}")
    data = archive.read(entry.member)
    if entry.only_b0 and not data.startswith(_MAGIC):
        raise ImageError(
            f"{name} in the package is no MCUboot image but one for Nordic's immutable bootloader (NSIB) alone",
            hint="a device without MCUboot takes no image over SMP",
        )
    try:
        image = parse_image(data)
    except ImageError as error:
        raise _where(error, f"{name} in the package") from None
    for key, version in entry.versions:
        if version not in (str(image.version), image.version.device_text, f"{image.version}+0"):
            warnings.append(f"the manifest says {shown(version)} ({key}) for {name}, which is {image.version}")
    return image


_NETWORK_FLASH = range(0x0100_0000, 0x0104_0000)


def _contradiction(entry: Entry, image: Image) -> str | None:
    """The core that the code is linked for is not the entry's (nRF5340): the device would erase it, or not boot."""
    vector = image.reset_vector
    says = entry.for_network_core
    if vector is None or says is None or says == (vector in _NETWORK_FLASH):
        return None
    where = "" if entry.load_address is None else f" (0x{entry.load_address:x})"
    core = "network core" if says else "application core"
    return (
        f"{shown(entry.file)}, image {entry.index or 0}, is linked for 0x{vector:08x}, but its entry is for the {core}"
        f"{where}"
    )


# -- dfu_multi_image.bin -----------------------------------------------------------------------------------------------

_MAX_IMAGES = 16
_ALIGNED = 64
"""Newer tools align the images; no flash writes more at once."""


def _from_multi_image(data: bytes | FileBytes) -> Package:
    length = int.from_bytes(data[:2], "little")
    whole = len(data)
    if 2 + length > whole or length > 4096:
        raise _multi_damaged("its list of contents is cut")
    listed = _Contents(bytes(data[2 : 2 + length])).images()
    found: list[PackageImage] = []
    notes: list[str] = []
    at = 2 + length
    for number, size in listed:
        at = _aligned(data, at)
        if at + size > whole:
            raise _multi_damaged(f"it ends {at + size - whole:,} bytes before image {number} does")
        content = bytes(data[at : at + size])
        at += size
        if number < 0:
            notes.append(f"not sent: {size:,} bytes for target {number}, which is none of MCUboot's images")
            continue
        try:
            image = parse_image(content)
        except ImageError as error:
            raise _where(error, f"image {number} in the package") from None
        if any(one.index == number for one in found):
            raise ImageError(f"the package holds two files for image {number}", hint="build the package again")
        found.append(PackageImage(image, number, role=_role(image), address=_address(image)))
    if at != whole:
        raise _multi_damaged(f"{whole - at:,} bytes follow its images")
    if not found:
        raise ImageError("the package holds nothing for MCUboot", hint="take dfu_application.zip")
    return Package(PackageKind.MULTI_IMAGE, tuple(found), notes=tuple(notes))


def _multi_damaged(what: str) -> ImageError:
    return ImageError(
        f"this is a package of several images (dfu_multi_image.bin) that is cut or damaged: {what}",
        hint="download or build it again, or take dfu_application.zip",
    )


def _aligned(data: bytes | FileBytes, at: int) -> int:
    """Where the next image begins: here, or behind some filler."""
    near = bytes(data[at : at + _ALIGNED])
    filler = near.find(_MAGIC)
    return at + filler if filler > 0 and near[:filler] in (b"\0" * filler, b"\xff" * filler) else at


class _Contents:
    """The list of contents: CBOR `{"img": [{"id": int, "size": int}, …]}`, and nothing else that CBOR can be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def images(self) -> list[tuple[int, int]]:
        """Number and size of each."""
        if self._head(5) != 1 or self._text() != "img":
            raise _multi_damaged("its list of contents cannot be read")
        found = [self._image() for _ in range(min(self._head(4), _MAX_IMAGES + 1))]
        if not 0 < len(found) <= _MAX_IMAGES or self._at != len(self._data):
            raise _multi_damaged("its list of contents cannot be read")
        return found

    def _image(self) -> tuple[int, int]:
        told = {self._text(): self._integer() for _ in range(min(self._head(5), 8))}
        if "id" not in told or told.get("size", 0) <= 0:
            raise _multi_damaged("its list of contents cannot be read")
        return told["id"], told["size"]

    def _text(self) -> str:
        end = self._head(3) + self._at
        text, self._at = self._data[self._at : end], end
        return text.decode("ascii", "replace")

    def _integer(self) -> int:
        negative = self._data[self._at : self._at + 1] >= b"\x20"
        value = self._head(1 if negative else 0)
        return -1 - value if negative else value

    def _head(self, major: int) -> int:
        """The number in the head of an item, which has to be of this major type."""
        first = self._data[self._at] if self._at < len(self._data) else 0xFF
        size = {24: 1, 25: 2, 26: 4}.get(first & 0x1F, 0)
        if first >> 5 != major or (not size and first & 0x1F > 23):
            raise _multi_damaged("its list of contents cannot be read")
        self._at += 1 + size
        return int.from_bytes(self._data[self._at - size : self._at], "big") if size else first & 0x1F
