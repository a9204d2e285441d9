"""`FsGroup`: the commands of group 8 over a client.

What a transfer asks next, and what the answers mean, is in `plan`; what is on this computer, in `local`.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar

from mcumgrx.plugin_api import (
    Delivery,
    DeviceError,
    Group,
    Hint,
    LinkLost,
    MalformedReply,
    McumgrError,
    Note,
    Progress,
    RequestTimeout,
    SmpCommand,
    SmpError,
    StageName,
    UsageError,
    find_message_size,
    ignore_progress,
    in_thread,
    transfer,
    window_for,
)

from .ahead import ReadAhead
from .chunks import Step
from .get_plan import FileGetPlan
from .local import Digest
from .messages import (
    CloseFile,
    FileHash,
    FsErrorCode,
    HashType,
    ReadFile,
    ReadHash,
    ReadHashTypes,
    ReadStatus,
)
from .plan import HASH_TYPES, FileDamaged, FilePutPlan, Prefix, Whole
from .source import FileContent, collected, content_of
from .target import PartialFile, Sink

R = TypeVar("R")

Source = bytes | BinaryIO | AsyncIterable[bytes] | FileContent
"""What can be uploaded: bytes, a binary file (all of it; where it cannot be sought, what is left), or a stream."""

# "No buffer" says when to try again, not that anything is wrong; so does nobody for ever. Busy devices: see the client.
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)

# A device was never seen to hash slower: it reads the file in small pieces.
_HASH_BYTES_PER_S = 5_000

# What `read` asks for before it passes on what has come.
_READ_BYTES = 16 * 1024

_PATH_BYTES = 64  # the default of CONFIG_MCUMGR_GRP_FS_PATH_LEN

# A file of so many messages is through before a window has found out how much the link holds.
_BRIEF = 8

_SIGNED_32 = 0x7FFFFFFF

_OPTION = "CONFIG_MCUMGR_GRP_FS"
_OTHER_TROUBLE = (
    "its file system has a reason that this protocol has no number for, such as no memory, or too many files open at "
    "once: the device's log may tell"
)
_MAYBE_A_DIRECTORY = "So it says, too, where the path of an upload names a directory: then add the file's name"
_RESUME = "what has arrived is kept: run the same command again with --resume to go on from there"


@dataclass(frozen=True, slots=True)
class FileTransfer:
    """A transfer that has ended well. Sizes in bytes.

    Attributes:
        resumed_from: how much was there before.
        verified_by: the type of the hash that device and content were found to share, `size` where the device takes
            no hash, None where it tells neither.
        retransmissions: chunks that were sent, or asked for, again.
        grown: there is more in the device by now than the `size` bytes that were downloaded, behind them.
    """

    name: str
    size: int
    resumed_from: int = 0
    verified_by: str | None = None
    retransmissions: int = 0
    grown: bool = False


class FsGroup(Group):
    """Group 8 of a connected device. Every method raises the errors of `Client.request`.

    Paths are absolute and begin with a mount point. The server has one file open at a time, so transfers are best
    done one after the other.
    """

    async def size(self, name: str) -> int:
        """The size of a file in bytes."""
        with _explaining(name, f"or without {_OPTION}_FILE_STATUS"):
            return (await self._ask(ReadStatus(name))).size

    async def hash(
        self,
        name: str,
        type: str | None = None,
        *,
        offset: int = 0,
        length: int | None = None,
        timeout_s: float | None = None,
    ) -> FileHash:
        """The hash of a file, or of `length` bytes of it from `offset` on.

        Without a type it is the device's default. The device reads the whole range before it answers: allow for that.
        """
        with _explaining(name, f"or without {_OPTION}_CHECKSUM_HASH"):
            return await self._ask(ReadHash(name, type, offset, length), timeout_s=timeout_s)

    async def hash_types(self) -> tuple[HashType, ...]:
        """The types of hash that the device can take."""
        with _explaining(lacking=f"or without {_OPTION}_CHECKSUM_HASH_SUPPORTED_CMD"):
            return await self._ask(ReadHashTypes())

    async def close(self) -> None:
        """Close the file that the device has open, so that its application sees all that was written."""
        with _explaining(lacking="or is older than Zephyr 3.3"):
            await self._ask(CloseFile())

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, name: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The content of a file from `offset` on, piece by piece as it comes.

        ::

            async with aclosing(group.read("/lfs1/log")) as pieces:
                async for piece in pieces:
                    ...
        """
        pieces: list[bytes] = []
        plan = FileGetPlan(name, pieces.append, offset=offset, size=await self._size_anyhow(name) if offset else None)
        window = await self._window(name, None, ignore_progress)
        while not plan.whole:
            plan.go_on(_READ_BYTES)
            with _explaining(name):
                await transfer(self.client, plan, window, stage=StageName.DOWNLOAD)
            arrived = pieces.copy()
            pieces.clear()
            for piece in arrived:
                yield piece
        await self._closed_after(plan)

    async def download(
        self,
        name: str,
        sink: Sink,
        *,
        resume: bool = False,
        window: int | None = None,
        progress: Progress = ignore_progress,
    ) -> FileTransfer:
        """Write the content of a file into `sink`, and compare its hash with the device's in the end.

        With `resume`, `sink` is a file that can be read and sought, and what it holds is kept if it is the beginning
        of the device's file by its hash; otherwise it is truncated. Errors of `sink` are the caller's. As many
        requests are on their way as device and link have room for, or `window` if that is less.

        Of a file that becomes longer meanwhile, as logs do, this is the beginning, as long as the device told first.

        Raises `FileDamaged` where the file changes otherwise, or is not what has arrived.
        """
        offset, size, digest = 0, None, Digest()
        if resume:
            offset, size, digest = await self._resumed(name, sink, progress)
        into = _Into(sink, digest)
        delivery = Delivery(into.write)
        plan = FileGetPlan(name, delivery.put, offset=offset, size=size)
        width = await self._window(name, window, progress)
        try:
            with _explaining(name):
                await transfer(
                    self.client,
                    plan,
                    width,
                    progress=progress,
                    stage=StageName.DOWNLOAD,
                    delivery=delivery,
                )
            await self._closed_after(plan)
        except (LinkLost, RequestTimeout) as error:
            if isinstance(error, RequestTimeout) or error.hint is None:
                error.hint = _RESUME
            raise
        except McumgrError:
            if into.error is not None:
                raise into.error from None
            raise
        by = await self._compared(plan, digest)
        if plan.grown:
            text = f"{name} has grown while it was read: these are its first {plan.size:,} bytes"
            progress(Note(text, warning=True))
        return FileTransfer(name, plan.size, offset, by, plan.retransmissions, plan.grown)

    async def _compared(self, plan: FileGetPlan, digest: Digest) -> str | None:
        """By what the device's file was found to be that which has arrived. Raises `FileDamaged` where it is not."""
        found = await self._any_hash(plan.name, plan.size) if plan.size else None
        if found is None:
            return None if plan.grown else "size"
        if found.output != digest.value(found.type):
            raise FileDamaged(
                f"the {found.type} of what has arrived is not that of the file in the device",
                size=plan.size,
                hint="the file may have changed while it was read: read it again",
            )
        return found.type

    async def _resumed(self, name: str, file: Sink, progress: Progress) -> tuple[int, int | None, Digest]:
        """Where to go on with what the file holds already: at its end, or at the start if it is of no use.

        The size of the device's file comes with it if it is known, and the hashes of what is there.
        """
        if not isinstance(file, PartialFile):
            raise TypeError("a download can only be resumed into a file that can be read and sought")
        content = await in_thread(FileContent, file)
        if content.size:
            size = await self._size_anyhow(name)
            reason = "it is longer than the file in the device"
            if content.size <= size:
                digest = await in_thread(content.hashed, content.size)
                found = await self._any_hash(name, content.size)
                reason = "the device takes no hash to compare it with"
                if found is not None:
                    if found.output == digest.value(found.type):
                        file.seek(content.size)
                        return content.size, size, digest
                    reason = "it is not the beginning of the file in the device"
            progress(Note(f"the {content.size} bytes from an earlier download are not used: {reason}"))
        file.seek(0)
        file.truncate()
        return 0, None, Digest()

    async def _size_anyhow(self, name: str) -> int:
        """The size of a file, from its first piece where the device has no query for it."""
        try:
            return await self.size(name)
        except DeviceError as error:
            if not error.says(SmpError.NOT_SUPPORTED):
                raise
        with _explaining(name):
            length = (await self._ask(ReadFile(name, 0))).length
        if length is None:
            raise MalformedReply("the device's answer to the file download makes no sense: it lacks 'len'")
        return length

    async def _any_hash(self, name: str, length: int) -> FileHash | None:
        """The hash of the first `length` bytes, of a type known here; None where the device takes none of them."""
        timeout_s = self._hash_timeout_s(length)
        for type in HASH_TYPES:
            try:
                found = await self.hash(name, type, length=length, timeout_s=timeout_s)
            except DeviceError as error:
                if error.says(SmpError.NOT_SUPPORTED):
                    return None
                if error.says(FsErrorCode.CHECKSUM_HASH_NOT_FOUND, SmpError.INVALID):
                    continue
                raise
            if found.type != type or found.length != length:
                raise FileDamaged(
                    f"the device hashed {found.length} bytes of {name} as {found.type}, asked for {length} as {type}",
                    size=length,
                    hint="the file may have become shorter while it was read: read it again",
                )
            return found
        return None

    def _hash_timeout_s(self, length: int) -> float:
        return self.client.time_for(max(ReadHash.facts.timeout_s or 0.0, length / _HASH_BYTES_PER_S))

    # -- writing ------------------------------------------------------------------------------------------------------

    async def upload(
        self,
        source: Source,
        name: str,
        *,
        resume: bool = False,
        chunk_bytes: int | None = None,
        window: int | None = None,
        progress: Progress = ignore_progress,
    ) -> FileTransfer:
        """Write `source` to a file, in place of what it held, and compare its hash or size in the end.

        With `resume`, what the device has of the file already is kept, if it is the beginning of this content by its
        hash. A stream is read to its end first, because its size must be announced, and so is a short file. As many
        chunks are on their way as device and link have room for, or `window` if that is less.

        Raises `PlanRefused` where nothing (0 bytes) would have to replace something, which the device cannot do;
        `FileDamaged` where the device does not have what was sent; `TransferStuck`; `LocalFileError`.
        """
        client = self.client
        async with _content(source) as content, ReadAhead(content) as ahead:
            params = await client.params()
            plan = FilePutPlan(
                ahead,
                name,
                message_bytes=client.limits.message(params.buf_size if params is not None else None),
                chunk_bytes=chunk_bytes,
                resume=resume,
            )
            width = await self._window(name, window, progress, plan)
            wanted = plan.message_bytes
            begin_bytes = await find_message_size(client, wanted, plan.least_bytes, harmless=True)
            async with self._writing(plan, content):
                await transfer(
                    client,
                    plan,
                    width,
                    slow_s=partial(self._slow_s, plan.size),
                    begin_bytes=begin_bytes,
                    progress=progress,
                    stage=StageName.UPLOAD,
                    pause=ahead.pause,
                )
            if grown := await in_thread(content.check_unchanged):
                text = (
                    f"the file here has grown by {grown:,} bytes while it was sent: {name} has the {plan.size:,} before"
                )
                progress(Note(text, warning=True))
        if chunk_bytes is None and plan.message_bytes == wanted and not plan.resumed_from:
            client.profile.proves(wanted)
        return FileTransfer(name, plan.size, plan.resumed_from, plan.verified_by, plan.retransmissions)

    @asynccontextmanager
    async def _writing(self, plan: FilePutPlan, content: FileContent) -> AsyncIterator[None]:
        """What ends an upload gets words that fit files, and leaves none open in the device."""
        try:
            with _explaining(plan.name, writing=plan.size):
                yield
        except DeviceError as error:
            if error.says(FsErrorCode.FILE_WRITE_FAILED):
                error.hint = (
                    f"its file system is probably full: this file has {plan.size} bytes, and while a file is "
                    "replaced, the old one needs room too"
                )
            with suppress(McumgrError):
                await self.request(CloseFile())
            raise
        except RequestTimeout as error:
            raise _silent(error, plan) from error
        except LinkLost as error:
            error.hint = error.hint or _RESUME
            raise
        except FileDamaged:
            await in_thread(content.check_unchanged)  # then it is not the device that is to blame
            raise

    def _slow_s(self, size: int, step: Step) -> float:
        return self._hash_timeout_s(size) if isinstance(step.command, ReadHash) else self.client.timeout_s

    async def _window(self, name: str, most: int | None, progress: Progress, plan: FilePutPlan | None = None) -> Any:
        """The window for as much of a file on its way as device and link have room for, and as the caller wants."""
        if most is not None and most < 1:
            raise UsageError("a window has room for at least one request")
        params = await self.client.params()
        await self.client.meet(ReadStatus(name))
        brief = plan is not None and plan.size <= _BRIEF * plan.message_bytes
        window = window_for(self.client, most, brief=brief)
        beyond = self.client.flow.paced and params is not None  # a link that holds more than the device has room for
        if most is not None and window.widest < most and not beyond:
            told = f"has {params.buf_count} buffers" if params is not None else "does not tell its buffers"
            progress(Note(f"window {window.widest} instead of {most}: the device {told}"))
        return window

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, command: SmpCommand[R], *, timeout_s: float | None = None) -> R:
        """The result of a request that may be repeated; while the device has no buffer for it, it is asked again."""
        for pause_s in _PAUSES_S:
            try:
                return await self.request(command, timeout_s=timeout_s)
            except DeviceError as error:
                if not error.says(SmpError.NO_MEMORY):
                    raise
            await asyncio.sleep(pause_s)
        return await self.request(command, timeout_s=timeout_s)

    async def _closed_after(self, plan: FileGetPlan) -> None:
        """Close the device's file, if it is open. Whether that fails is of no interest: it closes after a while."""
        if plan.left_open:
            with suppress(DeviceError, RequestTimeout):
                await self.request(CloseFile())


class _Into:
    """Where a download goes. An error of the sink ends the transfer, whatever it is, and is kept for the caller."""

    def __init__(self, sink: Sink, digest: Digest) -> None:
        self.error: Exception | None = None
        self._sink = sink
        self._digest = digest

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        try:
            self._sink.write(data)
        except Exception as error:
            self.error = error
            raise McumgrError("what has arrived cannot be written") from error


@asynccontextmanager
async def _content(source: Source) -> AsyncIterator[FileContent]:
    """What is to be sent, closed in the end if it was made here."""
    if isinstance(source, FileContent):
        yield source
        return
    if isinstance(source, bytes):
        content = FileContent(io.BytesIO(source))
    elif isinstance(source, AsyncIterable):
        content = await collected(source)
    else:
        content = await in_thread(content_of, source)
    with content:
        yield content


def _silent(error: RequestTimeout, plan: FilePutPlan) -> RequestTimeout:
    """Words that fit files."""
    message, hint = error.message, _RESUME
    if isinstance(plan.state, (Prefix, Whole)):
        message = f"no answer to the {ReadHash.facts.what} within {error.timeout_s:g} s"
        hint = "the device may need longer to hash the file: allow more time with --timeout SECONDS"
    elif plan.done_bytes == 0:
        hint = "if the device's buffers are small, try --chunk 64"
    return RequestTimeout(message, what=error.what, timeout_s=error.timeout_s, attempts=error.attempts, hint=hint)


@contextmanager
def _explaining(name: str = "", lacking: str = "", *, writing: int | None = None) -> Iterator[None]:
    """Codes that say little get a hint that fits files: what the firmware lacks, or may mind about the path.

    `lacking`: what else than the whole group it may be. `writing`: the size of the file that is written.
    """
    try:
        yield
    except DeviceError as error:
        if error.says(FsErrorCode.UNKNOWN):
            error.hint = _OTHER_TROUBLE if writing is None else f"{_OTHER_TROUBLE}. {_MAYBE_A_DIRECTORY}"
        if error.says(SmpError.NOT_SUPPORTED):
            or_else = f", {lacking}" if lacking else ""
            error.hint = f"its firmware was built without {_OPTION}{or_else}; MCUboot's recovery has no files"
        elif error.says(SmpError.INVALID) and name:
            error.hint = _refused_value(name, writing)
        elif error.says(SmpError.NO_ENTRY):
            error.hint = FsErrorCode.FILE_NOT_FOUND.hint
        elif error.says(SmpError.MESSAGE_SIZE):
            error.hint = (
                f"offsets beyond 64 KB take more room than it has kept: set {_OPTION}_MAX_FILE_SIZE_4GB, "
                f"or a smaller {_OPTION}_DL_CHUNK_SIZE, in its firmware"
            )
        elif error.says(SmpError.BUSY):
            also = "another client may have the file open; if it stays so, reset the device"
            error.hint = Hint(error.hint, "; ", also) if error.hint else also
        raise


def _refused_value(name: str, writing: int | None) -> str:
    """What may be wrong with the values of a request that the device takes for invalid."""
    length = len(name.encode())
    path = f"paths have 1 to {_PATH_BYTES} bytes unless its firmware sets {_OPTION}_PATH_LEN otherwise"
    if length <= _PATH_BYTES and writing is not None and writing > _SIGNED_32:
        return f"the file is too large for its firmware: {writing:,} bytes do not fit a signed number of 32 bits"
    return f"{path}, and this one has {length}"
