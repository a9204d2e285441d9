"""One dbus-daemon for all tests of a worker, in the place of the system's; a BlueZ for each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .bluez import Daemon

# BlueZ is Linux's; bleak brings what the emulation needs only there.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


@pytest.fixture(scope="session")
def running_daemon() -> Iterator[Daemon]:
    from .bluez import Daemon

    if not Daemon.installed():
        pytest.skip("dbus-daemon is not installed")
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture
def daemon(running_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """bleak reads the variable when it connects."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", running_daemon.address)
    return running_daemon
