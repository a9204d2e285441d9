"""Bytes that stay on the disk: what they are, and what a file that changes meanwhile does to them."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import file_bytes
from mcumgrx.mcuboot.file_bytes import FileBytes

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(388))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small file has many of them."""
    monkeypatch.setattr(file_bytes, "_BLOCK", 100)


@pytest.fixture(params=["pread", "seek"])
def on_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`CONTENT` as a file; every test with both ways to read one."""
    if request.param == "seek":
        monkeypatch.setattr(file_bytes, "_read_at", file_bytes._seek_and_read)
    elif not hasattr(os, "pread"):
        pytest.skip("this system has no pread")
    path = tmp_path / "app.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "app.bin"


@given(
    data=st.binary(max_size=300),
    start=st.none() | st.integers(-320, 320),
    stop=st.none() | st.integers(-320, 320),
    step=st.none() | st.sampled_from([1, 2, -1, -3]),
    block=st.sampled_from([1, 7, 64]),
)
def test_slices_are_those_of_bytes(
    scratch: Path, data: bytes, start: int | None, stop: int | None, step: int | None, block: int
) -> None:
    scratch.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_bytes, "_BLOCK", block)
        lying = FileBytes(scratch)
        assert lying[start:stop:step] == data[start:stop:step]
        assert (len(lying), bytes(lying), lying.sha256) == (len(data), data, hashlib.sha256(data).digest())


@pytest.mark.usefixtures("small_blocks")
def test_they_are_values(on_disk: Path, tmp_path: Path) -> None:
    data = FileBytes(on_disk)
    for copied in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert type(copied) is bytes
        assert copied == CONTENT
    other = tmp_path / "copy.bin"
    other.write_bytes(CONTENT)
    assert FileBytes(other) == data == CONTENT
    other.write_bytes(bytes(len(CONTENT)))
    assert FileBytes(other) != data
    assert data == bytearray(CONTENT)
    assert data == memoryview(CONTENT)
    assert data != CONTENT[:-1]
    assert data != CONTENT[:-1] + b"B"
    assert data != "text"
    assert repr(data) == f"<FileBytes of {str(on_disk)!r}, 1552>"
    with pytest.raises(TypeError, match="by slices"):
        data[0]  # type: ignore[index]
    with pytest.raises(TypeError, match="unhashable"):
        hash(data)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[io.FileIO]:
    """The files that are opened here."""
    files: list[io.FileIO] = []

    def noted(path: str, mode: str, buffering: int) -> io.FileIO:
        files.append(io.FileIO(path, mode))
        return files[-1]

    monkeypatch.setattr(file_bytes, "open", noted, raising=False)
    return files


def test_the_file_is_closed_with_the_last_reference(on_disk: Path, opened: list[io.FileIO]) -> None:
    gc.disable()  # nothing may be left to it
    try:
        data = FileBytes(on_disk)
        assert data[:4] == CONTENT[:4]
        assert not opened[0].closed
        del data
        assert opened[0].closed
    finally:
        gc.enable()


@pytest.mark.usefixtures("small_blocks")
def test_the_file_can_be_closed_before(on_disk: Path, opened: list[io.FileIO]) -> None:
    data = FileBytes(on_disk)
    data.close()
    data.close()
    assert opened[0].closed
    with pytest.raises(ImageError, match="closed file"):
        data[:10]


def test_a_file_that_cannot_be_read_is_closed(
    on_disk: Path, opened: list[io.FileIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_bytes, "_read_at", lambda *_: b"")
    with pytest.raises(ImageError, match="has become shorter") as caught:
        FileBytes(on_disk)
    assert caught.value.path == str(on_disk)
    assert opened[0].closed


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_is_cut_meanwhile(on_disk: Path) -> None:
    data = FileBytes(on_disk)
    os.truncate(on_disk, 650)
    assert data[:600] == CONTENT[:600]
    with pytest.raises(ImageError, match="has become shorter since it was opened") as caught:
        data[640:660]
    assert caught.value.path == str(on_disk)
    assert caught.value.hint is not None
    assert "build" in caught.value.hint
    on_disk.write_bytes(b"")
    with pytest.raises(ImageError, match="has become shorter"):
        bytes(data)
    on_disk.write_bytes(CONTENT)  # the same again
    assert bytes(data) == CONTENT


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_is_written_meanwhile_is_never_mixed(on_disk: Path) -> None:
    data = FileBytes(on_disk)
    before = on_disk.stat()
    with open(on_disk, "r+b") as file:
        file.seek(1234)
        file.write(b"B")
    # Neither size nor time tell: the clock of many file systems is coarse, and some tools set the time back.
    os.utime(on_disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data[:1200] + data[1300:] == CONTENT[:1200] + CONTENT[1300:]
    for start in range(1200, 1300, 10):
        with pytest.raises(ImageError, match="has changed since it was opened"):
            data[start : start + 10]


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_only_grows_is_as_it_was(on_disk: Path) -> None:
    data = FileBytes(on_disk)
    with open(on_disk, "ab") as file:
        file.write(b"more")
    assert bytes(data) == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be replaced")
@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_is_replaced_or_removed_is_as_it_was(on_disk: Path, tmp_path: Path) -> None:
    data = FileBytes(on_disk)
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(2000))
    os.replace(other, on_disk)
    assert data[:700] == CONTENT[:700]
    on_disk.unlink()
    assert bytes(data) == CONTENT


def test_a_disk_that_fails(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FileBytes(on_disk)

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(file_bytes, "_read_at", fail)
    with pytest.raises(ImageError, match=r"cannot read .*: Input/output error") as caught:
        data[:10]
    assert caught.value.path == str(on_disk)
    with pytest.raises(ImageError, match="Input/output error"):
        FileBytes(on_disk)


def test_reads_that_come_in_pieces(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file_bytes._read_at
    monkeypatch.setattr(file_bytes, "_read_at", lambda file, offset, size: whole(file, offset, min(size, 100)))
    assert bytes(FileBytes(on_disk)) == CONTENT


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        FileBytes(tmp_path / "missing.bin")
    with pytest.raises(ImageError, match="is a directory"):
        FileBytes(tmp_path)
    with pytest.raises(ImageError, match="cannot read"):
        FileBytes("nul\0in.bin")


@pytest.mark.usefixtures("small_blocks")
def test_threads_share_the_bytes_of_a_file(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "_BLOCKS_KEPT", 1)
    data = FileBytes(on_disk)

    def read(seed: int) -> bool:
        starts = [(seed * 97 + number * 389) % len(CONTENT) for number in range(200)]
        return all(data[start : start + 150] == CONTENT[start : start + 150] for start in starts)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(8)))
    finally:
        sys.setswitchinterval(interval_s)


def test_nobody_comes_between_seeking_and_reading(on_disk: Path) -> None:
    held: list[bool] = []

    class Noting(io.FileIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            held.append(file_bytes._SEEKING.locked())
            return super().seek(offset, whence)

        def read(self, size: int | None = -1, /) -> bytes:
            held.append(file_bytes._SEEKING.locked())
            return super().read(size)

    with Noting(on_disk) as file:
        assert file_bytes._seek_and_read(file, 100, 50) == CONTENT[100:150]
    assert held == [True, True]
