"""`--zephyr-table FILE`: what was tested against which server, as a page of the documentation."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

import pytest

from mcumgrx import __version__
from mcumgrx.protocol.codec import IMPLEMENTATION

_HEADING = """# Tested with real servers

Written by `make test-zephyr` on {date}: mcumgrx {version} (codec: {codec}), Python {python}, {system}.

The servers are Zephyr's, built by intercreate/smp-server-fixtures on GitHub:
`native_sim` runs the firmware as a process of the computer, with its UART on a pseudo-terminal or its UDP port on the
loopback interface; the others are emulated by QEMU, with the UART on a TCP socket. Each is asked for echoes of one byte
up to the largest message, its buffers, a command that it does not know, and its image list where it has one.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--zephyr-table", metavar="FILE", help="write the results of tests/zephyr into FILE")


class _Table:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self._reports.append(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        servers: list[dict[str, Any]] = []
        others: list[tuple[str, str, str]] = []
        for report in sorted(self._reports, key=lambda report: report.nodeid):
            properties = dict(report.user_properties)
            if "server" in properties:
                servers.append(properties | {"result": report.outcome})
            else:
                others.append((_title(report.nodeid), report.outcome, f"{report.duration:.1f}"))
        columns = ("server", "address", "framing", "buffers", "largest message", "echoes", "result")
        lines = _table(columns, [[str(row.get(column, "")) for column in columns] for row in servers])
        lines += ["", *_table(("test", "result", "seconds"), others)]
        head = _HEADING.format(
            date=datetime.date.today().isoformat(),
            version=__version__,
            codec=IMPLEMENTATION,
            python=platform.python_version(),
            system=platform.system(),
        )
        self._path.write_text(head + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _title(nodeid: str) -> str:
    file, _, test = nodeid.partition("::")
    name, bracket, parameters = test.partition("[")
    text = f"{Path(file).stem.removeprefix('test_')}: {name.removeprefix('test_').replace('_', ' ')}"
    return f"{text} ({parameters.partition('@')[0].rstrip(']')})" if bracket else text.partition("@")[0]


def _table(columns: tuple[str, ...], rows: list[Any]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{' --- |' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--zephyr-table")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Table(config.rootpath / path), "zephyr table")
