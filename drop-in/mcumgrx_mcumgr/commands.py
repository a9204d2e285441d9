"""What is done with a device, and printed of it. The text is a contract: other programs read it.

Its source are `newtmgr/cli/*.go` of mynewt-newtmgr, on which Apache's `mcumgr` is built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

import mcumgrx
from mcumgrx.errors import UsageError, system_says

if TYPE_CHECKING:
    from mcumgrx.address import Address
    from mcumgrx.blocking import BlockingDevice
    from mcumgrx.client import Client
    from mcumgrx.messages.standard import ImageState, Slot

# Devices erase a slot while they answer one request, and a minute is what the slowest need.
_ERASE_S = 60.0

_STACK_WORD_BYTES = 4

_SPLIT = {0: "N/A", 1: "non-matching", 2: "matching"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What options say. `timeout_s` is for each of `tries` requests, as long as none is answered."""

    timeout_s: float = 10.0
    tries: int = 1
    image: int | None = None
    window: int | None = None
    upgrade_only: bool = False

    @property
    def erase_timeout_s(self) -> float:
        return max(self.timeout_s, _ERASE_S)


@contextmanager
def opened(address: Address, settings: Settings) -> Iterator[BlockingDevice]:
    """The device at `address`, connected."""

    async def bound(client: Client) -> None:
        client.repeats = settings.tries - 1

    with mcumgrx.open(address, timeout_s=settings.timeout_s) as device:
        device.run(bound)
        yield device


# -- images -----------------------------------------------------------------------------------------------------------


def image_list(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    _print_images(device.image.state())


def image_test(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    _print_images(device.image.test(image_hash(words[0])))


def image_confirm(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    _print_images(device.image.confirm(image_hash(words[0]) if words else None))


def image_upload(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    upload(device, words[0], settings)
    print("Done")


def image_erase(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    device.image.erase(timeout_s=settings.erase_timeout_s)
    print("Done")


def upload(device: BlockingDevice, file: str, settings: Settings) -> None:
    """Bring the image in `file` into the free slot, with a bar on a terminal."""
    from mcumgrx.contracts import UploadOptions
    from mcumgrx.mcuboot import load_package

    chosen = load_package(file).choose(settings.image)
    options = UploadOptions(
        chosen.number or 0, settings.erase_timeout_s, window=settings.window, upgrade_only=settings.upgrade_only
    )
    shown = sys.stderr.isatty()
    device.image.upload(chosen.image, options, progress=_bar if shown else None)
    if shown:
        print(file=sys.stderr)


def image_hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no hash in hexadecimal", hint="'mcumgr image list' shows the hashes") from error


def flags(slot: Slot) -> str:
    return " ".join(flag for flag in ("active", "confirmed", "pending", "permanent") if getattr(slot, flag))


def hash_text(slot: Slot) -> str:
    return slot.hash.hex() if slot.hash else "Unavailable"


def _print_images(state: ImageState) -> None:
    print("Images:")
    for slot in state.slots:
        print(f" image={slot.image} slot={slot.slot}")
        print(f"    version: {slot.version}")
        print(f"    bootable: {str(slot.bootable).lower()}")
        print(f"    flags: {flags(slot)}")
        print(f"    hash: {hash_text(slot)}")
    split = state.split_status or 0
    print(f"Split status: {_SPLIT.get(split, 'Unknown!')} ({split})")


def _bar(done: int, total: int) -> None:
    print(f"\r {done / 1024:.2f} KiB / {total / 1024:.2f} KiB {done / (total or 1):7.2%}", end="", file=sys.stderr)


# -- operating system -------------------------------------------------------------------------------------------------


def reset(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    device.os.reset()
    print("Done")


def echo(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    print(device.os.echo(words[0]))


def clock(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    if not words:
        print("Datetime(RFC 3339 format):", device.os.clock().text)
        return
    if words[0] == "now":
        time = datetime.now().astimezone()
        print(f"Setting time to {time.isoformat(timespec='seconds')}")
    else:
        try:
            time = datetime.fromisoformat(words[0])
        except ValueError as error:
            raise UsageError(f"{words[0]!r} is no date and time of RFC 3339", hint="2026-03-02T22:44:00Z") from error
    device.os.set_clock(time)
    print("Done")


def tasks(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    found = device.os.tasks().tasks
    heads = ("pri", "tid", "runtime", "csw", "stksz", "stkuse", "last_checkin", "next_checkin")
    _print_task("task", *heads)
    for task in sorted(found, key=lambda task: task.name):
        size, used = ((count or 0) // _STACK_WORD_BYTES for count in (task.stack_size_bytes, task.stack_used_bytes))
        values = (task.prio, task.tid, task.runtime, task.context_switches, size, used)
        _print_task(task.name, *(value or 0 for value in (*values, task.last_checkin, task.next_checkin)))


def _print_task(name: str, priority: object, number: object, *others: object) -> None:
    print(f"  {name:>8}\t{priority:>3} {number:>3} " + " ".join(f"{value:>8}" for value in others))


def pools(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    found = device.os.memory_pools().pools
    print(f"{'name':>32} {'blksz':>5} {'cnt':>4} {'free':>4} {'min':>4}")
    for pool in sorted(found, key=lambda pool: pool.name):
        numbers = [value or 0 for value in (pool.block_bytes, pool.blocks, pool.free, pool.least_free)]
        print(f"{pool.name:>32} {numbers[0]:>5} " + " ".join(f"{number:>4}" for number in numbers[1:]))


# -- statistics, files, shell -----------------------------------------------------------------------------------------


def stat_list(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    names = device.stat.names().names
    print("stat groups:" if names else "stat groups: none")
    for name in sorted(names):
        print(f"    {name}")


def stat(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    found = device.stat.read(words[0])
    print(f"stat group: {found.name}")
    if not found.counters:
        print("    (empty)")
    for name, value in sorted(found.counters.items()):
        print(f"{value:>10} {name}")


def fs_upload(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    with _local(words[0], "rb") as file:
        device.fs.upload(file, words[1], progress=_offset)
    print("Done")


def fs_download(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    with _local(words[1], "wb") as file:
        device.fs.download(words[0], file, progress=_offset)
    print("Done")


def _offset(done: int, total: int) -> None:
    print(done)


@contextmanager
def _local(path: str, mode: str) -> Iterator[BinaryIO]:
    try:
        with open(path, mode) as file:
            yield file  # type: ignore[misc]  # its mode is one of bytes
    except BrokenPipeError:
        raise  # of the output
    except OSError as error:
        if isinstance(error, mcumgrx.McumgrError):
            raise  # of a time-out
        raise UsageError(f"Cannot open file {path} - {system_says(error)}") from error


def shell_exec(device: BlockingDevice, words: list[str], settings: Settings) -> None:
    found = device.shell.run(words)
    print(f"status={found.status}")
    if found.text:
        print(found.text.rstrip("\n"))
