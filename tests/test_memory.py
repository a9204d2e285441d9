"""What is remembered of devices: the file, what is believed of it, and that nothing ever fails for its sake."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx import memory as module
from mcumgrx.errors import UsageError
from mcumgrx.link.profile import Learned
from mcumgrx.memory import MOST_DEVICES, SIZES_DAYS, Known, Memory, cache_folder, tells_apart

DAY_S = 86400.0
SMALL = Learned(message_bytes=244, refused_bytes=384, room_bytes=384, erase_s=11.2, alignment=8)


class Clock:
    """Seconds since 1970, which stand still until they are changed."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Memory:
    return Memory(tmp_path / "cache", clock=clock)


def content(memory: Memory) -> Any:
    return json.loads(memory.path.read_text("utf-8"))


def put(memory: Memory, text: str | bytes) -> None:
    memory.path.parent.mkdir(parents=True, exist_ok=True)
    memory.path.write_bytes(text if isinstance(text, bytes) else text.encode())


# -- remembering ------------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_known_again(memory: Memory) -> None:
    assert memory.recall("AB12CD", "serial") == Learned()
    memory.remember("AB12CD", "serial", SMALL)
    assert memory.recall("AB12CD", "serial") == SMALL
    assert memory.recall("AB12CD", "serial") is not memory.recall("AB12CD", "serial")


def test_another_link_to_the_same_device_is_another_matter(memory: Memory) -> None:
    memory.remember("board 7", "ble", SMALL)
    assert memory.recall("board 7", "udp") == Learned()
    memory.remember("board 7", "udp", Learned(erase_s=3.0))
    assert [(one.link, one.learned) for one in memory.known()] == [("ble", SMALL), ("udp", Learned(erase_s=3.0))]


def test_nothing_learned_writes_nothing(memory: Memory) -> None:
    memory.remember("AB12CD", "serial", Learned(room_bytes=384))
    assert not memory.path.parent.exists()


def test_what_has_not_changed_is_not_written_again(memory: Memory, clock: Clock) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    before = memory.path.stat().st_ino
    clock.now += 1000
    memory.remember("AB12CD", "serial", SMALL)
    assert memory.path.stat().st_ino == before
    clock.now += DAY_S  # but that it is still in use is noted once a day
    memory.remember("AB12CD", "serial", SMALL)
    assert [one.used for one in memory.known()] == [clock.now]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_owner_reads_it(memory: Memory) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    assert stat.S_IMODE(memory.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.path.parent.stat().st_mode) == 0o700
    assert {path.suffix for path in memory.path.parent.iterdir()} == {".json", ".lock"}  # and nothing else is left


def test_the_oldest_are_forgotten(memory: Memory, clock: Clock) -> None:
    for number in range(MOST_DEVICES + 5):
        clock.now += 10
        memory.remember(f"device {number}", "serial", Learned(erase_s=1.0))
    ids = [one.id for one in memory.known()]
    assert ids == [f"device {number}" for number in range(5, MOST_DEVICES + 5)]


# -- what is believed -------------------------------------------------------------------------------------------------


def test_sizes_are_believed_for_some_days(memory: Memory, clock: Clock) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    clock.now += SIZES_DAYS * DAY_S - 1
    assert memory.recall("AB12CD", "serial") == SMALL
    clock.now += 2
    assert memory.recall("AB12CD", "serial") == Learned(erase_s=SMALL.erase_s)


def test_being_used_does_not_make_sizes_younger(memory: Memory, clock: Clock) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    for _ in range(int(SIZES_DAYS)):
        clock.now += DAY_S
        learned = memory.recall("AB12CD", "serial")
        assert learned.refuses(384)
        learned.erase_s = (learned.erase_s or 0.0) + 1.0
        memory.remember("AB12CD", "serial", learned)
    clock.now += DAY_S
    assert memory.recall("AB12CD", "serial") == Learned(erase_s=18.2)


def test_sizes_found_anew_are_believed_anew(memory: Memory, clock: Clock) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    clock.now += (SIZES_DAYS + 1) * DAY_S
    memory.remember("AB12CD", "serial", SMALL)
    clock.now += DAY_S
    assert memory.recall("AB12CD", "serial") == SMALL


def test_a_date_far_ahead_is_not_believed(memory: Memory, clock: Clock) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    clock.now -= 3600.0  # a clock that was set
    assert memory.recall("AB12CD", "serial") == SMALL
    clock.now -= 30 * DAY_S
    assert memory.recall("AB12CD", "serial").refused_bytes is None


def test_other_buffers_make_sizes_worthless() -> None:
    learned = Learned(*SMALL.sizes[:3], 1.0)
    learned.meets(384)
    assert learned.refuses(384)
    assert not learned.refuses(383)
    learned.meets(2048)
    assert learned == Learned(room_bytes=2048, erase_s=1.0)
    assert not learned.refuses(2048)


def test_what_has_arrived_since_is_not_refused() -> None:
    assert not Learned(message_bytes=400, refused_bytes=384).refuses(400)


@pytest.mark.parametrize(
    "number", ["", "1", "0001", "00000000", "12345678", "0123456789abcdef", "1234567890", "x" * 300]
)
def test_numbers_that_whole_series_have_name_no_device(number: str) -> None:
    assert not tells_apart(number)


@pytest.mark.parametrize("number", ["A50285BI", "1050281234", "C0:FF:EE:12:34:56", "E6614103E7452D2F"])
def test_numbers_that_name_a_device(number: str) -> None:
    assert tells_apart(number)


# -- files that are of no use -----------------------------------------------------------------------------------------

DAMAGED: dict[str, str | bytes] = {
    "empty": "",
    "cut": '{"version": 1, "devices": [{"id": "AB',
    "binary": bytes(range(256)),
    "a list": "[]",
    "foreign": '{"name": "left-pad", "version": "1.0.0"}',
    "no devices": '{"version": 1}',
    "no version": '{"devices": []}',
    "deep": "[" * 100_000,
    "a long number": '{"version": ' + "1" * 5000 + "}",
    "large": b" " * (2 << 20),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_ignored_and_kept_aside(
    memory: Memory, text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(memory, text)
    before = memory.path.read_bytes()
    with caplog.at_level(logging.INFO, "mcumgrx.memory"):
        assert memory.recall("AB12CD", "serial") == Learned()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert str(memory.path) in caplog.text
    memory.remember("AB12CD", "serial", SMALL)
    assert memory.recall("AB12CD", "serial") == SMALL
    assert memory.path.with_suffix(".bad").read_bytes() == before


def test_a_newer_file_is_ignored_and_left_alone(memory: Memory, caplog: pytest.LogCaptureFixture) -> None:
    text = '{"version": 2, "devices": {"AB12CD": "all different"}}'
    put(memory, text)
    with caplog.at_level(logging.INFO, "mcumgrx.memory"):
        assert memory.recall("AB12CD", "serial") == Learned()
        memory.remember("AB12CD", "serial", SMALL)
    assert len(caplog.records) == 2
    assert caplog.text.count("from a newer version") == 2
    assert memory.path.read_text("utf-8") == text
    for ask in (memory.known, memory.forget):
        with pytest.raises(UsageError, match="from a newer version") as caught:
            ask()
        assert "MCUMGRX_CACHE_DIR" in str(caught.value.hint)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"id": ""},
        {"id": "x" * 300},
        {"link": None},
        {"message_bytes": -1},
        {"message_bytes": 1e9},
        {"refused_bytes": "384"},
        {"refused_bytes": True},
        {"room_bytes": 10**9},
        {"erase_s": -1},
        {"erase_s": 1e9},
        {"erase_s": float("nan")},
        {"erase_s": 10**400},
        {"alignment": 0},
        {"alignment": 3},
        {"alignment": None},
        {"used": "today"},
        {"found": float("inf")},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_true_is_ignored(memory: Memory, change: dict[str, object]) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    memory.remember("other", "serial", SMALL)
    data = content(memory)
    data["devices"][0] |= change
    put(memory, json.dumps(data))
    assert memory.recall("AB12CD", "serial") == Learned()
    assert [one.id for one in memory.known()] == ["other"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_no_record_makes_it_fail(value: object) -> None:
    names = ("id", "link", "used", "found", "message_bytes", "refused_bytes", "room_bytes", "erase_s", "alignment")
    good = {"id": "AB12CD", "link": "ble", "used": 1, "found": 1, "alignment": 1}
    for name in names:
        found = module._from_record({**good, name: value})
        assert found is None or isinstance(found, Known)
    assert module._from_record(value) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom modes stop")
def test_modes_that_forbid_it_stop_nothing(memory: Memory) -> None:
    memory.remember("AB12CD", "serial", SMALL)
    memory.path.parent.chmod(0o500)
    try:
        memory.remember("AB12CD", "serial", Learned(erase_s=1.0))
        assert memory.recall("AB12CD", "serial") == SMALL
    finally:
        memory.path.parent.chmod(0o700)


def test_a_place_that_is_none_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    memory = Memory(tmp_path / "file" / "cache")
    with caplog.at_level(logging.INFO, "mcumgrx.memory"):
        memory.remember("AB12CD", "serial", SMALL)
        assert memory.recall("AB12CD", "serial") == Learned()
    assert "is not kept" in caplog.text
    folder = Memory(tmp_path)
    folder.path.mkdir()
    folder.remember("AB12CD", "serial", SMALL)
    assert folder.recall("AB12CD", "serial") == Learned()
    with pytest.raises(UsageError):
        folder.known()


def test_a_write_that_fails_leaves_the_old_file(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.remember("AB12CD", "serial", SMALL)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        memory.remember("AB12CD", "serial", Learned(erase_s=1.0))
    assert memory.recall("AB12CD", "serial") == SMALL
    assert {path.suffix for path in memory.path.parent.iterdir()} == {".json", ".lock"}


# -- several processes ------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from mcumgrx.link.profile import Learned
from mcumgrx.memory import Memory

memory = Memory(Path(sys.argv[1]))
sys.stdin.readline()
for number in range(20):
    memory.remember(f"{sys.argv[2]} {number}", "serial", Learned(erase_s=1.0))
"""


def test_processes_that_write_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"writer {number}"], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for writer in writers:
        writer.communicate(b"go\n", timeout=150)
    assert [writer.returncode for writer in writers] == [0] * 4
    ids = {one.id for one in Memory(tmp_path).known()}
    assert ids == {f"writer {number} {device}" for number in range(4) for device in range(20)}


def test_a_lock_that_is_never_given_up_stops_nothing(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lock_file", lambda descriptor: False)
    memory.remember("AB12CD", "serial", SMALL)
    assert memory.recall("AB12CD", "serial") == SMALL


def test_what_another_process_has_written_since_is_kept(memory: Memory, clock: Clock) -> None:
    memory.recall("AB12CD", "serial")
    Memory(memory.path.parent, clock=clock).remember("other", "serial", SMALL)
    memory.remember("AB12CD", "serial", SMALL)
    assert {one.id for one in memory.known()} == {"AB12CD", "other"}


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_forgetting_one_and_all(memory: Memory) -> None:
    assert memory.forget() == []
    assert not memory.path.parent.exists()
    for identity, link in (("one", "serial"), ("one", "ble"), ("two", "serial")):
        memory.remember(identity, link, SMALL)
    assert memory.forget("three") == []
    assert [(one.id, one.link) for one in memory.forget("one")] == [("one", "serial"), ("one", "ble")]
    assert [one.id for one in memory.known()] == ["two"]
    assert [one.id for one in memory.forget()] == ["two"]
    assert not memory.path.exists()


def test_a_damaged_file_goes_when_all_is_forgotten(memory: Memory) -> None:
    put(memory, "garbage")
    with pytest.raises(UsageError, match="damaged"):
        memory.forget("one")
    assert memory.forget() == []
    assert not memory.path.exists()


# -- where it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "HOME/.cache/mcumgrx"),
        ("linux", {"XDG_CACHE_HOME": "/var/tmp/c"}, "/var/tmp/c/mcumgrx"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "HOME/.cache/mcumgrx"),
        ("darwin", {}, "HOME/Library/Caches/mcumgrx"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mcumgrx"),
        ("win32", {}, "HOME/AppData/Local/mcumgrx"),
        ("linux", {"MCUMGRX_CACHE_DIR": "/elsewhere"}, "/elsewhere"),
        ("win32", {"MCUMGRX_CACHE_DIR": "~/here"}, "HOME/here"),
    ],
)
def test_the_folder_is_that_of_the_system(
    platform: str, variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "MCUMGRX_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path(expected.replace("HOME", str(tmp_path)))


def test_a_user_without_a_home_loses_nothing_but_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MCUMGRX_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    memory = Memory()
    memory.remember("AB12CD", "serial", SMALL)
    assert memory.recall("AB12CD", "serial") == Learned()
    with pytest.raises(UsageError, match="home directory"):
        memory.known()
