"""What is remembered of interrupted uploads: written, read again by another program, and forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcumgrx.interrupted import InterruptedUploads
from mcumgrx.link.profile import Begun
from mcumgrx.memory import Memory

SESSION = bytes(range(32))
NOW = 1_750_000_000.0
DAY_S = 86400


def uploads(folder: Path, now: float = NOW) -> InterruptedUploads:
    return InterruptedUploads(lambda: folder, clock=lambda: now)


def test_it_is_kept_until_it_has_come_to_an_end(tmp_path: Path) -> None:
    assert uploads(tmp_path / "cache").recall("desk") == Begun()
    uploads(tmp_path / "cache").remember("desk", Begun(SESSION, 34_000))
    uploads(tmp_path / "cache").remember("other", Begun(SESSION[::-1], 5))
    assert uploads(tmp_path / "cache").recall("desk") == Begun(SESSION, 34_000)
    uploads(tmp_path / "cache").remember("desk", Begun())
    assert uploads(tmp_path / "cache").recall("desk") == Begun()
    assert uploads(tmp_path / "cache").recall("other") == Begun(SESSION[::-1], 5)
    uploads(tmp_path / "cache").remember("other", Begun())
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(("days", "kept"), [(6.9, True), (7.1, False), (-2, False)])
def test_it_grows_old(tmp_path: Path, days: float, kept: bool) -> None:
    uploads(tmp_path).remember("desk", Begun(SESSION, 34_000))
    assert bool(uploads(tmp_path, NOW + days * DAY_S).recall("desk").done) == kept


def test_the_oldest_are_given_up(tmp_path: Path) -> None:
    for number in range(120):
        uploads(tmp_path).remember(f"desk {number}", Begun(SESSION, 1 + number))
    found = [uploads(tmp_path).recall(f"desk {number}").done for number in range(120)]
    assert found == [0] * 20 + [1 + number for number in range(20, 120)]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", "[" * 2000, '{"desk": 1}', '{"desk": {"session": "zz", "done": 1, "at": 1750000000}}',
        '{"desk": {"session": "00", "done": -1, "at": 1750000000}}', '{"desk": {"session": "00", "done": 1}}',
        '{"desk": {"session": "00", "done": 1e99, "at": 1750000000}}',
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "uploads.json").write_text(content)
    assert uploads(tmp_path).recall("desk") == Begun()
    uploads(tmp_path).remember("desk", Begun(SESSION, 7))
    assert uploads(tmp_path).recall("desk") == Begun(SESSION, 7)


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uploads(tmp_path / "file").remember("desk", Begun(SESSION, 7))
    assert uploads(tmp_path / "file").recall("desk") == Begun()


def test_it_is_forgotten_with_what_is_known_of_devices(tmp_path: Path) -> None:
    for device in ("one", "two"):
        Memory(tmp_path).uploads.remember(device, Begun(SESSION, 7))
    Memory(tmp_path).forget("one")
    assert list(json.loads((tmp_path / "uploads.json").read_text())) == ["two"]
    Memory(tmp_path).forget()
    assert not (tmp_path / "uploads.json").exists()
