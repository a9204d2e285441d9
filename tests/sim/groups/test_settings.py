"""The simulated settings: names, values that live three times, and builds without storage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcumgrx.errors import UsageError
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsHandler, SettingsServer

HANDLERS = (
    SettingsHandler("app", {"name": b"desk", "long": bytes(range(40))}, value_max=40),
    SettingsHandler("app/deep", {"x": b"\x01"}, open=True),
    SettingsHandler("rom", {"id": b"7"}, writable=False, exported=False),
    SettingsHandler("key", {"secret": b"s"}, readable=False),
)


def settings(**options: Any) -> SettingsServer:
    return SettingsServer(SettingsConfig(HANDLERS, **options))


@pytest.mark.parametrize(
    ("name", "reading", "writing"),
    [
        ("app/name", None, None),
        ("app/deep/x", None, None),
        ("app/deep/new", 3, None),
        ("app/new", 3, 3),
        ("app", 3, 3),
        ("app/deep", 3, 3),
        ("apple/name", 5, 5),
        ("none/x", 5, 5),
        ("rom/id", None, 6),
        ("key/secret", 4, None),
        ("n" * 31, 5, 5),
        ("n" * 32, 2, 2),
    ],
)
def test_names(desk: Any, name: str, reading: int | None, writing: int | None) -> None:
    device = desk(settings())
    answer = device.read(0, {"name": name})
    assert answer == (device.err(reading) if reading else {"val": device.device.groups[3].runtime[name]})
    assert device.write(0, {"name": name, "val": b"\x05"}) == (device.err(writing) if writing else {})
    if not reading and not writing:
        assert device.read(0, {"name": name}) == {"val": b"\x05"}


@pytest.mark.parametrize(
    ("op", "command", "body", "code", "legacy"),
    [
        (0, 0, {"name": "n" * 32}, 2, 3),
        (0, 0, {"name": "app/none"}, 3, 5),
        (0, 0, {"name": "key/secret"}, 4, 5),
        (0, 0, {"name": "none/x"}, 5, 1),
        (2, 0, {"name": "rom/id", "val": b""}, 6, 1),
        (2, 0, {"name": "app/name", "val": bytes(41)}, 5, 1),
    ],
)
def test_codes_in_both_versions(desk: Any, op: int, command: int, body: dict[str, Any], code: int, legacy: int) -> None:
    device = desk(settings())
    assert device.ask(op, command, body) == device.err(code)
    assert device.ask(op, command, body, version=0) == {"rc": legacy}


def test_without_storage(desk: Any) -> None:
    device = desk(settings(backend=False, stored={"app/name": b"x"}))
    assert device.read(0, {"name": "app/name"}) == {"val": b"desk"}
    assert device.write(1, {"name": "app/name"}) == device.err(3)
    assert device.write(1, {"name": "none/x"}) == device.err(3)
    assert device.write(2) == {}
    assert device.read(3) == {}
    assert device.write(3) == device.err(8)
    assert device.write(3, version=0) == {"rc": 1}


def test_which_requests_need_a_map_and_a_name(desk: Any) -> None:
    device = desk(settings())
    assert device.send(2, 2, b"")[8:] == device.send(0, 3, b"\xff")[8:] == b"\xbf\xff"
    assert device.send(2, 3, b"")[8:] == b"\xbf\x62rc\x03\xff"
    for op, command in ((0, 0), (2, 0), (2, 1)):
        assert device.ask(op, command, {}) == {"rc": 3}
        assert device.ask(op, command, {"name": ""}) == {"rc": 3}
    assert device.write(0, {"name": "app/name", "val": "text"}) == {"rc": 3}
    assert device.write(0, {"name": "app/name"}) == {}, "no value is an empty one"
    assert device.read(0, {"name": "app/name"}) == {"val": b""}


def test_long_values_are_cut(desk: Any) -> None:
    device = desk(settings())
    whole = bytes(range(40))
    assert device.read(0, {"name": "app/long"}) == {"val": whole[:32]}
    assert device.read(0, {"name": "app/long", "max_size": 5}) == {"val": whole[:5]}
    assert device.read(0, {"name": "app/long", "max_size": 0}) == {"val": b""}
    assert device.read(0, {"name": "app/long", "max_size": 100}) == {"val": whole[:32], "max_size": 32}
    reply = device.send(0, 0, b"\xa2\x64name\x68app/name\x68max_size\x18\x21")
    assert reply[8:] == b"\xbf\x63val\x44desk\x68max_size\x18\x20\xff"


def test_write_commit_save(desk: Any) -> None:
    server = settings()
    device = desk(server)
    device.write(0, {"name": "app/name", "val": b"new"})
    assert (server.runtime["app/name"], server.applied["app/name"], server.stored) == (b"new", b"desk", {})
    device.write(2)
    assert server.applied["app/name"] == b"new"
    device.reset()
    assert device.read(0, {"name": "app/name"}) == {"val": b"desk"}, "not saved"
    device.write(0, {"name": "app/name", "val": b"new"})
    assert device.write(3) == {}
    assert device.busy_s > 0
    assert "rom/id" not in server.stored
    device.reset()
    assert device.read(0, {"name": "app/name"}) == {"val": b"new"}
    assert server.applied["app/name"] == b"new"


def test_load_takes_written_values_back(desk: Any) -> None:
    device = desk(settings(stored={"app/name": b"kept", "gone/x": b"?", "rom/id": b"9"}))
    assert device.read(0, {"name": "app/name"}) == {"val": b"kept"}
    assert device.read(0, {"name": "rom/id"}) == {"val": b"7"}
    device.write(0, {"name": "app/name", "val": b"new"})
    device.read(3)
    assert device.read(0, {"name": "app/name"}) == {"val": b"kept"}


def test_delete_takes_it_out_of_the_storage_alone(desk: Any) -> None:
    server = settings(stored={"app/name": b"kept"})
    device = desk(server)
    assert device.write(1, {"name": "app/name"}) == {}
    assert device.write(1, {"name": "none/x"}) == {}
    assert device.read(0, {"name": "app/name"}) == {"val": b"kept"}
    device.reset()
    assert device.read(0, {"name": "app/name"}) == {"val": b"desk"}


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("app/name", {"app/name"}),
        ("app/deep", {"app/deep/x"}),
        ("app", {"app/name", "app/long", "app/deep/x"}),
        ("none", set()),
        ("", {"app/name", "app/long", "app/deep/x", "key/secret"}),
    ],
)
def test_one_part_is_saved(desk: Any, name: str, saved: set[str]) -> None:
    server = settings()
    device = desk(server)
    assert device.write(3, {"name": name}) == {}
    assert set(server.stored) == saved
    assert device.write(3, {"name": "n" * 32}) == device.err(2)


def test_builds_without_version_1(desk: Any) -> None:
    device = desk(settings(refuses_original=True))
    assert device.read(0, {"name": "app/name"}) == {"val": b"desk"}
    for op, command in ((0, 0), (2, 0), (2, 1), (2, 2), (0, 3), (2, 3)):
        assert device.ask(op, command, {"name": "app/name"}, version=0) == {"rc": 12}


def test_a_snapshot_brings_all_three_back(desk: Any) -> None:
    server = settings()
    device = desk(server)
    device.write(0, {"name": "app/name", "val": b"1"})
    device.write(3)
    device.write(0, {"name": "app/name", "val": b"2"})
    device.write(2)
    device.write(0, {"name": "app/deep/\udc80".encode("utf-8", "surrogateescape").decode("latin-1"), "val": b"3"})
    before = server.changes
    kept = json.loads(json.dumps(server.snapshot()))
    assert server.changes == before
    again = settings()
    again.restore(kept)
    assert (again.stored, again.runtime, again.applied) == (server.stored, server.runtime, server.applied)
    for damaged in ({}, {**kept, "stored": 5}, {**kept, "applied": {"zz": "00"}}, {**kept, "runtime": {"00": 5}}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            again.restore(damaged)
    assert again.runtime == server.runtime


@pytest.mark.parametrize("root", ["", "a=b"])
def test_impossible_roots_are_named(root: str) -> None:
    with pytest.raises(UsageError):
        SettingsHandler(root)
