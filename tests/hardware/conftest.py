"""`--ble-device ADDRESS`: a real Bluetooth LE device for the tests of this folder, and a report of what it did."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from mcumgrx import __version__
from mcumgrx.address import Address
from mcumgrx.errors import McumgrError
from mcumgrx.protocol.codec import IMPLEMENTATION

SCHEMA = 1
_DEVICE, _IMAGE, _REPORT = "--ble-device", "--ble-image", "--ble-report"
_DEFAULT = "ble-report.json"

STEPS = ("scan", "connect", "information", "params", "echo", "echo in fragments", "image list", "resubscribe", "dfu")
"""The list, in the order of the report; the tests run in any."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware")
    group.addoption(_DEVICE, metavar="ADDRESS", help="run tests/hardware on this device, such as ble:Widget")
    group.addoption(_IMAGE, metavar="FILE", help="a signed image to update that device with, for good")
    group.addoption(_REPORT, metavar="FILE", default=_DEFAULT, help=f"where the report goes [{_DEFAULT}]")


def _option(config: pytest.Config, name: str) -> str | None:
    # In a run of other folders as well, this file is loaded when the command line has been read.
    value: str | None = config.getoption(name, None)
    return value


def pytest_configure(config: pytest.Config) -> None:
    device = _option(config, _DEVICE)
    if not device:
        return
    try:
        scheme = Address.parse(device).scheme
    except McumgrError as error:
        raise pytest.UsageError(f"{_DEVICE}: {error}") from error
    if scheme != "ble":
        raise pytest.UsageError(f"{_DEVICE}: {device} is not a Bluetooth address, such as ble:Widget")
    image = _option(config, _IMAGE)
    if image and not Path(image).is_file():
        raise pytest.UsageError(f"{_IMAGE}: there is no file {image}")
    if not hasattr(config, "workerinput"):
        path = Path(_option(config, _REPORT) or _DEFAULT)
        config.pluginmanager.register(_Report(config.invocation_params.dir / path, device), "hardware report")


@pytest.fixture
def device_address(request: pytest.FixtureRequest) -> str:
    """The device that the tests are for; without one they skip."""
    address = _option(request.config, _DEVICE)
    if not address:
        pytest.skip(f"needs a device: {_DEVICE} ADDRESS")
    return address


@pytest.fixture
def image_file(request: pytest.FixtureRequest) -> Path:
    """The image that the device is to be updated with; without one it is not."""
    file = _option(request.config, _IMAGE)
    if not file:
        pytest.skip(f"needs an image that may be installed: {_IMAGE} FILE")
    return Path(file)


class _Report:
    """Collects what each step of the list has found, and writes it at the end."""

    def __init__(self, path: Path, device: str) -> None:
        self._path = path
        self._device = device
        self._steps: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        step: dict[str, Any] = {"result": report.outcome, "seconds": round(report.duration, 1)}
        if isinstance(report.longrepr, tuple):
            step["reason"] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            step["reason"] = str(crash.message if crash is not None else report.longrepr).splitlines()[0]
        name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
        self._steps[name] = {**step, **dict(report.user_properties)}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        results = [step["result"] for step in self._steps.values()]
        report = {
            "schema": SCHEMA,
            "date": datetime.date.today().isoformat(),
            "device": self._device,
            "passed": results.count("passed"),
            "failed": results.count("failed"),
            "skipped": results.count("skipped"),
            # A D-Bus of its own is that of an emulation: such a report says nothing about hardware.
            "emulated": bool(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")),
            "system": {"Darwin": "macOS"}.get(platform.system(), platform.system()),
            "release": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "bleak": importlib.metadata.version("bleak"),
            "mcumgrx": __version__,
            "codec": IMPLEMENTATION,
            "steps": dict(sorted(self._steps.items(), key=lambda step: STEPS.index(step[0]))),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"report: {self._path}")
