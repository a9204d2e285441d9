"""Fixtures for tests with a device: `mcumgrx_device`, `mcumgrx_client`, `mcumgrx_sim`. pytest finds them by itself.

Every run of pytest loads this module where the package is installed, so it imports nothing of it before a fixture is
used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mcumgrx.testing.recording import RecordedDevice, Recording

_VARIABLE = "MCUMGRX_DEVICE"

# Erasing and starting take seconds, as on real boards. Tests have better things to do.
_QUICK = {"erase": "0.2", "boot": "0.05", "reset_delay": "0.02", "watchdog": "0.2"}

_session = pytest.StashKey["Recording"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("mcumgrx").addoption(
        "--mcumgrx-device",
        metavar="ADDRESS",
        help=f"the device of mcumgrx_device and mcumgrx_client, such as serial:/dev/ttyACM0 [{_VARIABLE}]",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "mcumgrx_sim(**options): options of the board that the fixture mcumgrx_sim makes"
    )
    if config.pluginmanager.hasplugin("asyncio"):  # pytest-asyncio, which is loaded then
        from mcumgrx.testing import pytest_async

        config.pluginmanager.register(pytest_async, "mcumgrx-asyncio")
    else:
        config.pluginmanager.register(_WithoutAsyncio(), "mcumgrx-asyncio")


class _WithoutAsyncio:
    @pytest.fixture
    def mcumgrx_client(self) -> None:
        """The connected client; needs pytest-asyncio."""
        pytest.fail(
            "mcumgrx_client is asynchronous and needs pytest-asyncio: pip install pytest-asyncio", pytrace=False
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and (session := item.stash.get(_session, None)) is not None and session.text:
        report.sections.append(("mcumgrx session", session.text))
    return report


@pytest.fixture
def mcumgrx_session(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """What is said to devices in this test and heard from them; its text is shown with the report if the test fails."""
    from mcumgrx.testing.recording import recording

    with recording() as session:
        request.node.stash[_session] = session
        yield session


@pytest.fixture
def mcumgrx_address(pytestconfig: pytest.Config) -> str:
    """The address of the device to test with. Override it in a conftest.py to choose another one."""
    address: str | None = pytestconfig.getoption("--mcumgrx-device") or os.environ.get(_VARIABLE)
    if not address:
        pytest.skip(f"no device: say which with --mcumgrx-device ADDRESS or {_VARIABLE}")
    return address


@pytest.fixture
def mcumgrx_device(mcumgrx_address: str, mcumgrx_session: Recording) -> Iterator[RecordedDevice]:
    """The device, whose methods block, as `mcumgrx.open` gives it. Its link is opened when it is first needed."""
    from mcumgrx.testing.recording import RecordedDevice

    with RecordedDevice(mcumgrx_address, mcumgrx_session) as device:
        yield device


@pytest.fixture
def mcumgrx_sim(request: pytest.FixtureRequest, tmp_path: Path, mcumgrx_session: Recording) -> str:
    """The address of a simulated board of this test alone.

    The board is kept in a file, so that it is the same one for all links, loops and processes, one after the other.
    The marker `mcumgrx_sim` takes the options of a `sim:` address.
    """
    from mcumgrx.address import Address

    asked: dict[str, str] = {}
    for marker in request.node.iter_markers("mcumgrx_sim"):  # the closest first
        asked = {**{key: str(value) for key, value in marker.kwargs.items()}, **asked}
    return str(Address("sim", "board", {**_QUICK, **asked, "state": str(tmp_path / "mcumgrx-board.json")}))
