"""`mcumgrx scan`, with transports that find what a test wants them to."""

from __future__ import annotations

import json
import socket
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mcumgrx import registry, session
from mcumgrx.cli.command import Settings, make_command
from mcumgrx.cli.scan import Found, ScanResult, scan
from mcumgrx.registry import Registry

PLUGIN = """
    from mcumgrx.plugin_api import TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_transports():
        load = "mcumgrx_plugins.sim.transport:SimTransport"
        return [
            TransportPlugin("lab", "", load=load, aliases=("bench",), discover="scan_lab:lab"),
            TransportPlugin("slow", "", load=load, discover="scan_lab:slow"),
            TransportPlugin("broken", "", load=load, discover="scan_lab:broken"),
            TransportPlugin("off", "", load=load, discover="scan_lab:off"),
            TransportPlugin("absent", "", load=load, discover="scan_lab:absent"),
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

    async def slow(timeout_s):
        await asyncio.sleep(3600)

    async def broken(timeout_s):
        raise KeyError("oops")

    async def off(timeout_s):
        raise ConnectFailed("the radio is off", hint="switch it on")
"""

Run = Callable[..., "Ended"]


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def result(self) -> Any:
        return json.loads(self.out.splitlines()[-1])["result"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the finders: `devices` is what `lab` finds, `asked` the deadlines that it was given."""
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
    def run_scan(*arguments: str, **settings: Any) -> Ended:
        made = make_command("scan", scan, scan.__mcumgrx_command__)  # type: ignore[attr-defined]
        capsys.readouterr()
        code = made.main(list(arguments), standalone_mode=False, obj=Settings(**settings))
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
        "serial:/dev/ttyACM0  Widget, usb 2fe3:0004, serial number A1",
        "ble:Widget",
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
    }
    assert lab.asked == [2.0]


def test_transports_that_fail_do_not_keep_the_others_from_looking(run: Run, lab: Any) -> None:
    lab.devices[:] = [("ble:Widget", "", {})]
    result = run("--scan-time", "0.1", json=True).result
    assert "ble:Widget" in [one["address"] for one in result["devices"]]
    problems = result["problems"]
    assert problems.pop("slow") == "was not done in 0.1 s"
    assert problems.pop("broken") == "its search failed: KeyError: 'oops'"
    assert problems.pop("off") == "the radio is off (switch it on)"
    assert "scan_lab has no 'absent'" in problems.pop("absent")
    assert problems == {}
    assert "off: the radio is off (switch it on)" in run("--scan-time", "0.1").out


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
    first, second, third, problem, fourth, other_problem = ended.out.splitlines()
    assert first.endswith("Desk, speaks SMP")
    assert second.endswith("no answer")
    assert "there is no serial port /nowhere" in problem
    assert "names no port" in other_problem
    assert (third, fourth) == ("serial:/nowhere", "tcp:nonsense")


def test_without_probe_nothing_is_opened(run: Run, lab: Any) -> None:
    lab.devices[:] = [("serial:/nowhere", "", {})]
    assert run("--transport", "lab").out == "serial:/nowhere\n"


def test_details_are_told_with_their_units() -> None:
    details = {"signal_dbm": -42, "smp": True, "paired": False, "last_seen_s": 0.5, "serial_number": "A1"}
    result = ScanResult((Found("ble", "ble:Widget", "Widget", details),), {})
    assert result.lines() == ["ble:Widget  Widget, signal -42 dBm, smp, last seen 0.5 s, serial number A1"]
