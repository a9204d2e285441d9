"""One dbus-daemon for all tests of a worker, in the place of the system's; a BlueZ for each test."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .bluez import Daemon

# BlueZ is Linux's; bleak brings what the emulation needs only there.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]


class _LeftByTheBus(logging.Filter):
    """Drops what asyncio tells of a future that dbus_fast leaves behind with the error that ended its bus.

    It is told when the future is collected, which may be in any later test of the same process.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        frames = traceback.walk_tb(None if error is None else error.__traceback__)
        return not any("dbus_fast" in frame.f_code.co_filename for frame, _ in frames)


logging.getLogger("asyncio").addFilter(_LeftByTheBus())


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
