"""The simulated device answers as real servers did, byte for byte: every row of every recording, in order.

The replay, and what it tells the device of the server that it stands for, is in `tests/support/golden_replay.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mcumgrx.sim.device import Power
from mcumgrx.sim.link import LinkModel
from mcumgrx.testing.golden import Burst, Exchange, Raw

from ..support import golden_replay
from ..support.golden_replay import SERVERS, Replay, recorded_image, rows_of

pytestmark = pytest.mark.codec


def test_every_recording_is_replayed() -> None:
    assert set(golden_replay.files()) == set(SERVERS)


@pytest.mark.parametrize("name", SERVERS)
def test_answers_are_those_of_the_real_server(name: str) -> None:
    expected = SERVERS[name].not_reproduced
    rows = Replay(name).replayed()
    assert len(rows) == len(rows_of(name))
    different = {one.row.name: one for one in rows if not one.same}
    unexpected = {
        row: f"answered {[part.hex() for part in one.got]}, recorded {[part.hex() for part in one.want]}"
        for row, one in different.items()
        if row not in expected
    }
    assert unexpected == {}
    assert set(different) == set(expected), "a row that was given up is answered correctly now"


def test_the_recordings_are_what_the_replay_takes_them_for() -> None:
    kinds = [type(row) for name in SERVERS for row in rows_of(name)]
    counts = {kind.__name__: kinds.count(kind) for kind in (Exchange, Burst, Raw)}
    assert counts == {"Exchange": 694, "Burst": 19, "Raw": 9}
    for name, row_name in (
        ("qemu_cortex_m0.serial", "img upload first"),
        ("mps2_an385.serial_recovery", "img upload first"),
        ("mps2_an385.serial_recovery.mcuboot", "recovery img upload first"),
    ):
        first = next(row for row in rows_of(name) if row.name == row_name)
        assert isinstance(first, Exchange)
        image = recorded_image(first.request_body["data"])
        assert len(image) == first.request_body["len"]
        assert hashlib.sha256(image).digest() == first.request_body["sha"]


def test_what_crashed_the_real_server_crashes_this_one() -> None:
    replay = Replay("native_sim.serial_bigrx.window")
    last = replay.replayed()[-1]
    assert last.row.name == "5 x params at once"
    assert replay.device.crashes == 1
    assert replay.device.power is Power.HUNG


def test_the_answers_depend_on_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """What some rows show is a matter of time: over a slow wire no burst of five does any harm."""
    name = "native_sim.serial_bigrx.window"
    monkeypatch.setitem(SERVERS, name, replace(SERVERS[name], model=LinkModel.uart()))
    different = [one.row.name for one in Replay(name).replayed() if not one.same]
    assert different == ["4 x params at once", "5 x params at once"]


def test_nothing_but_the_configuration_makes_the_answers() -> None:
    replay = Replay("qemu_cortex_m0.serial")
    config = replace(replay.device.config, buf_size=512, slot_size=65536)
    other = replace(SERVERS["qemu_cortex_m0.serial"], config=config)
    device = golden_replay.device_like(other, rows_of("qemu_cortex_m0.serial"))
    device.install(replay.running)
    rows = {row.name: row for row in rows_of("qemu_cortex_m0.serial")}
    for name in ("os params", "img slot info"):
        row = rows[name]
        assert isinstance(row, Exchange)
        assert device.handle(row.request, 0.0).replies != (row.response,)


def test_the_count_is_a_table_that_the_documentation_shows() -> None:
    table = golden_replay.table()
    assert table in (Path(__file__).parent.parent.parent / "docs" / "simulator.md").read_text(encoding="utf-8")
    lines = table.splitlines()
    assert len(lines) == 2 + len(SERVERS)
    assert "| `native_sim.udp` | 124 | 123 | os echo after reset: " in lines[-3]
