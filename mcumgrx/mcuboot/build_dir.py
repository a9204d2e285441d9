"""West's build directories: which of their files is the update. Sources: Zephyr's `cmake/mcuboot.cmake` and
`share/sysbuild`, sdk-nrf's `cmake/sysbuild/zip.cmake`.

Paths in a build directory are those of the machine that built it, often another one: only names are taken from its
files, and looked for below the directory itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.file_bytes import unreadable
from mcumgrx.mcuboot.package import Package, PackageKind, parse_package

__all__ = ["load_build"]

_TEXT_BYTES = 1024 * 1024
_FILE_BYTES = 32 * 1024 * 1024
_MAX_DOMAINS = 32

_DOMAIN = re.compile(r"^\s*-?\s*name:\s*[\"']?([A-Za-z0-9_.+-]{1,100})[\"']?\s*$", re.MULTILINE)
_DEFAULT = re.compile(r"^default:\s*[\"']?([A-Za-z0-9_.+-]{1,100})[\"']?\s*$", re.MULTILINE)
_SETTING = re.compile(
    r"^(CONFIG_(?:KERNEL_BIN_NAME|BOARD_TARGET|BOARD|BOOTLOADER_MCUBOOT))=\"?([^\"\n]*)\"?$", re.MULTILINE
)

_BOOTLOADERS = {"mcuboot", "b0", "b0n", "s1_image"}
_SIGNED_FOR_B0 = "signed_by_mcuboot_and_b0_"

_COPIED_S = 10.0
"""Files that are copied together may get their times in any order."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A signed file, and the board that it was built for."""

    path: Path
    board: str | None


def load_build(folder: str) -> Package:
    """What the build in `folder` made for an update: its `dfu_application.zip`, or else its signed image.

    The confirmed file is never taken, and an unsigned one never either. Raises `ImageError` where the build has none,
    or several images without a package that tells them apart.
    """
    root = Path(folder)
    try:
        found = _signed(root)
        package = root / "dfu_application.zip"
        if package.is_file():
            return _from_package(root, package, found)
    except OSError as error:
        raise unreadable(folder, error) from error
    if not found:
        raise _nothing(root)
    if len(found) > 1:
        names = ", ".join(_shown(root, one.path) for one in found[:6])
        raise ImageError(
            f"{folder} is a build of several images: {names}",
            path=folder,
            hint="build dfu_application.zip (sysbuild does, with SB_CONFIG_DFU_ZIP), or bring each file with --image",
        )
    return _from_file(root, found[0])


def _from_package(root: Path, package: Path, found: list[_Found]) -> Package:
    """The package, unless a signed file is newer and not the one in it."""
    data = _bytes(package)
    loaded = parse_package(data, path=str(package))
    packed_s = package.stat().st_mtime
    for one in found:
        if one.path.stat().st_mtime <= packed_s + _COPIED_S:
            continue
        content = _bytes(one.path)
        if any(inner.image.data == content for inner in loaded.images):
            continue
        newer = f"{_shown(root, one.path)} is newer than {package.name}, and not in it"
        if len(loaded.images) > 1 or len(found) > 1:
            raise ImageError(f"{newer}: one of them is not of this build", path=str(root), hint="build once more")
        taken = _from_file(root, one)
        return replace(taken, warnings=(*taken.warnings, newer))
    note = f"from {package.name} in the build directory"
    return replace(loaded, kind=PackageKind.BUILD, notes=(note, *loaded.notes))


def _from_file(root: Path, one: _Found) -> Package:
    taken = parse_package(_bytes(one.path), path=str(one.path))
    images = tuple(replace(inner, name=one.path.name, board=one.board) for inner in taken.images)
    note = f"from {_shown(root, one.path)} in the build directory"
    return replace(taken, kind=PackageKind.BUILD, images=images, notes=(note, *taken.notes))


# -- which files there are ---------------------------------------------------------------------------------------------


def _signed(root: Path) -> list[_Found]:
    """The signed files of a build, one for each image."""
    listed = _text(root / "domains.yaml")
    if not listed:
        places = [root / "zephyr", root] if (root / "zephyr").is_dir() else [root]
        return [one for place in places for one in _of_domain(place)][:1]
    names = list(dict.fromkeys(_DOMAIN.findall(listed)))[:_MAX_DOMAINS]
    first = _DEFAULT.search(listed)
    names.sort(key=lambda name: first is None or name != first[1])
    found: list[_Found] = []
    for name in names:
        if name not in _BOOTLOADERS:
            # An image behind Nordic's second bootloader is signed in the root, under the name of its domain.
            both = root / f"{_SIGNED_FOR_B0}{name}.bin"
            found += (
                [_Found(both, _board(root / name / "zephyr"))] if both.is_file() else _of_domain(root / name / "zephyr")
            )
    return found


def _of_domain(place: Path) -> list[_Found]:
    """The signed file that Zephyr's build makes in this folder; encrypted only if there is no other."""
    kernel = dict(_SETTING.findall(_text(place / ".config"))).get("CONFIG_KERNEL_BIN_NAME", "zephyr")
    if "/" in kernel or "\\" in kernel:
        kernel = "zephyr"
    for ending in ("signed.bin", "signed.encrypted.bin", "signed.hex"):
        file = place / f"{kernel}.{ending}"
        if file.is_file():
            return [_Found(file, _board(place))]
    return []


def _board(place: Path) -> str | None:
    settings = dict(_SETTING.findall(_text(place / ".config")))
    return settings.get("CONFIG_BOARD_TARGET") or settings.get("CONFIG_BOARD")


def _nothing(root: Path) -> ImageError:
    """Why there is nothing to take from this directory."""
    builds = [
        root / "zephyr",
        root,
        *(root / name / "zephyr" for name in _DOMAIN.findall(_text(root / "domains.yaml"))),
    ]
    config = next((text for text in (_text(place / ".config") for place in builds) if text), "")
    if not config:
        return ImageError(
            f"{root} is a directory, and no build of Zephyr's: it has no zephyr/.config",
            path=str(root),
            hint="name the file itself, or the build directory that has zephyr/zephyr.signed.bin in it",
        )
    if dict(_SETTING.findall(config)).get("CONFIG_BOOTLOADER_MCUBOOT") == "y":
        return ImageError(
            f"the build in {root} has no signed image",
            path=str(root),
            hint="has the build succeeded? It signs with imgtool, which has to be installed",
        )
    return ImageError(
        f"the build in {root} is not signed: it was made without MCUboot",
        path=str(root),
        hint="build it with CONFIG_BOOTLOADER_MCUBOOT=y (west build --sysbuild with SB_CONFIG_BOOTLOADER_MCUBOOT=y)",
    )


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        raise ImageError(f"{path} is larger than {_FILE_BYTES:,} bytes, too large for an update", path=str(path))
    return data


def _shown(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _text(path: Path) -> str:
    """The beginning of a text file; nothing where there is none."""
    try:
        with path.open("rb") as stream:
            return stream.read(_TEXT_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
