"""Recorded answers of one command group, for tests that read them with the plugin's typed commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import pytest

from mcumgrx.errors import DeviceError
from mcumgrx.messages.message import Reply, SmpCommand
from mcumgrx.protocol.header import Header
from mcumgrx.testing.golden import Exchange, read_rows

__all__ = ["Recorded", "recorded", "reply_to", "result_or_error"]

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One exchange: the request's header and body, the whole answer, and its body as `cbor2` decodes it."""

    name: str
    header: Header
    asked: dict[str, Any]
    response: bytes
    said: dict[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def reply(self) -> Reply:
        header = Header.unpack(self.response)
        return Reply(*header[:3], *header[4:], self.response[8:])


def recorded(group: int) -> list[Recorded]:
    """Every answered exchange of `group` in all recordings."""
    return [
        Recorded(
            f"{path.stem.removeprefix('zephyr-4.4-')}: {row.name}",
            row.header,
            row.request_body or {},
            row.response,
            cbor2.loads(row.response[8:]) if len(row.response) > 8 else {},
        )
        for path in sorted(GOLDEN.glob("zephyr-*.jsonl"))
        for row in read_rows(path)
        if isinstance(row, Exchange) and row.header.group == group and row.response is not None
    ]


def result_or_error(row: Recorded, command: SmpCommand[Any]) -> Any:
    """The typed result of a recorded answer, or its `DeviceError`, after its numbers have been checked."""
    if "err" not in row.said and row.said.get("rc", 0) == 0:
        return command.result(row.reply)
    with pytest.raises(DeviceError) as raised:
        command.result(row.reply)
    wanted = row.said.get("err", row.said)
    assert (raised.value.group, raised.value.rc) == (wanted.get("group"), wanted["rc"])
    if wanted.get("group") is None or command.facts.error_table() is not None:
        assert raised.value.name is not None
    return raised.value


def reply_to(command: SmpCommand[Any], payload: bytes) -> Reply:
    """A version 2 reply to `command`."""
    return Reply(command.facts.op + 1, 1, 0, command.facts.group, 9, command.facts.number, payload)
