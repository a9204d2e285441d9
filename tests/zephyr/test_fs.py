"""File system and shell of real Zephyr servers: round trips, resumed uploads, and what a repeated first chunk does."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, PlanRefused
from mcumgrx.events import Bytes, Event
from mcumgrx.registry import default_registry
from mcumgrx_plugins.fs.group import FsGroup
from mcumgrx_plugins.fs.messages import FsErrorCode, HashType, WriteFile
from mcumgrx_plugins.fs.source import FileContent
from mcumgrx_plugins.shell.group import ShellGroup
from mcumgrx_plugins.shell.messages import ShellOutput

from ..support.zephyr import find_server, native_sim

pytestmark = pytest.mark.timeout(120)

NAME = "/lfs1/file.bin"
SERVERS = ["serial_bigrx", "serial_fs", "udp"]


def content(size: int, seed: int = 0) -> bytes:
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@asynccontextmanager
async def connected(config: str, directory: Path) -> AsyncIterator[Client]:
    async with native_sim(config, directory) as server:
        address = Address.parse(server.address)
        options = dict(address.options)
        if config in ("serial_bigrx", "serial_fs"):
            options["line"] = "511"  # these builds take longer lines, and lose short ones that come at once
        transport = default_registry().transport(Address(address.scheme, address.target, options))
        async with Client(transport, timeout_s=3.0) as client:
            yield client


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with connected(request.param, tmp_path) as client:
        yield client


async def download(group: FsGroup, name: str = NAME) -> bytes:
    sink = io.BytesIO()
    done = await group.download(name, sink)
    assert done.size == len(sink.getvalue())
    return sink.getvalue()


async def test_files(client: Client) -> None:
    """One test of all that leaves the server as it was, because starting one costs more than asking it."""
    group = client.group(FsGroup)
    assert await group.hash_types() == (HashType("crc32", False, 4), HashType("sha256", True, 32))
    for size in (100, 1, 4000, 37):
        wanted = content(size, size)
        done = await group.upload(wanted, NAME)
        assert (done.size, done.verified_by) == (size, "sha256")
        assert await group.size(NAME) == size
        assert await download(group) == wanted
        assert (await group.hash(NAME, "sha256")).output == hashlib.sha256(wanted).digest()
    part = await group.hash(NAME, "sha256", offset=10, length=20)
    assert part.output == hashlib.sha256(wanted[10:30]).digest()

    # A file of 0 bytes is made, but does not replace one.
    await group.upload(b"", "/lfs1/empty")
    assert await download(group, "/lfs1/empty") == b""
    with pytest.raises(PlanRefused):
        await group.upload(b"", NAME)
    assert await download(group) == wanted

    for path, reading, writing in (
        ("relative", "FILE_INVALID_NAME", "FILE_INVALID_NAME"),
        ("/lfs1", "FILE_IS_DIRECTORY", "UNKNOWN"),
        ("/lfs1/missing/x", "FILE_NOT_FOUND", "MOUNT_POINT_NOT_FOUND"),
        ("/none/x", "FILE_NOT_FOUND", "MOUNT_POINT_NOT_FOUND"),
        ("/lfs1/" + "n" * 59, "INVALID", "INVALID"),
    ):
        with pytest.raises(DeviceError) as refused:
            await group.upload(b"x", path)
        assert (refused.value.name, bool(refused.value.hint)) == (writing, True)
        with pytest.raises(DeviceError) as refused:
            await group.size(path)
        assert (refused.value.name, bool(refused.value.hint)) == (reading, True)
        with pytest.raises(DeviceError) as refused:
            await download(group, path)
        assert refused.value.name == reading

    with pytest.raises(DeviceError) as refused:
        await group.upload(content(20_000), "/lfs1/big")
    assert refused.value.rc == FsErrorCode.FILE_WRITE_FAILED
    assert await download(group) == wanted


async def test_an_upload_that_was_aborted_is_resumed(client: Client) -> None:
    group = client.group(FsGroup)
    wanted = content(4000)
    begun = asyncio.Event()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1800:
                begun.set()
            return super().read(size)

    upload = asyncio.create_task(group.upload(FileContent(Watched(wanted)), NAME, chunk_bytes=200))
    await begun.wait()
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    done = await group.upload(wanted, NAME, resume=True)
    assert 1000 < done.resumed_from < 4000
    assert await download(group) == wanted
    # What is whole already is only compared; what is another file is written anew.
    assert (await group.upload(wanted, NAME, resume=True)).resumed_from == 4000
    other = content(2000, 1)
    done = await group.upload(other, NAME, resume=True)
    assert (done.size, done.resumed_from, done.verified_by) == (2000, 0, "sha256")


async def write(client: Client, offset: int, data: bytes, length: int | None = None) -> int | tuple[int, object]:
    """The offset that the server answers, or its code and the offset beside it."""
    try:
        return (await client.request(WriteFile(NAME, offset, data, length))).offset
    except DeviceError as error:
        return error.rc, error.reply.get("len")


A, B = b"A" * 50, b"B" * 30


async def test_a_first_chunk_twice_into_a_new_file_is_appended(client: Client) -> None:
    group = client.group(FsGroup)
    assert [await write(client, 0, A, 1000), await write(client, 0, A, 1000)] == [50, 100]
    assert await write(client, 100, B) == 130
    await group.close()
    assert await download(group) == A + A + B
    # The plan begins with closing, and finds out in the end.
    assert await write(client, 0, A, 1000) == 50
    await group.upload(A + B, NAME)
    assert await download(group) == A + B


async def test_a_first_chunk_twice_into_a_file_with_content(client: Client) -> None:
    """It is truncated twice, and the server counts on all the same: its offsets are ahead of the file from then on."""
    group = client.group(FsGroup)
    for old in (11, 200, 4000):
        await group.upload(content(old), NAME)
        assert [await write(client, 0, A, 1000), await write(client, 0, A, 1000)] == [50, 100]
        assert await write(client, 100, B) == 130, "taken at the end of the file, which is 50"
        await group.close()
        assert await download(group) == A + B

        # At the true offset it is refused, which closes the file: then the true offset is the one it wants.
        await group.upload(content(old), NAME)
        assert [await write(client, 0, A, 1000), await write(client, 0, A, 1000)] == [50, 100]
        assert await write(client, 50, B) == (FsErrorCode.FILE_OFFSET_NOT_VALID, 100)
        assert await write(client, 100, B) == (FsErrorCode.FILE_OFFSET_NOT_VALID, 50)
        assert await write(client, 50, B) == 80
        await group.close()
        assert await download(group) == A + B

        # So does the announced length: it counts as reached, although a part is missing.
        await group.upload(content(old), NAME)
        assert [await write(client, 0, A, 130), await write(client, 0, A, 130)] == [50, 100]
        assert await write(client, 100, B) == 130
        assert await write(client, 130, B) == (FsErrorCode.FILE_OFFSET_NOT_VALID, 80)


async def test_lost_lines_make_chunks_smaller(tmp_path: Path) -> None:
    """This server has two line buffers, and a pseudo-terminal fills them faster than it empties them."""
    async with native_sim("serial", tmp_path) as server:
        transport = default_registry().transport(Address.parse(server.address))
        async with Client(transport, timeout_s=0.5) as client:
            group = client.group(FsGroup)
            wanted = content(2000)
            done = await group.upload(wanted, NAME)
            assert done.retransmissions > 0
            assert await download(group) == wanted


WINDOWED = [
    ("mps2_an385", "serial_recovery_buf512", 100_000),
    ("native_sim", "serial_fs", 4000),
    ("native_sim", "udp", 4000),
]


@pytest.mark.parametrize("window", [1, None])
@pytest.mark.parametrize(("target", "config", "size"), WINDOWED)
async def test_windows(target: str, config: str, size: int, window: int | None, tmp_path: Path) -> None:
    """There and back, several times, with as much on its way as the server has buffers for; and with one at a time."""
    async with find_server(config, target).start(tmp_path) as server:
        address = Address.parse(server.address)
        options = dict(address.options)
        if config == "serial_fs":
            options["line"] = "511"
        transport = default_registry().transport(Address(address.scheme, address.target, options))
        async with Client(transport, timeout_s=3.0) as client:
            group = client.group(FsGroup)
            for seed in range(2 if size > 4000 else 5):
                wanted = content(size, seed)
                events: list[Event] = []
                done = await group.upload(wanted, NAME, window=window, progress=events.append)
                assert (done.size, done.verified_by) == (size, "sha256")
                sink = io.BytesIO()
                await group.download(NAME, sink, window=window, progress=events.append)
                assert hashlib.sha256(sink.getvalue()).digest() == hashlib.sha256(wanted).digest()
                widest = max(event.speed.window for event in events if isinstance(event, Bytes) and event.speed)
                # Of two buffers one is for the answer: whether more is tried depends on the latency.
                assert (widest == 1) == (window == 1) or server.buf_count == 2


@pytest.mark.parametrize("config", ["serial_bigrx", "udp"])
async def test_shell(config: str, tmp_path: Path) -> None:
    async with connected(config, tmp_path) as client:
        group = client.group(ShellGroup)
        version = await group.run(["kernel", "version"])
        assert version == ShellOutput("\r\nZephyr version 4.4.0\r\n", 0)
        # Its own rules for quoting, which ours are made for.
        assert await group.run_line('"kernel" \'ver\'"sion"') == version
        assert await group.run_line("k\\ernel version ") == version
        unknown = await group.run(["two words", "x"])
        assert (unknown.status, "two words: command not found" in unknown.text) == (-8, True)
        assert (await group.run(["kernel"])).status == 1
        assert (await group.run_line("")).status == -8
        with pytest.raises(DeviceError) as refused:
            await group.run_line("x" * 256)
        assert refused.value.name == "COMMAND_TOO_LONG"
        assert (await group.run_line("x" * 255)).status == -8
        if config == "serial_bigrx":
            with pytest.raises(DeviceError, match="does not fit") as refused:
                await group.run(["help"])
            assert "did run" in (refused.value.hint or "")
        else:
            assert len((await group.run(["help"])).text) > 400
