"""The commands `mcumgrx fs …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

import posixpath
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import (
    Argument,
    CliContext,
    Hint,
    McumgrError,
    Note,
    Option,
    Stage,
    StageName,
    UsageError,
    cli_command,
    in_thread,
    value_text,
)

if TYPE_CHECKING:
    from .group import FileTransfer
    from .messages import HashType
    from .source import FileContent
    from .target import Destination, WriteBehind

_STANDARD = "-"
_WINDOW = Option(
    "--window",
    "At most this many requests on their way at once; default: what the device takes.",
    type=int,
    metavar="N",
)
_REMOTE = "path in the device, with its mount point, such as /lfs1/config.txt"

# After this time without a content the user is told what for we wait.
_PATIENCE_S = 1.5

# How long a share that does not answer may keep a command that has been told to end.
_LAST_LOOK_S = 0.4


def _amount(done: int, resumed_from: int, elapsed_s: float) -> str:
    """`4000 bytes in 1.2 s, 3.3 KB/s`"""
    sent = done - resumed_from
    rate = f", {sent / elapsed_s / 1000:.1f} KB/s" if elapsed_s >= 0.05 and sent else ""
    resumed = f" (the other {resumed_from} were there already)" if resumed_from else ""
    return f"{sent} bytes in {elapsed_s:.1f} s{rate}{resumed}"


def _verified(by: str | None, grown: bool = False) -> str:
    if by is None:
        also = ", and its file has grown" if grown else ""
        return f"not compared: the device tells {'no hash' if grown else 'neither hash nor size'}{also}"
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


@cli_command(
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
    context: CliContext, local: Path, remote: str, resume: bool, chunk: int | None, window: int | None
) -> PutResult:
    """Write the file LOCAL into the device, in place of what is there, and compare its hash in the end.

    There is no command to make a directory: it must exist. Nor can a file of 0 bytes replace a longer one.
    """
    import asyncio

    from .group import FsGroup

    if chunk is not None and chunk < 1:
        raise UsageError("--chunk starts at 1")
    _check(window)
    path = _remote_path(remote, local)
    with await _opened(context, local) as content:
        async with context.connect() as client:
            group = client.group(FsGroup)
            begin = asyncio.get_running_loop().time()
            context.progress(Stage(StageName.UPLOAD, path))
            done = await group.upload(
                content, path, resume=resume, chunk_bytes=chunk, window=window, progress=context.progress
            )
            elapsed_s = asyncio.get_running_loop().time() - begin
            context.progress(Stage(StageName.UPLOAD, "", finished=True, elapsed_s=elapsed_s))
    return PutResult(str(local), path, done.size, done.resumed_from, done.verified_by, elapsed_s)


async def _opened(context: CliContext, local: Path) -> FileContent:
    """What LOCAL holds. Where that takes a while, as with a pipe into which nobody writes, it is told."""
    import asyncio

    from .source import open_source, open_stream

    piped = str(local) == _STANDARD
    opening = asyncio.ensure_future(in_thread(open_stream) if piped else in_thread(open_source, local))
    try:
        done, _ = await asyncio.wait([opening], timeout=_PATIENCE_S)
        if not done:
            context.progress(Note(f"reading {'standard input' if piped else local} to its end"))
        return await opening
    except asyncio.CancelledError:
        opening.cancel()
        raise


def _check(window: int | None) -> None:
    if window is not None and window < 1:
        raise UsageError("--window starts at 1")


def _remote_path(remote: str, local: Path) -> str:
    from .local import open_descriptor

    if not remote:
        raise UsageError("the path in the device is empty", hint=f"it is a {_REMOTE}")
    if not remote.endswith("/"):
        return remote
    if str(local) == _STANDARD or not local.name or open_descriptor(str(local)) is not None:
        raise UsageError(f"{remote} names a directory", hint="add the name that the file shall have in it")
    return remote + local.name


# -- get --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetResult:
    """A file that was read out of the device; sizes in bytes.

    `verified_by` is the type of the hash that was compared, `size`, or None. `grown` says that the device's file has
    become longer meanwhile: this is its beginning.
    """

    path: str
    file: str
    size: int
    resumed_from: int
    verified_by: str | None
    elapsed_s: float
    grown: bool = False

    def lines(self) -> list[str]:
        return [
            f"read {self.path} into {self.file}: {_amount(self.size, self.resumed_from, self.elapsed_s)}",
            f"compared with the device: {_verified(self.verified_by, self.grown)}",
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


@cli_command(
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
    context: CliContext, remote: str, local: Path | None, resume: bool, window: int | None
) -> GetResult | PrintedFile:
    """Read the file REMOTE out of the device, and compare its hash in the end.

    What arrives is kept in LOCAL.part until it is whole: an interrupted download replaces nothing. Of a file that grows
    meanwhile, as logs do, its beginning is kept. With - for LOCAL the content goes to standard output, and --json is
    refused, whose lines would come between.
    """
    from .target import Destination, WriteBehind, is_standard_output, open_target

    _check(window)
    if not remote:
        raise UsageError("the path in the device is empty", hint=f"it is a {_REMOTE}")
    if local is not None and (str(local) == _STANDARD or is_standard_output(local)):
        return await _print(context, remote, resume, window)
    target = await in_thread(open_target, await in_thread(_local_path, local, remote), resume=resume)
    behind = WriteBehind(target)
    try:
        done, elapsed_s = await _download(context, remote, behind, resume, window)
        if isinstance(target, Destination):
            await in_thread(target.finish)
    except BaseException as error:
        await behind.stop()
        if isinstance(target, Destination):
            await _abandon(target, error)
        raise
    file = str(target.path) if isinstance(target, Destination) else str(local)
    return GetResult(remote, file, done.size, done.resumed_from, done.verified_by, elapsed_s, done.grown)


async def _abandon(destination: Destination, error: BaseException) -> None:
    """Put away a file that is not whole. Of what turned out to be wrong nothing is kept."""
    import asyncio

    from .plan import FileDamaged

    kept = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_LOOK_S):
            kept = await in_thread(destination.abandon, keep=not isinstance(error, FileDamaged))
    if kept and isinstance(error, McumgrError) and not (error.hint and "--resume" in error.hint):
        also = f"{kept} bytes are kept in {destination.part}"
        error.hint = Hint(error.hint, "; ", also) if error.hint else also


async def _print(context: CliContext, remote: str, resume: bool, window: int | None) -> PrintedFile:
    from .target import StandardOutput, WriteBehind

    if resume:
        raise UsageError("a download to standard output cannot be resumed")
    with context.standard_output():
        output = StandardOutput()
        behind = WriteBehind(output)
        try:
            done, _ = await _download(context, remote, behind, False, window)
        except BaseException:
            await behind.stop()
            raise
    text = None if output.kept is None else output.kept.decode(errors="backslashreplace")
    return PrintedFile(remote, done.size, done.verified_by, text)


async def _download(
    context: CliContext, remote: str, behind: WriteBehind, resume: bool, window: int | None
) -> tuple[FileTransfer, float]:
    import asyncio

    from .group import FsGroup

    async with context.connect() as client:
        begin = asyncio.get_running_loop().time()
        context.progress(Stage(StageName.DOWNLOAD, remote))
        group = client.group(FsGroup)
        done = await group.download(remote, behind, resume=resume, window=window, progress=context.progress)
        elapsed_s = asyncio.get_running_loop().time() - begin
        context.progress(Stage(StageName.DOWNLOAD, "", finished=True, elapsed_s=elapsed_s))
    await behind.drain()
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


# -- size, hash, hashes, close ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SizeResult:
    """The size of a file in bytes."""

    path: str
    size: int

    def lines(self) -> list[str]:
        return [f"{self.size} bytes"]


@cli_command(Argument("remote", _REMOTE), epilog="mcumgrx fs size /lfs1/config.txt -d serial:/dev/ttyACM0")
async def size(context: CliContext, remote: str) -> SizeResult:
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
            *(f"{key} {value_text(value)}" for key, value in self.extra.items()),
        ]


@cli_command(
    Argument("remote", _REMOTE),
    Option("--type", "Type of the hash, such as crc32 or sha256; default: the device's.", metavar="TYPE"),
    Option("--offset", "Where in the file to begin.", type=int, default=0, metavar="BYTES"),
    Option("--length", "How much of the file; default: up to its end.", type=int, metavar="BYTES"),
    epilog="""
    mcumgrx fs hash /lfs1/config.txt -d serial:/dev/ttyACM0
    mcumgrx fs hash --type sha256 --offset 16 --length 100 /lfs1/config.txt -d /dev/ttyACM0
    """,
)
async def hash_file(context: CliContext, remote: str, type: str | None, offset: int, length: int | None) -> HashResult:
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
            one.name
            + ("" if one.size is None else f"  {one.size} bytes")
            + "".join(f"  {key} {value_text(value)}" for key, value in one.extra.items())
            for one in self.types
        ]


@cli_command(epilog="mcumgrx fs hashes -d serial:/dev/ttyACM0")
async def hashes(context: CliContext) -> HashTypesResult:
    """Show which types of hash the device can take of a file."""
    from .group import FsGroup

    async with context.connect() as client:
        return HashTypesResult(await client.group(FsGroup).hash_types())


@dataclass(frozen=True, slots=True)
class CloseResult:
    """The device has closed its file, or had none open, by what it says; nothing can be read that shows it."""

    def lines(self) -> list[str]:
        return ["the device has no file open any more, as it says; nothing can be read that shows it"]


@cli_command(epilog="mcumgrx fs close -d serial:/dev/ttyACM0")
async def close(context: CliContext) -> CloseResult:
    """Let the device close the file that a transfer has left open. It does so by itself after a few seconds."""
    from .group import FsGroup

    async with context.connect() as client:
        await client.group(FsGroup).close()
    return CloseResult()
