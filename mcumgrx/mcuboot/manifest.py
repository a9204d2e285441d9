"""`manifest.json` of a package. Sources: sdk-nrf's `generate_zip.py`, `zip.cmake`, `b0_packaging.cmake`, `suit.cmake`.

What a file is follows from its `type` before any other key: a bootloader's two variants look like an application's by
their slots. Numbers come as numbers or as text, as the tools of all years have written them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.archive import Archive, Member, shown
from mcumgrx.mcuboot.kinds import SIGNED_HINT

__all__ = ["Entry", "Manifest", "find_manifest"]

_MAX_BYTES = 256 * 1024
_MAX_FILES = 32
_MAX_IMAGE = 15  # MCUboot's trailer has 4 bits for it

_BARE_NUMBER = re.compile(rb'("load_address"\s*:\s*)(0x[0-9A-Fa-f]{1,16})')
"""Very old packages have `0x…` there, which is not JSON; iOS's reader takes the entry out before parsing, too."""

_NUMBER = re.compile(r"\s*(?:0[xX]([0-9A-Fa-f]{1,16})|(-?\d{1,18}))\s*", re.ASCII)

_SUIT = {"suit-envelope", "cache"}

# Only these are the image's own version; `version` and `version_B0` are counters of Nordic's first bootloader.
_VERSIONS = ("version_MCUBOOT", "version_MCUBOOT+XIP")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the package, and what the manifest says of it; None for what it does not say."""

    file: str
    member: Member
    bootloader: bool
    index: int | None
    slot: int | None
    """Within the image: 0 or 1."""
    size: int | None
    load_address: int | None
    board: str | None
    soc: str | None
    versions: tuple[tuple[str, str], ...]
    only_b0: bool
    """It has a version of Nordic's immutable bootloader and none of MCUboot."""

    @property
    def for_network_core(self) -> bool | None:
        """Whether it says that it is for the network core of an nRF5340; None if for another chip, or not said."""
        told = f"{self.board or ''} {self.soc or ''}".lower()
        if "cpunet" in told:
            return True
        if "5340" in told:
            return False
        # Other chips may have something else there.
        return None if self.load_address is None or 0x0100_0000 <= self.load_address < 0x0104_0000 else False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The entries, none of them twice, and what is said of the package as a whole."""

    entries: tuple[Entry, ...]
    name: str | None
    sources: tuple[str, ...]
    """Of which sources it was built, where they were not as committed."""
    warnings: tuple[str, ...] = ()


def find_manifest(archive: Archive) -> Manifest | None:
    """The manifest of an archive, in its root or, where somebody has packed a folder, in that; None without one.

    Raises `ImageError` for one that makes no sense, for files that are missing or there twice, and for packages of
    other systems, by their names.
    """
    found = [name for name in archive.members if f"/{name}".endswith("/manifest.json") and "__MACOSX" not in name]
    if "manifest.json" in found:
        found = ["manifest.json"]
    if len(found) > 1:
        raise ImageError(
            f"the ZIP archive holds {len(found)} packages: {', '.join(map(shown, found[:4]))}",
            hint="unpack it, and pack one of the folders, or take the dfu_application.zip of the build",
        )
    if not found:
        return None
    member = archive.members[found[0]]
    if member.size > _MAX_BYTES:
        raise _unusable(f"it has {member.size:,} bytes")
    return _Reader(archive, found[0].removesuffix("manifest.json")).read(archive.read(member, _MAX_BYTES))


def _unusable(why: str) -> ImageError:
    return ImageError(
        f"this is a ZIP archive whose manifest.json is not usable: {why}",
        hint="build the package again, or unpack it and take the signed .bin",
    )


class _Reader:
    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._twice: list[str] = []
        self._odd = False

    def read(self, text: bytes) -> Manifest:
        manifest = self._json(text)
        if not isinstance(manifest, dict):
            raise _unusable("it is no list of files")
        if isinstance(manifest.get("manifest"), dict):
            raise ImageError(
                "this is a package for Nordic's older DFU (nrfutil), not a signed MCUboot image",
                hint="its bootloader is not MCUboot: use nrfutil",
            )
        files = manifest.get("files")
        if not isinstance(files, list) or not files or not all(isinstance(one, dict) for one in files):
            raise _unusable("it lists no files")
        if {one.get("type") for one in files if isinstance(one.get("type"), str)} & _SUIT:
            raise ImageError(
                "this is a SUIT package (ZIP), not a signed MCUboot image",
                hint="devices with MCUboot do not take it: " + SIGNED_HINT,
            )
        if len(files) > _MAX_FILES:
            raise _unusable(f"it lists {len(files)} files")
        entries = self._slots_by_order([self._entry(one) for one in files])
        if self._twice:
            raise _unusable(f"it says {shown(self._twice[0])} twice")
        _refuse_doubles(entries)
        odd = ("its manifest is no JSON: load_address is written as in very old SDKs",) if self._odd else ()
        return Manifest(entries, _text(manifest.get("name")), tuple(_sources(manifest.get("firmware"))), odd)

    def _json(self, text: bytes) -> Any:
        def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
            keys = [key for key, _ in found]
            self._twice += [key for key in set(keys) if keys.count(key) > 1] if len(set(keys)) < len(keys) else []
            return dict(found)

        text, odd = _BARE_NUMBER.subn(rb'\1"\2"', text)
        self._odd = odd > 0
        try:
            return json.loads(
                text.decode("utf-8-sig"),
                object_pairs_hook=pairs,
                parse_int=lambda digits: int(digits) if len(digits) < 20 else digits,
            )
        except (ValueError, RecursionError):
            raise _unusable("it is no JSON") from None

    def _entry(self, told: dict[str, Any]) -> Entry:
        file = told.get("file")
        if not isinstance(file, str) or not file:
            raise _unusable("an entry names no file")
        bootloader = told.get("type") == "mcuboot"
        index = _number(told, "image_index", _MAX_IMAGE)
        if index is None:
            index = _number(told, "image", _MAX_IMAGE)
        index = 0 if index is None else index
        slot = _number(told, "slot", 2 * _MAX_IMAGE + 1)
        if slot is not None and slot > 1 and slot // 2 != index:
            raise _unusable(f"slot {slot} is none of image {index}")
        member = self._archive.members.get(self._folder + unicodedata.normalize("NFC", file))
        if member is None:
            raise ImageError(
                f"the package is not complete: {shown(file)} is missing", hint="build or download the package again"
            )
        return Entry(
            file,
            member,
            bootloader,
            index,
            None if slot is None else slot % 2,
            _number(told, "size"),
            _number(told, "load_address"),
            _text(told.get("board")),
            _text(told.get("soc")),
            tuple((key, str(told[key])) for key in _VERSIONS if told.get(key) is not None),
            "version_B0" in told and not any(key in told for key in _VERSIONS),
        )

    def _slots_by_order(self, entries: list[Entry]) -> tuple[Entry, ...]:
        """A bootloader's variants come in the order of their slots where they do not name them (NCS before 3.0)."""
        without = [one for one in entries if one.bootloader and one.slot is None]
        order = {id(one): slot for slot, one in enumerate(without)}
        return tuple(replace(one, slot=order[id(one)]) if id(one) in order else one for one in entries)


def _refuse_doubles(entries: tuple[Entry, ...]) -> None:
    """Two files for one place: of which one would be taken?"""
    for number, one in enumerate(entries):
        for other in entries[:number]:
            same = one.bootloader == other.bootloader and one.index == other.index
            if same and (one.slot == other.slot or None in (one.slot, other.slot)):
                where = f"image {one.index}" + ("" if one.slot is None else f", slot {one.slot}")
                raise ImageError(
                    f"the package holds two files for {where}: {shown(other.file)} and {shown(one.file)}",
                    hint="build the package again; each image has one file, or one for each of its slots",
                )


def _number(told: dict[str, Any], key: str, most: int = 1 << 33) -> int | None:
    """A number, which may be text; None where it is not said."""
    value = told.get(key)
    if value is None:
        return None
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        value = int(found[1], 16) if found[1] else int(found[2])
    if type(value) is not int or not 0 <= value <= most:
        raise _unusable(f"{key} is out of range or no number: {shown(str(value))}")
    return value


def _text(value: object) -> str | None:
    return shown(value) if isinstance(value, str) and value else None


def _sources(firmware: object) -> Iterator[str]:
    """Sources that were changed and not committed, as their revision says."""
    for name, told in firmware.items() if isinstance(firmware, dict) else ():
        revision = told.get("revision") if isinstance(told, dict) else None
        if isinstance(revision, str) and revision.endswith("-dirty"):
            yield f"sources of {shown(name)} had changes that were not committed ({shown(revision)})"
