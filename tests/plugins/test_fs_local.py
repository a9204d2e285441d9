"""The near end of transfers of files: what is uploaded from this computer, and where a download goes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import socket
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcumgrx.cli.exit_codes import Exit, exit_for
from mcumgrx.cli.main import main
from mcumgrx.errors import UsageError
from mcumgrx.events import Bytes, Event, Note
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.loop import run
from mcumgrx_plugins.fs import commands, target
from mcumgrx_plugins.fs import source as source_module
from mcumgrx_plugins.fs.local import Digest, LocalFileError, open_descriptor
from mcumgrx_plugins.fs.source import FileContent, content_of, open_source, open_stream
from mcumgrx_plugins.fs.target import Destination, OpenStream, WriteBehind

from ..support.simulated import Desk

NAME = "/lfs1/x"
posix = pytest.mark.skipif(os.name == "nt", reason="pipes, links and devices as on POSIX")


def content(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))[:size]


def desk_with(data: bytes | None = None) -> tuple[Desk, FsServer]:
    files = FsServer(FsConfig(mounts=(FsMount(files={} if data is None else {"x": data}, blocks=1000),)))
    desk = Desk()
    desk.device.add_group(files)
    return desk, files


def stored(files: FsServer) -> bytes:
    return bytes.fromhex(files.snapshot()["files"][NAME])


def put(desk: Desk, local: Path) -> commands.PutResult:
    return desk.command(commands.put, local=local, remote=NAME, resume=False, chunk=None, window=None)


def get(desk: Desk, local: Path, *, resume: bool = False) -> commands.GetResult | commands.PrintedFile:
    return desk.command(commands.get, remote=NAME, local=local, resume=resume, window=None)


class Listening(list[Event]):
    """Events, of which somebody is told at once."""

    def __init__(self, listener: Callable[[Event], None]) -> None:
        super().__init__()
        self._listener = listener

    def append(self, event: Event, /) -> None:
        super().append(event)
        self._listener(event)


# -- what is uploaded -------------------------------------------------------------------------------------------------


def test_digest_and_content(tmp_path: Path) -> None:
    data = content(200_000)
    path = tmp_path / "x"
    path.write_bytes(data)
    with path.open("r+b") as file:
        found = FileContent(file)
        assert found.size == 200_000
        assert found.digest("sha256", 150_000) == hashlib.sha256(data[:150_000]).digest()
        assert found.digest("crc32", 200_000) == zlib.crc32(data)
        assert found.read(1000, 5) == data[1000:1005]
        file.truncate(100)
        with pytest.raises(LocalFileError, match="shorter") as error:
            found.read(90, 20)
    assert exit_for(error.value) is Exit.BAD_FILE
    assert Digest().value("crc32") == 0


def test_content_of_a_file_that_gives_little_at_once() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size or 0))

    assert FileContent(Slow(content(100))).read(10, 50) == content(100)[10:60]


def test_a_destination_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"good")
    destination = Destination(path, resume=False)
    destination.write(b"half")
    assert path.read_bytes() == b"good"
    assert destination.abandon(keep=True) == 4
    assert destination.part.read_bytes() == b"half"
    again = Destination(path, resume=True)
    again.seek(0, io.SEEK_END)
    again.write(b" and half")
    again.finish()
    assert path.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_earlier_download_left_is_kept_until_there_is_something_better(tmp_path: Path) -> None:
    path = tmp_path / "file"
    part = tmp_path / "file.part"
    part.write_bytes(b"earlier")
    assert Destination(path, resume=False).abandon(keep=True) == 0
    assert part.read_bytes() == b"earlier"
    destination = Destination(path, resume=False)
    destination.write(b"new")
    assert destination.abandon(keep=False) == 0
    assert not part.exists()
    empty = Destination(path, resume=False)
    empty.finish()
    assert path.read_bytes() == b""


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "target"
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    destination = Destination(link, resume=False)
    destination.write(b"new")
    destination.finish()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@contextmanager
def fed(path: Path, data: bytes) -> Iterator[None]:
    """Somebody writes `data` into the pipe at `path`, once."""

    def write() -> None:
        with path.open("wb") as pipe:
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    yield
    writer.join()


@posix
@pytest.mark.parametrize("size", [0, 2500, 100_000])
def test_a_pipe_is_read_to_its_end_before_it_is_sent(tmp_path: Path, size: int) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    desk, files = desk_with()
    with fed(pipe, content(size)):
        done = put(desk, pipe)
    assert (done.size, stored(files)) == (size, content(size))


@posix
def test_waiting_for_a_pipe_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    desk, files = desk_with()
    monkeypatch.setattr(commands, "_PATIENCE_S", 0.02)
    told = threading.Event()
    desk.events = Listening(lambda event: told.set() if isinstance(event, Note) else None)

    def write_when_told() -> None:
        told.wait(100)
        pipe.write_bytes(b"at last")

    async def work() -> None:
        await commands.put(desk.context, local=pipe, remote=NAME, resume=False, chunk=None, window=None)

    writer = threading.Thread(target=write_when_told)
    writer.start()
    asyncio.run(work())
    writer.join()
    assert stored(files) == b"at last"
    assert [event.text for event in desk.events if isinstance(event, Note)] == [f"reading {pipe} to its end"]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="there is no /proc")
def test_files_that_do_not_tell_their_size() -> None:
    desk, files = desk_with()
    put(desk, Path("/proc/version"))
    assert stored(files) == Path("/proc/version").read_bytes() != b""


_SYS = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not _SYS.exists(), reason="there is no such file of the kernel")
def test_files_whose_size_is_not_true() -> None:
    with open_source(_SYS) as found:
        assert found.read(0, found.size) == _SYS.read_bytes()


@posix
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        odd = {tmp_path: "a directory", tmp_path / "socket": "a socket", Path("/dev/zero"): "a device"}
        for path, kind in odd.items():
            desk, _ = desk_with()
            with pytest.raises(LocalFileError, match=f"it is {kind}") as raised:
                put(desk, path)
            assert exit_for(raised.value) is Exit.BAD_FILE
            assert desk.device.requests == 0


@posix
def test_the_null_device_is_an_empty_file() -> None:
    desk, files = desk_with()
    assert put(desk, Path(os.devnull)).size == 0
    assert stored(files) == b""


def test_a_file_that_no_device_can_take_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    desk, _ = desk_with()
    with pytest.raises(LocalFileError, match="too large: it has 5,368,709,120 bytes"):
        put(desk, path)
    assert desk.device.requests == 0


def test_streams_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_STREAM_BYTES", 200_000)

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object, /) -> int:
            return len(memoryview(buffer))  # type: ignore[arg-type]

    with pytest.raises(LocalFileError, match="it has more than 200,000 bytes"):
        content_of(Endless(), "it")  # type: ignore[arg-type]


@posix
def test_streams_that_are_open_already(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    os.set_inheritable(reading, True)
    with open_source(Path(f"/dev/fd/{reading}")) as found:
        assert found.read(0, found.size) == b"from a pipe"
    os.close(reading)
    with pytest.raises(LocalFileError, match="cannot be read: Bad file descriptor"):
        open_stream(reading, "it")
    path = tmp_path / "file"
    path.write_bytes(content(1_100_000))
    with path.open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        file.seek(5)
        with open_stream(file.fileno(), "it") as found:
            assert found.size == 1_099_995  # what is left of it
        file.seek(0)
        with open_stream(file.fileno(), "it") as found:
            assert found.digest("crc32", found.size) == zlib.crc32(content(1_100_000))
    zero = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(zero, True)
    with pytest.raises(LocalFileError, match="it is a device"):
        open_stream(zero, "standard input")
    os.close(zero)


def test_paths_of_open_streams() -> None:
    paths = {"/dev/stdin": 0, "/proc/self/fd/7": 7, "/dev/fd/63": 63, "/dev/fdx": None, "/dev/fd/x": None, "-": None}
    assert {path: open_descriptor(path) for path in paths} == paths
    desk, _ = desk_with()
    for local in ("-", "/dev/stdin", "/dev/fd/63"):
        with pytest.raises(UsageError, match="names a directory"):
            desk.command(commands.put, local=Path(local), remote="/lfs1/", resume=False, chunk=None, window=None)


def big(tmp_path: Path) -> tuple[Path, FileContent, bytes]:
    """A file that is too long to be copied, opened to be sent."""
    path = tmp_path / "big"
    path.write_bytes(content(1_100_000))
    os.utime(path, (1, 1))
    return path, open_source(path), content(1_100_000)


def test_a_file_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    path, found, data = big(tmp_path)
    with found:
        assert found.check_unchanged() == 0
        found.read(0, 1000)
        os.utime(path)  # the time alone
        assert found.check_unchanged() == 0
        with path.open("ab") as file:
            file.write(b"more")
        assert found.check_unchanged() == 4
        assert found.digest("sha256", found.size) == hashlib.sha256(data).digest()
        with path.open("r+b") as file:
            file.write(b"other")
        with pytest.raises(LocalFileError, match="has changed while it was sent") as raised:
            found.check_unchanged()
    assert exit_for(raised.value) is Exit.BAD_FILE


def test_a_file_that_becomes_shorter_while_it_is_sent(tmp_path: Path) -> None:
    path, found, _ = big(tmp_path)
    with found:
        os.truncate(path, 1000)
        with pytest.raises(LocalFileError, match="has become shorter"):
            found.read(900, 200)
        with pytest.raises(LocalFileError, match="has changed"):
            found.check_unchanged()


@pytest.mark.parametrize("grows", [True, False])
def test_a_change_of_the_file_here_is_not_put_down_to_the_device(tmp_path: Path, grows: bool) -> None:
    path, found, data = big(tmp_path)
    found.close()
    desk, _ = desk_with()
    changed = []

    def change(event: Event) -> None:
        if isinstance(event, Bytes) and event.done > 100_000 and not changed:
            changed.append(event)
            with path.open("r+b") as file:
                file.seek(len(data) if grows else 0)
                file.write(b"something else")

    desk.events = Listening(change)
    if grows:
        put(desk, path)
        warnings = [event.text for event in desk.events if isinstance(event, Note) and event.warning]
        assert ["has grown by 14 bytes" in text for text in warnings] == [True]
    else:
        with pytest.raises(LocalFileError, match="has changed while it was sent"):
            put(desk, path)


# -- where a download goes --------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda part, other: part.symlink_to(other), "a symbolic link"),
        (lambda part, other: os.link(other, part), "another name"),
        (lambda part, other: part.mkdir(), "a directory"),
        (lambda part, other: os.mkfifo(part), "a pipe"),
    ],
)
def test_what_others_have_put_in_the_place_is_left_alone(
    tmp_path: Path, make: Callable[[Path, Path], None], kind: str
) -> None:
    part, other = tmp_path / "file.part", tmp_path / "other"
    other.write_bytes(b"precious")
    make(part, other)
    before = part.lstat()
    desk, _ = desk_with(content(900))
    for resume in (False, True):
        with pytest.raises(LocalFileError, match=kind) as raised:
            get(desk, tmp_path / "file", resume=resume)
        assert "file.part" in str(raised.value)
    assert other.read_bytes() == b"precious"
    assert os.path.samestat(before, part.lstat())
    assert not (tmp_path / "file").exists()
    assert desk.device.requests == 0


@posix
def test_the_part_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.part").write_bytes(b"theirs")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(LocalFileError, match="another user"):
        Destination(tmp_path / "file", resume=False)


def test_two_downloads_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    one = Destination(path, resume=False)
    one.write(b"one")
    with pytest.raises(LocalFileError, match=r"another download to .* is under way"):
        Destination(path, resume=True)
    one.finish()
    assert path.read_bytes() == b"one"
    two = Destination(path, resume=False)
    two.write(b"two")
    two.finish()
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_a_part_that_is_replaced_meanwhile_takes_no_place(tmp_path: Path) -> None:
    path, part = tmp_path / "file", tmp_path / "file.part"
    destination = Destination(path, resume=False)
    destination.write(b"ours")
    part.rename(tmp_path / "elsewhere")
    part.write_bytes(b"theirs")
    with pytest.raises(LocalFileError, match="has been replaced"):
        destination.finish()
    assert destination.abandon(keep=True) == 0
    assert part.read_bytes() == b"theirs"
    assert not path.exists()


@posix
def test_the_mode_of_a_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    destination = Destination(path, resume=False)
    destination.write(b"new")
    destination.finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_targets_that_are_no_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    desk, _ = desk_with(b"data")
    for path in (pipe, tmp_path / "link", Path("/dev/zero"), tmp_path / "loop"):
        with pytest.raises(LocalFileError, match="cannot be written") as raised:
            get(desk, path)
        assert exit_for(raised.value) is Exit.BAD_FILE
    assert desk.device.requests == 0
    get(desk, Path(os.devnull))
    assert desk.device.requests > 0
    with pytest.raises(UsageError, match="no regular file"):
        get(desk, Path(os.devnull), resume=True)


@posix
def test_other_open_streams() -> None:
    reading, writing = os.pipe()
    desk, _ = desk_with(b"data")
    with pytest.raises(LocalFileError, match="Bad file descriptor"):  # not the business of who started this program
        get(desk, Path(f"/dev/fd/{writing}"))
    os.set_inheritable(writing, True)
    get(desk, Path(f"/dev/fd/{writing}"))
    os.close(writing)
    assert os.read(reading, 100) == b"data"
    os.close(reading)


class Slow:
    """A sink that takes nothing before it is told to go on."""

    def __init__(self) -> None:
        self.got = b""
        self.go_on = threading.Event()

    def write(self, data: bytes, /) -> None:
        self.go_on.wait(100)
        if data == b"bad":
            raise LocalFileError("no", path="x")
        self.got += data


def test_writing_behind() -> None:
    slow = Slow()

    async def work() -> None:
        behind = WriteBehind(slow)
        for piece in (b"a", b"b", b"c"):
            behind.write(piece)
            await asyncio.sleep(0)
        slow.go_on.set()
        await behind.drain()
        assert slow.got == b"abc"
        behind.write(b"bad")
        with pytest.raises(LocalFileError):
            await behind.drain()
        with pytest.raises(LocalFileError):
            behind.write(b"d")
        with pytest.raises(TypeError):
            behind.seek(0)

    run(work())
    assert slow.got == b"abc"


@posix
def test_a_reader_that_does_not_read_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(target, "_LAST_WRITE_S", 0.01)
    ended = threading.Event()

    class Pipe(OpenStream):
        def write(self, data: bytes, /) -> None:
            try:
                super().write(data)
            finally:
                ended.set()

    async def work() -> None:
        behind = WriteBehind(Pipe("it", writing))
        behind.write(bytes(1_000_000))
        await behind.stop()

    asyncio.run(work())
    assert not ended.is_set()
    os.close(reading)
    assert ended.wait(100)
    os.close(writing)


def test_json_and_the_file_are_not_mixed(capfd: pytest.CaptureFixture[str]) -> None:
    for local in ("-", "/dev/stdout"):
        assert main(["fs", "get", NAME, local, "--json", "-d", "sim:"]) == Exit.USAGE
        (line,) = capfd.readouterr().out.splitlines()
        assert json.loads(line)["error"]["code"] == "usage"
