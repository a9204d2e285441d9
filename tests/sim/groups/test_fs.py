"""The simulated file system: paths, the open file with its traps, room, hashes, and what outlives what."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import UsageError
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.files import FsConfig, FsMount, GeneratedFile
from mcumgrx.sim.groups.fs import FsServer

A, B, C = b"AAAA", b"BBBB", b"CCCC"
FILE = "/lfs1/x"


def server(**files: bytes) -> FsServer:
    return FsServer(FsConfig(mounts=(FsMount(files=files, directories=("dir/empty",)),)))


def chunk(offset: int, data: bytes, *, name: str = FILE, length: int = 1000) -> dict[str, Any]:
    body: dict[str, Any] = {"name": name, "off": offset, "data": data}
    return {**body, "len": length} if offset == 0 else body


# -- paths ------------------------------------------------------------------------------------------------------------

LONG = "/lfs1/" + "n" * 58
PATHS = [
    # path, code for status/hash/download, code for upload; None: it works
    ("relative", 2, 2),
    ("/", 2, 2),
    ("\0/lfs1/x", 2, 2),
    ("/lfs1", 4, 1),
    ("/lfs1/", 4, 1),
    ("/lfs1/dir", 4, 1),
    ("/lfs1/dir/empty/", 4, 1),
    ("/lfs1/missing", 3, None),
    ("/lfs1/nodir/x", 3, 14),
    ("/lfs1/x/y", 1, 1),
    ("/lfs1/x/", 1, 1),
    ("/lfs1/missing/", 3, 1),
    ("/lfs10/x", 3, 14),
    ("/nope/x", 3, 14),
    ("/lfs1/../x", 2, 2),
    ("/lfs1/dir/../../x", 2, 2),
    ("/lfs1//x", None, None),
    ("/lfs1/./dir/../x", None, None),
    ("/lfs1/x\0rubbish", None, None),
    (LONG, 3, None),
]


@pytest.mark.parametrize(("path", "reading", "writing"), PATHS)
def test_paths(desk: Any, path: str, reading: int | None, writing: int | None) -> None:
    device = desk(server(x=A))
    answers = {
        "status": device.read(1, {"name": path}),
        "hash": device.read(2, {"name": path}),
        "download": device.read(0, {"name": path, "off": 0}),
    }
    if reading is None:
        assert answers["status"] == {"len": 4}
        assert answers["hash"] == {"type": "crc32", "len": 4, "output": zlib.crc32(A)}
        assert answers["download"] == {"off": 0, "data": A, "len": 4}
    else:
        assert answers == dict.fromkeys(answers, device.err(reading))
    assert device.write(0, chunk(0, B, name=path)) == ({"off": 4} if writing is None else device.err(writing))


@pytest.mark.parametrize("name", ["", LONG + "n", "/lfs1/" + "ü" * 30])
def test_names_of_no_length_are_refused_before_all_else(desk: Any, name: str) -> None:
    device = desk(server(x=A))
    for command, op, body in ((0, 0, {"off": 0}), (0, 2, {"off": 0, "len": 1}), (1, 0, {}), (2, 0, {"type": "md5"})):
        assert device.ask(op, command, {**body, "name": name}) == {"rc": 3}
        assert device.ask(op, command, body) == {"rc": 3}


def test_read_only_mounts_and_longer_mount_points(desk: Any) -> None:
    mounts = (FsMount("/a", files={"x": A}), FsMount("/a/rom", files={"x": B}, read_only=True))
    device = desk(FsServer(FsConfig(mounts=mounts)))
    assert device.read(0, {"name": "/a/rom/x", "off": 0})["data"] == B
    assert device.write(0, chunk(0, C, name="/a/rom/x")) == device.err(15)
    assert device.write(0, chunk(0, C, name="/a/rom")) == device.err(15)
    assert device.write(0, chunk(0, C, name="/a/rom/x"), version=0) == {"rc": 1}
    assert device.write(0, chunk(0, C, name="/a/x")) == {"off": 4}


# Code → how to get it; what version 1 makes of it.
@pytest.mark.parametrize(
    ("op", "command", "body", "code", "legacy"),
    [
        (0, 1, {"name": "x"}, 2, 3),
        (0, 1, {"name": "/lfs1/none"}, 3, 5),
        (0, 1, {"name": "/lfs1/dir"}, 4, 1),
        (0, 0, {"name": FILE, "off": 0x80000000}, 6, 1),
        (0, 2, {"name": FILE, "off": 4}, 12, 1),
        (0, 2, {"name": FILE, "type": "CRC32"}, 13, 3),
        (2, 0, {"name": "/none/x", "off": 0, "len": 1}, 14, 5),
        (0, 2, {"name": "/lfs1/empty"}, 16, 1),
    ],
)
def test_codes_in_both_versions(desk: Any, op: int, command: int, body: dict[str, Any], code: int, legacy: int) -> None:
    device = desk(server(x=A, empty=b""))
    assert device.ask(op, command, body) == device.err(code)
    assert device.ask(op, command, body, version=0) == {"rc": legacy}


# -- the open file ----------------------------------------------------------------------------------------------------


def test_first_chunk_twice_on_an_empty_file_is_there_twice(desk: Any) -> None:
    files = server(empty=b"")
    device = desk(files)
    for name in (FILE, "/lfs1/empty"):
        assert device.write(0, chunk(0, A, name=name)) == {"off": 4}
        assert device.write(0, chunk(0, A, name=name)) == {"off": 8}
        assert device.write(0, chunk(8, B, name=name)) == {"off": 12}
        device.write(4)
        assert files.files[name] == A + A + B


def test_first_chunk_twice_on_a_file_with_content_leads_astray(desk: Any) -> None:
    files = server(x=b"old content")
    device = desk(files)
    assert device.write(0, chunk(0, A)) == {"off": 4}
    assert device.write(0, chunk(0, A)) == {"off": 8}
    assert device.write(0, chunk(4, B)) == device.err(11, len=8), "the server counts what it has taken"
    assert files.files[FILE] == A
    assert device.write(0, chunk(8, B)) == device.err(11, len=4), "closed by now, the true size shows"
    assert device.write(0, chunk(4, B)) == {"off": 8}


def test_at_the_answered_offset_the_file_goes_on_where_it_ends(desk: Any) -> None:
    # Tried on Zephyr 4.4 servers (UDP and console) with files of 11, 200 and 4000 bytes.
    files = server(x=b"old content")
    device = desk(files)
    device.write(0, chunk(0, A))
    assert device.write(0, chunk(0, A)) == {"off": 8}
    assert device.write(0, chunk(8, B))["off"] == 12
    device.write(4)
    assert files.files[FILE] == A + B


def test_first_chunk_twice_to_the_announced_length_closes_the_file(desk: Any) -> None:
    files = server(x=b"old content")
    device = desk(files)
    assert device.write(0, chunk(0, A, length=8)) == {"off": 4}
    assert device.write(0, chunk(0, A, length=8)) == {"off": 8}
    assert files.open_path is None
    assert device.write(0, chunk(8, B)) == device.err(11, len=4)


def test_close_makes_the_first_chunk_safe(desk: Any) -> None:
    files = server()
    device = desk(files)
    for _ in range(2):
        assert device.write(4) == {}
        assert device.write(0, chunk(0, A)) == {"off": 4}
    device.write(4)
    assert files.files[FILE] == A


@pytest.mark.parametrize(("idle_s", "size"), [(3.6, 0), (4.0, 4)])
def test_an_idle_file_is_closed(desk: Any, idle_s: float, size: int) -> None:
    device = desk(server())
    device.write(0, chunk(0, A))
    device.now += idle_s
    assert device.read(1, {"name": FILE}) == {"len": size}, "what is written shows once the file is closed"


def test_idling_starts_anew_with_each_chunk_and_survives_another_clock(desk: Any) -> None:
    files = server()
    device = desk(files)
    device.now = 1000.0
    device.write(0, chunk(0, A))
    for offset in (4, 8, 12):
        device.now += 3.0
        device.write(0, chunk(offset, B))
    device.now = 5.0
    device.read(1, {"name": FILE})
    device.now = 8.0
    device.read(1, {"name": FILE})
    assert files.open_path == FILE
    device.now = 9.0
    device.read(1, {"name": FILE})
    assert files.open_path is None


def test_what_closes_the_file_and_what_does_not(desk: Any) -> None:
    files = server(other=C)
    device = desk(files)
    device.write(0, chunk(0, A))
    device.read(1, {"name": FILE})
    device.read(2, {"name": FILE})
    device.read(3)
    device.write(0, b"\xff")  # nonsense
    assert files.open_path == FILE
    assert device.read(2, {"name": FILE}) == device.err(16)
    assert device.read(0, {"name": FILE, "off": 0}) == {"off": 0, "data": A, "len": 4}, "a download closes it first"
    device.write(0, chunk(4, B))
    device.write(0, chunk(0, C, name="/lfs1/other"))
    assert files.files[FILE] == A + B


def test_resume_at_the_size_of_the_file(desk: Any) -> None:
    files = server(x=A, other=C)
    device = desk(files)
    assert device.write(0, chunk(4, B)) == {"off": 8}
    assert device.write(0, chunk(4, B, name="/lfs1/other")) == {"off": 8}
    assert device.write(0, chunk(8, C)) == {"off": 12}
    assert device.read(1, {"name": FILE}) == {"len": 8}, "a resumed file stays open: its length is not known"
    device.write(4)
    assert files.files[FILE] == A + B + C


def test_a_chunk_for_a_missing_file_makes_it(desk: Any) -> None:
    device = desk(server())
    assert device.write(0, chunk(4, A)) == device.err(11, len=0)
    assert device.write(0, chunk(4, A), version=0) == {"rc": 1}
    assert device.read(1, {"name": FILE}) == {"len": 0}


def test_lengths_are_not_checked_and_nothing_truncates_but_data(desk: Any) -> None:
    files = server(x=b"old content")
    device = desk(files)
    assert device.write(0, chunk(0, b"", length=0)) == {"off": 0}
    device.write(4)
    assert files.files[FILE] == b"old content"
    assert device.write(0, chunk(0, A + B, length=3)) == {"off": 8}
    assert files.open_path is None
    assert files.files[FILE] == A + B
    assert device.write(0, {"name": FILE, "off": 0, "data": A}) == {"rc": 3}
    assert device.write(0, {"name": FILE, "data": A, "len": 1}) == {"rc": 3}


def test_a_reset_loses_what_was_not_closed(desk: Any) -> None:
    files = server()
    device = desk(files)
    device.write(0, chunk(0, A, name="/lfs1/closed", length=4))
    device.write(0, chunk(0, A))
    device.reset()
    assert files.files == {"/lfs1/closed": A, FILE: b""}
    assert files.open_path is None


# -- room -------------------------------------------------------------------------------------------------------------


def upload(device: Any, size: int) -> Any:
    """Upload so many bytes in chunks of 100; the last answer."""
    device.write(4)
    answer: Any = None
    for offset in range(0, size, 100):
        answer = device.write(0, chunk(offset, bytes(min(100, size - offset)), length=size))
        if "err" in answer:
            break
    return answer


def test_four_blocks_hold_what_they_held_on_a_real_server(desk: Any) -> None:
    """Seen on native_sim: 8100 bytes on a fresh file system, 4000 where a file is replaced."""
    files = FsServer(FsConfig(mounts=(FsMount(blocks=4, files={}),)))
    device = desk(files)
    assert upload(device, 8200) == device.err(10)
    assert upload(device, 8200) == device.err(10)
    assert device.write(0, chunk(4096, A)) == device.err(11, len=0), "a failed file is as it was before"
    assert upload(device, 8100) == {"off": 8100}
    assert upload(device, 100) == device.err(10)
    assert device.read(1, {"name": FILE}) == {"len": 8100}
    other = desk(FsServer(FsConfig(mounts=(FsMount(blocks=4, files={"x": bytes(4000)}),))))
    assert upload(other, 4000) == {"off": 4000}
    assert upload(other, 4200) == other.err(10)


def test_sixty_four_blocks_and_the_largest_file(desk: Any) -> None:
    device = desk(FsServer(FsConfig(file_max=250)))
    assert upload(device, 300) == device.err(10)
    assert upload(device, 200) == {"off": 200}
    files = FsServer()
    files.write("/lfs1/big", bytes(190_000))
    with pytest.raises(UsageError, match="does not fit"):
        files.write("/lfs1/big", bytes(260_000))
    assert len(files.files["/lfs1/big"]) == 190_000


def test_a_directory_gets_full(desk: Any) -> None:
    device = desk(FsServer(FsConfig(mounts=(FsMount(blocks=4, files={}),))))
    answers = [device.write(0, chunk(0, b"", name=f"/lfs1/{number:040}", length=0)) for number in range(80)]
    assert answers[0] == {"off": 0}
    assert answers[-1] == device.err(1)


# -- downloads and hashes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buf_size", "options", "size"),
    [
        (384, {}, 340),
        (2048, {}, 2004),
        (384, {"offset_bytes": 5}, 334),
        (384, {"chunk": 128}, 128),
        (384, {"chunk": 500}, 340),
        (64, {}, 20),
    ],
)
def test_download_chunks_fit_the_buffer(desk: Any, buf_size: int, options: dict[str, int], size: int) -> None:
    content = bytes(range(256)) * 300
    mount = FsMount(files={"x": content}, blocks=64)
    device = desk(FsServer(FsConfig(mounts=(mount,), **options)), config=DeviceConfig(buf_size=buf_size))
    first = device.read(0, {"name": FILE, "off": 0})
    assert first == {"off": 0, "data": content[:size], "len": len(content)}
    assert device.read(0, {"name": FILE, "off": 70_000}) == {"off": 70_000, "data": content[70_000 : 70_000 + size]}
    assert device.read(0, {"name": FILE, "off": 90_000}) == {"off": 90_000, "data": b""}


def test_an_empty_file_downloads(desk: Any) -> None:
    device = desk(server(x=b""))
    assert device.read(0, {"name": FILE, "off": 0}) == {"off": 0, "data": b"", "len": 0}


def test_hashes(desk: Any) -> None:
    content = bytes(range(200))
    device = desk(server(x=content))
    part = {"name": FILE, "off": 50, "len": 100}
    assert device.read(2, part) == {"type": "crc32", "off": 50, "len": 100, "output": zlib.crc32(content[50:150])}
    beyond = device.read(2, {"name": FILE, "type": "sha256", "off": 150, "len": 1000})
    assert beyond == {"type": "sha256", "off": 150, "len": 50, "output": hashlib.sha256(content[150:]).digest()}
    assert device.read(2, {"name": FILE, "type": "", "len": 200})["type"] == "crc32"
    assert device.read(2, {"name": FILE, "len": 0}) == {"rc": 3}
    assert device.read(2, {"name": FILE, "type": "ninechars"}) == {"rc": 3}


def test_hashes_that_were_not_built_in(desk: Any) -> None:
    device = desk(FsServer(FsConfig(hashes=("sha256",))))
    assert device.read(3) == {"types": {"sha256": {"format": 1, "size": 32}}}
    assert device.read(2, {"name": "/lfs1/hello.txt"})["type"] == "sha256"
    assert device.read(2, {"name": "/lfs1/hello.txt", "type": "crc32"}) == device.err(13)
    none = desk(FsServer(FsConfig(hashes=())))
    assert none.read(2, {"name": "/lfs1/hello.txt"}) == {"rc": 8}
    assert none.read(3) == {"rc": 8}
    assert desk(FsServer(FsConfig(hash_types=False))).read(3) == {"rc": 8}


def test_the_server_is_busy_with_the_file(desk: Any) -> None:
    device = desk(FsServer(FsConfig(mounts=(FsMount(files={"x": bytes(100_000)}),), hash_s_per_byte=1e-4)))
    device.read(2, {"name": FILE})
    assert device.busy_s == pytest.approx(10.0)
    device.read(0, {"name": FILE, "off": 0})
    assert device.busy_s == pytest.approx(340e-6)
    device.write(0, chunk(0, bytes(100), name="/lfs1/y"))
    assert device.busy_s == pytest.approx(100 * 20e-6)
    device.read(1, {"name": FILE})
    assert device.busy_s == pytest.approx(0)


# -- configuration and state ------------------------------------------------------------------------------------------


def test_a_snapshot_brings_the_files_back(desk: Any) -> None:
    files = server(x=A)
    device = desk(files)
    device.write(0, chunk(0, bytes(range(256))))
    device.write(0, chunk(0, B, name="/lfs1/dir/open"))
    before = files.changes
    kept = json.loads(json.dumps(files.snapshot()))
    assert files.changes == before
    assert files.open_path == "/lfs1/dir/open"
    device.write(0, chunk(4, B, name="/lfs1/dir/open"))
    assert files.changes > before
    again = server(y=C)
    again.restore(kept)
    assert again.files == {FILE: bytes(range(256)), "/lfs1/dir/open": B}, "with what was in the open file"


@pytest.mark.parametrize(
    "damaged",
    [{}, {"files": 5}, {"files": [1]}, {"files": {"/nope/x": ""}}, {"files": {FILE: "zz"}}, {"files": {FILE: 5}}],
)
def test_a_damaged_snapshot_changes_nothing(damaged: dict[str, Any]) -> None:
    files = server(x=A)
    with pytest.raises((ValueError, KeyError, TypeError)):
        files.restore(damaged)
    assert files.files == {FILE: A}


# -- large files ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.integers(0, 20_000))
def test_a_part_of_a_generated_file_is_that_part_of_the_whole(size: int, start: int, end: int) -> None:
    whole = GeneratedFile(size)[:]
    assert len(whole) == len(GeneratedFile(size)) == size
    assert GeneratedFile(size)[start:end] == whole[start:end]
    for page in range(0, size, 4096):
        assert whole[page : page + 8] == (page // 4096).to_bytes(8, "big")[: size - page]


def test_a_generated_file_is_read_forward() -> None:
    with pytest.raises(ValueError, match="forward"):
        GeneratedFile(10)[::-1]


def test_a_generated_file_is_downloaded_and_hashed_and_nothing_else(desk: Any) -> None:
    size = 3_000_000
    files = FsServer(FsConfig(mounts=(FsMount(files={"x": A}), FsMount.generated("/big", "file.bin", size))))
    device = desk(files)
    name = {"name": "/big/file.bin"}
    whole = GeneratedFile(size)[:]
    assert device.read(1, name) == {"len": size}
    found, offset = b"", 2_900_000
    while offset < size:
        answer = device.read(0, {**name, "off": offset})
        found += answer["data"]
        offset += len(answer["data"])
    assert found == whole[2_900_000:]
    assert device.read(2, {**name, "type": "sha256"})["output"] == hashlib.sha256(whole).digest()
    part = {"off": 1_000_000, "len": 1_500_000}
    answer = device.read(2, {**name, **part})
    assert answer == {"type": "crc32", **part, "output": zlib.crc32(whole[1_000_000:2_500_000])}
    assert device.write(0, chunk(0, A, name="/big/file.bin")) == device.err(15)
    assert files.files == {FILE: A}
    files.restore(files.snapshot())
    assert device.read(1, name) == {"len": size}


def test_a_download_of_512_mb_takes_no_memory(desk: Any) -> None:
    size = 512 * 1024 * 1024
    device = desk(FsServer(FsConfig(mounts=(FsMount.generated("/big", "file.bin", size),))))
    assert device.read(1, {"name": "/big/file.bin"}) == {"len": size}  # it has started
    tracemalloc.start()
    try:
        for offset in range(0, size, 8 * 1024 * 1024):
            assert device.read(0, {"name": "/big/file.bin", "off": offset})["data"][:8] == (offset >> 12).to_bytes(8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def blocks_one_by_one(size: int, block_size: int) -> int:
    """As littlefs fills them: block n begins with a pointer for each power of two that divides n."""
    if size <= 64:
        return 0
    count = 0
    while size > 0:
        size -= block_size - 4 * (count & -count).bit_length()
        count += 1
    return count


@given(st.integers(0, 300_000), st.sampled_from([128, 512, 4096]))
def test_blocks_of_a_file(size: int, block_size: int) -> None:
    (system,) = FsServer(FsConfig(mounts=(FsMount(block_size=block_size),)))._systems
    assert system.blocks_of(size) == blocks_one_by_one(size, block_size)


@pytest.mark.parametrize(
    "build",
    [
        lambda: FsMount("lfs1"),
        lambda: FsMount("/"),
        lambda: FsMount(blocks=1),
        lambda: FsConfig(hashes=("md5",)),
        lambda: FsConfig(idle_close_s=0),
        lambda: FsMount(files={"x": GeneratedFile(100)}),
        lambda: GeneratedFile(-1),
        lambda: GeneratedFile(1 << 31),
        lambda: FsServer(FsConfig(mounts=(FsMount(blocks=3, files={"x": bytes(9000)}),))),
    ],
)
def test_impossible_file_systems_are_named(build: Any) -> None:
    with pytest.raises(UsageError):
        build()


def test_files_of_the_application(desk: Any) -> None:
    files = server()
    device = desk(files)
    device.write(0, chunk(0, A))
    files.write(FILE, C)
    assert device.read(0, {"name": FILE, "off": 0})["data"] == C
    with pytest.raises(UsageError, match="ENOENT"):
        files.write("/nope/x", A)
