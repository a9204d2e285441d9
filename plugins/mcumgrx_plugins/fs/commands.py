"""The commands `mcumgrx fs …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import (
    Argument,
    CommandContext,
    McumgrError,
    Option,
    Stage,
    StageName,
    UsageError,
    command,
    shown,
)

if TYPE_CHECKING:
    from .group import FileTransfer
    from .local import Sink
    from .messages import HashType

_STANDARD = "-"
_WINDOW = Option(
    "--window",
    "At most this many requests on their way at once; default: what the device takes.",
    type=int,
    metavar="N",
)
_REMOTE = "path in the device, with its mount point, such as /lfs1/config.txt"


def _amount(done: int, resumed_from: int, elapsed_s: float) -> str:
    """`4000 bytes in 1.2 s, 3.3 KB/s`"""
    sent = done - resumed_from
    rate = f", {sent / elapsed_s / 1000:.1f} KB/s" if elapsed_s >= 0.05 and sent else ""
    resumed = f" (the other {resumed_from} were there already)" if resumed_from else ""
    return f"{sent} bytes in {elapsed_s:.1f} s{rate}{resumed}"


def _verified(by: str | None) -> str:
    if by is None:
        return "not compared: the device tells neither hash nor size"
    return "same size (the device takes no hash)" if by == "size" else f"same {by}"


# -- put --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutResult:
    """A file that was written into the device; sizes in bytes.

    `verified_by` is the type of the hash that was compared, `size`, or None.
    """

    file: str
    path: str
    size: int
    resumed_from: int
    verified_by: str | None
    elapsed_s: float

    def lines(self) -> list[str]:
        return [
            f"wrote {self.path}: {_amount(self.size, self.resumed_from, self.elapsed_s)}",
            f"compared with the device: {_verified(self.verified_by)}",
        ]


@command(
    Argument("local", "file to write; - for standard input", type=Path),
    Argument("remote", f"{_REMOTE}; one that ends with / keeps the name"),
    Option("--resume", "Go on with what an interrupted upload has left in the device.", type=bool, default=False),
    Option(
        "--chunk", "At most this much data in a message; default: what device and link take.", type=int, metavar="BYTES"
    ),
    _WINDOW,
    epilog="""
    mcumgrx fs put config.txt /lfs1/ -d serial:/dev/ttyACM0
    mcumgrx fs put --resume sounds.bin /lfs1/sounds.bin -d /dev/ttyACM0
    date | mcumgrx fs put - /lfs1/date.txt -d /dev/ttyACM0
    """,
)
async def put(
    context: CommandContext, local: Path, remote: str, resume: bool, chunk: int | None, window: int | None
) -> PutResult:
    """Write the file LOCAL into the device, in place of what is there, and compare its hash in the end.

    There is no command to make a directory: it must exist. Nor can a file of 0 bytes replace a longer one.
    """
    import asyncio

    from .group import FsGroup
    from .local import open_source, read_standard_input

    if chunk is not None and chunk < 1:
        raise UsageError("--chunk starts at 1")
    _check(window)
    piped = str(local) == _STANDARD
    path = _remote_path(remote, "" if piped else local.name)
    with await read_standard_input() if piped else open_source(local) as file:
        async with context.connect() as client:
            group = client.group(FsGroup)
            begin = asyncio.get_running_loop().time()
            context.progress(Stage(StageName.UPLOAD, path))
            done = await group.upload(
                file, path, resume=resume, chunk_bytes=chunk, window=window, progress=context.progress
            )
            elapsed_s = asyncio.get_running_loop().time() - begin
            context.progress(Stage(StageName.UPLOAD, "", finished=True, elapsed_s=elapsed_s))
    return PutResult(str(local), path, done.size, done.resumed_from, done.verified_by, elapsed_s)


def _check(window: int | None) -> None:
    if window is not None and window < 1:
        raise UsageError("--window starts at 1")


def _remote_path(remote: str, name: str) -> str:
    if not remote.endswith("/"):
        return remote
    if not name:
        raise UsageError(f"{remote} names a directory", hint="add the name that the file shall have in it")
    return remote + name


# -- get --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetResult:
    """A file that was read out of the device; sizes in bytes.

    `verified_by` is the type of the hash that was compared, or `size`.
    """

    path: str
    file: str
    size: int
    resumed_from: int
    verified_by: str | None
    elapsed_s: float

    def lines(self) -> list[str]:
        return [
            f"read {self.path} into {self.file}: {_amount(self.size, self.resumed_from, self.elapsed_s)}",
            f"compared with the device: {_verified(self.verified_by)}",
        ]


@dataclass(frozen=True, slots=True)
class PrintedFile:
    """A file that went to standard output; `text` is what a terminal shows of it."""

    path: str
    size: int
    verified_by: str | None
    text: str | None = None

    def lines(self) -> list[str]:
        return [] if self.text is None else self.text.splitlines()


@command(
    Argument("remote", _REMOTE),
    Argument("local", "file or directory to write to, - for standard output; default: here", type=Path, required=False),
    Option("--resume", "Go on with what an interrupted download has left (LOCAL.part).", type=bool, default=False),
    _WINDOW,
    epilog="""
    mcumgrx fs get /lfs1/config.txt -d serial:/dev/ttyACM0
    mcumgrx fs get --resume /lfs1/log.bin logs/monday.bin -d /dev/ttyACM0
    mcumgrx fs get /lfs1/config.txt - -d /dev/ttyACM0
    """,
)
async def get(
    context: CommandContext, remote: str, local: Path | None, resume: bool, window: int | None
) -> GetResult | PrintedFile:
    """Read the file REMOTE out of the device, and compare its hash in the end.

    What arrives is kept in LOCAL.part until it is whole: an interrupted download replaces nothing. With - for LOCAL
    the content goes to standard output, where the lines of --json would come between.
    """
    _check(window)
    if str(local) == _STANDARD:
        return await _print(context, remote, resume, window)
    from .local import Destination

    destination = Destination(_local_path(local, remote), resume=resume)
    try:
        done, elapsed_s = await _download(context, remote, destination, resume, window)
        destination.finish()
    except BaseException as error:
        # Of what turned out to be wrong nothing is kept.
        kept = destination.abandon(keep=not _is_useless(error))
        if kept and isinstance(error, McumgrError) and not (error.hint and "--resume" in error.hint):
            also = f"{kept} bytes are kept in {destination.part}"
            error.hint = f"{error.hint}; {also}" if error.hint else also
        raise
    file = str(destination.path)
    return GetResult(remote, file, done.size, done.resumed_from, done.verified_by, elapsed_s)


async def _print(context: CommandContext, remote: str, resume: bool, window: int | None) -> PrintedFile:
    from .local import StandardOutput

    if resume:
        raise UsageError("a download to standard output cannot be resumed")
    output = StandardOutput()
    done, _ = await _download(context, remote, output, False, window)
    text = None if output.kept is None else output.kept.decode(errors="backslashreplace")
    return PrintedFile(remote, done.size, done.verified_by, text)


async def _download(
    context: CommandContext, remote: str, sink: Sink, resume: bool, window: int | None
) -> tuple[FileTransfer, float]:
    import asyncio

    from .group import FsGroup

    async with context.connect() as client:
        begin = asyncio.get_running_loop().time()
        context.progress(Stage(StageName.DOWNLOAD, remote))
        group = client.group(FsGroup)
        done = await group.download(remote, sink, resume=resume, window=window, progress=context.progress)
        elapsed_s = asyncio.get_running_loop().time() - begin
        context.progress(Stage(StageName.DOWNLOAD, "", finished=True, elapsed_s=elapsed_s))
    return done, elapsed_s


def _local_path(local: Path | None, remote: str) -> Path:
    if local is not None and not local.is_dir():
        return local
    name = posixpath.basename(remote)
    if name in ("", ".", ".."):
        raise UsageError(
            f"{remote} does not tell a name for the file here", hint="give its name behind the other: REMOTE LOCAL"
        )
    return Path(name) if local is None else local / name


def _is_useless(error: BaseException) -> bool:
    from .plan import FileDamaged

    return isinstance(error, FileDamaged)


# -- size, hash, hashes, close ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SizeResult:
    """The size of a file in bytes."""

    path: str
    size: int

    def lines(self) -> list[str]:
        return [f"{self.size} bytes"]


@command(Argument("remote", _REMOTE), epilog="mcumgrx fs size /lfs1/config.txt -d serial:/dev/ttyACM0")
async def size(context: CommandContext, remote: str) -> SizeResult:
    """Show how large a file in the device is."""
    from .group import FsGroup

    async with context.connect() as client:
        return SizeResult(remote, await client.group(FsGroup).size(remote))


@dataclass(frozen=True, slots=True)
class HashResult:
    """The hash of `length` bytes of a file from `offset` on, in hexadecimal digits."""

    path: str
    type: str
    offset: int
    length: int
    hash: str
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [
            f"{self.type} {self.hash}",
            f"of {self.length} bytes" + (f" from offset {self.offset}" if self.offset else ""),
            *(f"{key} {shown(value)}" for key, value in self.extra.items()),
        ]


@command(
    Argument("remote", _REMOTE),
    Option("--type", "Type of the hash, such as crc32 or sha256; default: the device's.", metavar="TYPE"),
    Option("--offset", "Where in the file to begin.", type=int, default=0, metavar="BYTES"),
    Option("--length", "How much of the file; default: up to its end.", type=int, metavar="BYTES"),
    epilog="""
    mcumgrx fs hash /lfs1/config.txt -d serial:/dev/ttyACM0
    mcumgrx fs hash --type sha256 --offset 16 --length 100 /lfs1/config.txt -d /dev/ttyACM0
    """,
)
async def hash_file(
    context: CommandContext, remote: str, type: str | None, offset: int, length: int | None
) -> HashResult:
    """Show the hash of a file in the device, or of a part of it. Which types it knows, 'mcumgrx fs hashes' tells."""
    from .group import FsGroup

    if offset < 0 or (length is not None and length < 1):
        raise UsageError("--offset starts at 0, and --length at 1")
    async with context.connect() as client:
        found = await client.group(FsGroup).hash(remote, type, offset=offset, length=length)
    return HashResult(remote, found.type, found.offset, found.length, found.hex, found.extra)


@dataclass(frozen=True, slots=True)
class HashTypesResult:
    """The types of hash that the device can take; sizes of their outputs in bytes."""

    types: tuple[HashType, ...]

    def lines(self) -> list[str]:
        if not self.types:
            return ["the device lists no type of hash"]
        return [
            f"{one.name}  {one.size} bytes" + "".join(f"  {key} {shown(value)}" for key, value in one.extra.items())
            for one in self.types
        ]


@command(epilog="mcumgrx fs hashes -d serial:/dev/ttyACM0")
async def hashes(context: CommandContext) -> HashTypesResult:
    """Show which types of hash the device can take of a file."""
    from .group import FsGroup

    async with context.connect() as client:
        return HashTypesResult(await client.group(FsGroup).hash_types())


@dataclass(frozen=True, slots=True)
class CloseResult:
    """The device has closed its file, or had none open."""

    def lines(self) -> list[str]:
        return ["the device has no file open any more"]


@command(epilog="mcumgrx fs close -d serial:/dev/ttyACM0")
async def close(context: CommandContext) -> CloseResult:
    """Let the device close the file that a transfer has left open. It does so by itself after a few seconds."""
    from .group import FsGroup

    async with context.connect() as client:
        await client.group(FsGroup).close()
    return CloseResult()
