"""The simulated file system, statistics, settings, shell, enumeration and Zephyr groups answer as real servers did.

Byte for byte, on a device that is built like the recorded server: what the server tells of itself (names and values of
statistics, the texts of shell commands, which groups it has) is configuration. All rows of these groups are replayed
in order from an empty file system, and those to groups that no device has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.groups.enumeration import EnumConfig, EnumServer
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsServer
from mcumgrx.sim.groups.shell import ShellCommand, ShellConfig, ShellServer, Terminal
from mcumgrx.sim.groups.stat import StatConfig, StatGroup, StatServer
from mcumgrx.sim.groups.zephyr import ZephyrServer
from mcumgrx.sim.images import build_image
from mcumgrx.testing.golden import Burst, Exchange, Raw, Row, read_rows

pytestmark = pytest.mark.codec

GOLDEN = Path(__file__).parent.parent / "golden"

GROUPS = {2, 3, 8, 9, 10, 63}
NO_GROUPS = {60, 64}
"""Asked for by the recordings, and nowhere to be found."""


@dataclass(frozen=True)
class Recorded:
    """One file: how its server was built, how many rows concern these groups, and which of them are given up."""

    rows: int
    buf_size: int = 384
    groups: tuple[int, ...] = (10, 8, 0, 3, 9, 2, 63)
    ticks: int = 0
    version: str = "4.4.0"
    not_reproduced: dict[str, str] = field(default_factory=dict)


RECOVERY = "MCUboot's serial recovery answered; the simulated device has none"
FILES = {
    "native_sim.udp": Recorded(rows=88, buf_size=2048),
    "native_sim.serial_bigrx": Recorded(rows=88),
    "native_sim.serial_noparams": Recorded(rows=18, groups=(10, 0, 2)),
    "native_sim.shell": Recorded(rows=18, groups=(10, 0, 2), ticks=7),
    "qemu_cortex_m0.serial": Recorded(rows=18, groups=(10, 1, 0, 2)),
    "mps2_an385.serial_recovery": Recorded(rows=88, groups=(10, 8, 1, 0, 3, 9, 2, 63), version="4.4.99"),
    "mps2_an385.serial_recovery.mcuboot": Recorded(
        rows=4,
        not_reproduced={
            row: RECOVERY
            for row in (
                "recovery unknown group",
                "recovery unknown group v1",
                "recovery enum list",
                "recovery fs status",
            )
        },
    ),
    "native_sim.udp.window": Recorded(rows=6, buf_size=2048),
    "native_sim.serial_bigrx.window": Recorded(rows=6),
    "mps2_an385.serial_recovery.window": Recorded(rows=6),
}


def group_of(row: Row) -> int | None:
    if isinstance(row, Exchange):
        return row.header.group
    return Header.unpack(row.requests[0]).group if isinstance(row, Burst) else None


def rows_of(name: str) -> list[Exchange | Burst]:
    rows = read_rows(GOLDEN / f"zephyr-4.4-{name}.jsonl")
    return [row for row in rows if not isinstance(row, Raw) and group_of(row) in GROUPS | NO_GROUPS]


def said(rows: list[Exchange | Burst], name: str) -> Any:
    return next((row.response_body for row in rows if isinstance(row, Exchange) and row.name == name), None)


def prints(text: str) -> Any:
    return lambda terminal, arguments: terminal.print(text)


def built_like(recorded: Recorded) -> SimulatedDevice:
    udp = rows_of("native_sim.udp")
    version = f"Zephyr version {recorded.version}"
    # The recording ends where the server's buffer did; here, too, the command itself writes more.
    help_text: str = said(udp, "shell exec help")["o"].removeprefix("\r\n").replace("\r\n", "\n")
    commands = (
        ShellCommand("kernel version", "", prints(version)),
        ShellCommand("help", "", prints(f"{help_text}  devmem   : Read/write physical memory\n  help     : Prints")),
    )
    pages = {f"erase_cycles_unit{page}": 0 for page in range(256)}
    statistics = (
        StatGroup("flash_sim_stats", {"bytes_read": 0, "bytes_written": 0, **pages}),
        StatGroup("flash_sim_thresholds", {"max_write_calls": 0, "max_erase_calls": 0, "max_len": 0}),
        StatGroup("smp_svr_stats", {"ticks": recorded.ticks}),
    )
    if 8 not in recorded.groups:
        statistics = statistics[2:]
    device = SimulatedDevice(DeviceConfig(buf_size=recorded.buf_size))
    device.install(build_image("0.0.0"))
    for server in (
        StatServer(StatConfig(statistics)),
        SettingsServer(SettingsConfig(handlers=(), backend=False)),
        FsServer(FsConfig(mounts=(FsMount(blocks=4, files={}),))),
        ShellServer(ShellConfig(commands)),
        # The bootloader query is not in the recorded servers' tables.
        EnumServer(EnumConfig(recorded.groups, handlers={0: 8})),
        ZephyrServer(),
    ):
        device.add_group(server)
    return device


def replayed(name: str) -> Iterator[tuple[Exchange | Burst, tuple[bytes, ...], tuple[bytes, ...]]]:
    """Each row with the answers of the simulated device and those recorded."""
    device = built_like(FILES[name])
    now = 0.0
    for row in rows_of(name):
        requests: tuple[bytes, ...] = (row.request,) if isinstance(row, Exchange) else row.requests
        answered: tuple[bytes, ...]
        if isinstance(row, Exchange):
            answered = () if row.response is None else (row.response,)
        else:
            answered = row.responses
            # Which of a burst found a buffer is the link's business; what did not was never executed.
            sequences = {Header.unpack(answer).sequence for answer in answered}
            requests = tuple(request for request in requests if Header.unpack(request).sequence in sequences)
        replies: list[bytes] = []
        for request in requests:
            now += 0.1
            answer = device.handle(request, now)
            now += answer.busy_s
            replies += answer.replies
        yield row, tuple(replies), answered


@pytest.mark.parametrize("name", FILES)
def test_answers_are_those_of_the_real_server(name: str) -> None:
    recorded = FILES[name]
    different: dict[str, str] = {}
    count = 0
    for row, got, want in replayed(name):
        count += 1
        if got != want or row.name in recorded.not_reproduced:
            different[row.name] = f"{[part.hex() for part in got]}, recorded {[part.hex() for part in want]}"
    assert {row: text for row, text in different.items() if row not in recorded.not_reproduced} == {}
    assert set(different) == set(recorded.not_reproduced), "the list of rows that are given up is wrong"
    assert count == recorded.rows


def test_every_recording_is_replayed() -> None:
    found = {path.name.removeprefix("zephyr-4.4-").removesuffix(".jsonl") for path in GOLDEN.glob("zephyr-4.4-*.jsonl")}
    assert found == set(FILES)
    rows = [row for name in FILES for row in rows_of(name)]
    assert sum(group_of(row) == 8 for row in rows) == 3 * 46 + 3 * 6 + 1


def test_nothing_but_the_configuration_makes_the_answers() -> None:
    """A device built otherwise answers otherwise."""
    device = SimulatedDevice()
    device.install(build_image("0.0.0"))
    device.add_group(ShellServer(ShellConfig((ShellCommand("kernel version", "", _other),))))
    row = next(row for row in rows_of("native_sim.udp") if row.name == "shell exec kernel version")
    assert isinstance(row, Exchange)
    (reply,) = device.handle(row.request, 0.0).replies
    assert b"something else" in reply
    assert reply != row.response


def _other(terminal: Terminal, arguments: list[str]) -> None:
    terminal.print("something else")
