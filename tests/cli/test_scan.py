"""`mcumgrx scan`, with transports that find what a test wants them to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from mcumgrx import registry, session
from mcumgrx.cli.command import make_command
from mcumgrx.cli.scan import Found, ScanResult, scan
from mcumgrx.cli.tables import Row, Table
from mcumgrx.cli.terminal import TerminalRenderer
from mcumgrx.plugin_api import Discovered
from mcumgrx.registry import Registry

from .test_renderers import ANSI, Screen

PLUGIN = """
    from mcumgrx.plugin_api import TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_transports():
        load = "mcumgrx_plugins.sim.transport:SimTransport"
        return [
            TransportPlugin("lab", "", load=load, aliases=("bench",), discover="scan_lab:lab"),
            TransportPlugin("radio", "", load=load, discover="scan_lab:broken", watch="scan_lab:radio"),
            TransportPlugin("slow", "", load=load, discover="scan_lab:slow"),
            TransportPlugin("broken", "", load=load, discover="scan_lab:broken"),
            TransportPlugin("off", "", load=load, discover="scan_lab:off"),
            TransportPlugin("absent", "", load=load, discover="scan_lab:absent"),
            TransportPlugin("leaving", "", load=load, discover="scan_lab:leaving"),
            TransportPlugin("cancelled", "", load=load, discover="scan_lab:cancelled"),
        ]
"""

FINDERS = """
    import asyncio
    from mcumgrx.plugin_api import ConnectFailed, Discovered

    devices = []
    asked = []

    async def lab(timeout_s):
        asked.append(timeout_s)
        return [Discovered(*device) for device in devices]

    script = []

    async def radio(timeout_s, report):
        for step in script:
            if callable(step):
                await step()
            else:
                report(Discovered(*step))

    async def slow(timeout_s):
        await asyncio.sleep(3600)

    async def broken(timeout_s):
        raise KeyError("oops")

    async def leaving(timeout_s):
        raise SystemExit(5)

    async def cancelled(timeout_s):
        raise asyncio.CancelledError

    async def off(timeout_s):
        raise ConnectFailed("the radio is off", hint="switch it on")
"""

Run = Callable[..., "Ended"]


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> Any:
        return self.records[-1]["result"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the finders: `devices` is what `lab` finds, `asked` the deadlines that it was given, `script` what
    `radio` reports and does meanwhile."""
    for name, text in (("scan_lab_plugin", PLUGIN), ("scan_lab", FINDERS)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"lab": "scan_lab_plugin", "sim": "mcumgrx_plugins.sim", "uart": "mcumgrx_plugins.uart"}
    assert session.default_registry is registry.default_registry  # imported before it is replaced
    found = Registry(entry_points=[EntryPoint(name, value, "mcumgrx") for name, value in names.items()])
    monkeypatch.setattr(registry, "default_registry", lambda: found)
    import scan_lab  # type: ignore[import-not-found]

    return scan_lab


@pytest.fixture
def run(lab: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_scan(*arguments: str, json: bool = False) -> Ended:
        made = make_command("scan", scan, scan.__mcumgrx_command__)  # type: ignore[attr-defined]
        capsys.readouterr()
        code = made.main([*arguments, *(["--json"] if json else [])], standalone_mode=False)
        return Ended(code, *capsys.readouterr())

    return run_scan


def test_one_transport(run: Run, lab: Any) -> None:
    lab.devices[:] = [
        ("serial:/dev/ttyACM0", "Widget", {"usb": "2fe3:0004", "serial_number": "A1"}),
        ("ble:Widget", "", {}),
    ]
    ended = run("--transport", "lab")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "name    address              signal  SMP  last seen",
        "Widget  serial:/dev/ttyACM0  -       -    -",
        "  usb 2fe3:0004, serial number A1",
        "-       ble:Widget           -       -    -",
    ]
    assert ended.err == ""
    assert lab.asked == [5.0]


def test_json(run: Run, lab: Any) -> None:
    lab.devices[:] = [("ble:Widget", "Widget", {"rssi": -60})]
    assert run("--transport", "bench:", "--scan-time", "2", json=True).result == {
        "devices": [
            {
                "transport": "lab",
                "address": "ble:Widget",
                "name": "Widget",
                "details": {"rssi": -60},
                "answers": None,
                "problem": None,
            }
        ],
        "problems": {},
        "left_out": 0,
        "interrupted": False,
    }
    assert lab.asked == [2.0]


def test_transports_that_fail_do_not_keep_the_others_from_looking(run: Run, lab: Any) -> None:
    lab.devices[:] = [("ble:Widget", "", {})]
    result = run("--scan-time", "0.1", json=True).result
    assert "ble:Widget" in [one["address"] for one in result["devices"]]
    problems = result["problems"]
    assert problems.pop("slow") == "the search was not done in 0.1 s"
    assert problems.pop("broken") == "in the plugin 'lab' the search failed: KeyError: 'oops'"
    assert problems.pop("off") == "the radio is off (switch it on)"
    assert "scan_lab has no 'absent'" in problems.pop("absent")
    assert problems.pop("leaving") == "in the plugin 'lab' the search failed: SystemExit: 5"
    assert problems.pop("cancelled") == "in the plugin 'lab' the search failed: CancelledError"
    assert problems == {}
    ended = run("--scan-time", "0.1")
    assert "radio" not in ended.out
    assert "warning: off: the radio is off (switch it on)\n" in ended.err


@pytest.mark.parametrize(
    ("transport", "code", "error"),
    [
        ("off", 3, "error: the radio is off\nhint: switch it on\n"),
        ("slow", 3, "error: the search was not done in 0.1 s\n"),
        ("broken", 8, "error: in the plugin 'lab' the search failed: KeyError: 'oops'\n"),
        ("leaving", 8, "error: in the plugin 'lab' the search failed: SystemExit: 5\n"),
        ("cancelled", 8, "error: in the plugin 'lab' the search failed: CancelledError\n"),
    ],
)
def test_a_search_bynobody_is_no_empty_result(run: Run, transport: str, code: int, error: str) -> None:
    ended = run("--transport", transport, "--scan-time", "0.1")
    assert (ended.code, ended.out, ended.err) == (code, "", error)


def test_nothing_found(run: Run) -> None:
    ended = run("--transport", "lab")
    assert (ended.code, ended.out) == (0, "nothing found\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--transport", "nonsense"], "there is no transport 'nonsense'"),
        (["--transport", "sim"], "sim: has no way to look for devices"),
        (["--scan-time", "0"], "--scan-time must be more than 0 seconds"),
        (["--scan-time", "-1"], "--scan-time must be more than 0 seconds"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], said: str, run: Run) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert said in ended.err


def test_probe(run: Run, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is opened and asked; what does not answer, or does not open, is no reason to fail."""
    monkeypatch.setattr("mcumgrx.cli.scan._ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = f"tcp:127.0.0.1:{silent.getsockname()[1]}"
        lab.devices[:] = [
            ("sim:desk", "Desk", {}),
            (mute, "", {}),
            ("serial:/nowhere", "", {}),
            ("tcp:nonsense", "", {}),
        ]
        ended = run("--transport", "lab", "--probe")
    assert ended.code == 0
    assert "opening a port can reset the board" in ended.err
    _, first, second, third, problem, fourth, other_problem = ended.out.splitlines()
    assert first.split() == ["Desk", "sim:desk", "-", "yes", "-"]
    assert second.split() == ["-", mute, "-", "no", "-"]
    assert third.split() == ["-", "serial:/nowhere", "-", "-", "-"]
    assert "there is no serial port /nowhere" in problem
    assert fourth.split() == ["-", "tcp:nonsense", "-", "-", "-"]
    assert "names no port" in other_problem


def test_without_probe_nothing_is_opened(run: Run, lab: Any) -> None:
    lab.devices[:] = [("serial:/nowhere", "", {})]
    ended = run("--transport", "lab", json=True)
    assert [record.get("event") for record in ended.records] == ["device_found", None]
    (device,) = ended.result["devices"]
    assert (device["answers"], device["problem"]) == (None, None)


# -- what is shown ----------------------------------------------------------------------------------------------------


def found(address: str, name: str = "", **details: object) -> Found:
    return Found("ble", address, name, details)


def test_what_a_device_says_of_itself_is_told_beside_what_only_its_link_knows() -> None:
    assert Discovered("acme:1").facts == {}
    one = Discovered("acme:1", "One", {"batch": 7}, signal_dbm=0, smp=False, last_seen_s=1.5, identity="A1")
    assert one.facts == {"signal_dbm": 0, "smp": False, "last_seen_s": 1.5, "identity": "A1", "batch": 7}


def test_details_are_told_with_their_units() -> None:
    one = found("ble:Widget", "Widget", signal_dbm=-42, smp=True, paired=False, power_dbm=8, last_seen_s=2.4, sold=True)
    assert ScanResult((one,), {}).lines() == [
        "name    address     signal   SMP  last seen",
        "Widget  ble:Widget  -42 dBm  yes  2 s ago",
        "  power 8 dBm, sold",
    ]


MAC, UUID = "ble:C0:FF:EE:12:34:56", "ble:2F0D1E6C-7E5B-4C2B-9A2E-0123456789AB"


@pytest.mark.parametrize("address", [MAC, UUID])
@pytest.mark.parametrize("name", ["x" * 248, "Küche " * 20, "台所のセンサー" * 8, "🔥🔥" * 20, "é" * 60, ""])
def test_the_table_fits_in_80_columns(address: str, name: str) -> None:
    rows = ScanResult((found(address, name, signal_dbm=-100, smp=True, last_seen_s=599.0),), {}).lines()
    assert len(cell_text(rows[1])) <= 80
    assert address in rows[1]
    assert rows[0].index("signal") == cell_text(rows[1]).index("-100 dBm")
    if name:
        assert "".join("".join(rows[2:]).split()) == "".join(f"name: {name}".split())


def cell_text(line: str) -> str:
    """The line with a placeholder of the same width for what is not one column wide."""
    return "".join("xx" if cell_len(char) == 2 else "x" * cell_len(char) if ord(char) > 127 else char for char in line)


def test_a_name_cannot_play_tricks_with_a_terminal() -> None:
    evil = "a\x1b[2J\x1b]0;title\x07\n\r\u202eb"
    result = ScanResult((found(MAC, evil, note="\x1b[31m"),), {"ble": "\x9b31m"})
    assert all(line.isprintable() for line in result.lines()[:-1])
    screen = Screen()
    renderer = TerminalRenderer(screen, screen)
    renderer.table(Table(("name", "address"), (Row((evil, evil)),), status=evil))
    renderer.result("scan", result)
    ours = re.sub(r"\x1b\[(?:\?25[lh]|[0-9;]*[mAK])|[\r\n]", "", screen.getvalue())
    assert ours.isprintable()
    assert "a\\x1b[2J" in ours


# -- while it looks ---------------------------------------------------------------------------------------------------


def test_reported_devices_are_told_at_once_and_once(run: Run, lab: Any) -> None:
    lab.devices[:] = [("serial:/dev/ttyACM0", "Widget", {})]
    lab.script[:] = [
        ("ble:1", "", {"smp": False, "last_seen_s": 0.0}),
        ("ble:2", "Sensor-2", {"smp": True, "signal_dbm": -70, "last_seen_s": 0.0}),
        ("ble:1", "Sensor-1", {"smp": False, "signal_dbm": -50, "last_seen_s": 0.0}),
        ("ble:1", "Sensor-1", {"smp": True, "signal_dbm": -60, "last_seen_s": 0.0}),
    ]
    ended = run("--transport", "radio", json=True)
    events = [(one["event"], one["device"]["address"], one["device"]["name"]) for one in ended.records[:-1]]
    assert events == [
        ("device_found", "ble:1", ""),
        ("device_found", "ble:2", "Sensor-2"),
        ("device_offers_smp", "ble:2", "Sensor-2"),
        ("device_offers_smp", "ble:1", "Sensor-1"),
    ]
    assert [(one["address"], one["details"]["signal_dbm"]) for one in ended.result["devices"]] == [
        ("ble:1", -60),
        ("ble:2", -70),
    ]
    assert ended.code == 0
    told = run("--scan-time", "0.1", json=True).records[:-1]
    assert {"ble:1", "ble:2", "serial:/dev/ttyACM0"} <= {
        one["device"]["address"] for one in told if one["event"] == "device_found"
    }


def test_what_a_probe_finds_out_is_told(run: Run, lab: Any) -> None:
    lab.devices[:] = [("sim:desk", "Desk", {})]
    ended = run("--transport", "lab", "--probe", json=True)
    assert [record.get("event") for record in ended.records] == [
        "device_found",
        "note",
        "device_offers_smp",
        None,
    ]


def test_a_transport_that_fails_half_way_keeps_what_it_has_found(run: Run, lab: Any) -> None:
    async def fail() -> None:
        raise OSError("the radio fell down")

    lab.script[:] = [("ble:1", "", {}), fail]
    result = run("--transport", "radio", json=True).result
    assert [one["address"] for one in result["devices"]] == ["ble:1"]
    assert result["problems"] == {"radio": "in the plugin 'lab' the search failed: OSError: the radio fell down"}


def test_the_age_counts_until_the_end(run: Run, lab: Any) -> None:
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        while loop.time() < begin_s + 0.3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    lab.script[:] = [("ble:1", "", {"last_seen_s": 2.0}), wait]
    (one,) = run("--transport", "radio", json=True).result["devices"]
    assert one["details"]["last_seen_s"] >= 2.3


NAMES = ("Sensor-1", "sensor-12", "Old Sensor-1", "[TV] Kitchen", "")


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        ("SENSOR", {"Sensor-1", "sensor-12", "Old Sensor-1"}),
        ("Sensor-*", {"Sensor-1", "sensor-12"}),
        ("sensor-?", {"Sensor-1"}),
        ("*-1", {"Sensor-1", "Old Sensor-1"}),
        ("*[12]", {"Sensor-1", "sensor-12", "Old Sensor-1"}),
        ("[tv]", {"[TV] Kitchen"}),
        ("nobody", set()),
    ],
)
def test_names(run: Run, lab: Any, text: str, fitting: set[str]) -> None:
    lab.devices[:] = [(f"ble:{number}", name, {}) for number, name in enumerate(NAMES)]
    ended = run("--transport", "lab", "--name", text, json=True)
    assert {one["name"] for one in ended.result["devices"]} == fitting
    assert {one["device"]["name"] for one in ended.records[:-1]} == fitting
    assert ended.result["left_out"] == len(NAMES) - len(fitting)


def test_only_those_that_advertise_smp(run: Run, lab: Any) -> None:
    lab.devices[:] = [("ble:1", "One", {"smp": True}), ("ble:2", "Two", {"smp": False}), ("serial:/x", "Port", {})]
    ended = run("--transport", "lab", "--smp")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["name", "One"]
    lab.devices.pop(0)
    assert run("--transport", "lab", "--smp").out == "nothing found that fits; left out: 2 devices\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interruption_ends_it_early_with_what_was_found(run: Run, lab: Any, as_json: bool) -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    lab.script[:] = [("ble:1", "Widget", {"smp": True}), interrupt]
    ended = run("--transport", "radio", "--probe", "--scan-time", "50", json=as_json)
    assert ended.code == 130
    if as_json:
        assert ended.result["interrupted"] is True
        assert [(one["name"], one["answers"]) for one in ended.result["devices"]] == [("Widget", None)]
    else:
        assert ended.out.splitlines()[1].split() == ["Widget", "ble:1", "-", "yes", "-"]
        assert ended.err == "note: interrupted: this is what was found until then\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a thread cannot interrupt the main thread there")
def test_an_interrupted_probe_tells_who_has_answered(run: Run, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcumgrx.cli.scan._ANSWER_S", 50.0)
    monkeypatch.setattr("mcumgrx.cli.scan._PROBES_AT_ONCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept() -> None:
            with silent.accept()[0] as link:
                link.recv(1000)
                os.kill(os.getpid(), signal.SIGINT)
                link.recv(1000)

        threading.Thread(target=accept, daemon=True).start()
        lab.devices[:] = [("sim:desk", "Desk", {}), (f"tcp:127.0.0.1:{silent.getsockname()[1]}", "", {})]
        ended = run("--transport", "lab", "--probe", json=True)
    assert ended.code == 130
    assert [one["answers"] for one in ended.result["devices"]] == [True, None]


def table(count: int, status: str = "looking, 3 s left") -> Table:
    rows = tuple(found(f"ble:C0:FF:EE:12:34:{n:02}", f"Sensor-{n}", signal_dbm=-n).row() for n in range(count))
    return Table(("name", "address", "signal", "SMP", "last seen"), rows, status)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40), (40, 10)])
def test_on_a_terminal_the_table_grows_within_its_bounds(
    columns: int, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    screen = Screen()
    renderer = TerminalRenderer(Screen(), screen)
    for count in (0, 3, 60):
        screen.seek(screen.truncate(0))
        renderer.table(table(count))
        rows = [ANSI.sub("", row).strip("\r") for row in screen.getvalue().split("\n")]
        assert len(rows) < lines
        assert all(len(row) <= columns for row in rows)
        assert rows[-1].endswith(" looking, 3 s left")
        assert sum("Sensor-" in row for row in rows) == min(count, lines - 4)
    assert f"... and {60 - (lines - 4)} more, all of them at the end" in rows
    screen.seek(screen.truncate(0))
    renderer.close()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back


def test_a_terminal_that_can_only_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    screen.encoding = "ascii"
    renderer = TerminalRenderer(Screen(), screen)
    renderer.table(table(2))
    renderer.close()
    assert screen.getvalue().isascii()
