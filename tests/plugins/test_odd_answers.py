"""Whatever a device puts into the fields of an answer: one of a wrong type costs that field, and is shown where it can.

For every group but the images; each command once with a sound answer, and then with everything else in its place.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import pytest

from mcumgrx.cli.data import json_line
from mcumgrx.errors import MalformedReply
from mcumgrx.messages.message import SmpCommand
from mcumgrx.plugin_api import ReadBootloaderMode, ReadParams
from mcumgrx_plugins.enum import commands as enum_commands
from mcumgrx_plugins.enum.messages import ListGroups, ReadGroupDetails
from mcumgrx_plugins.fs import commands as fs_commands
from mcumgrx_plugins.fs.messages import ReadHash, ReadHashTypes, ReadStatus
from mcumgrx_plugins.os import commands as os_commands
from mcumgrx_plugins.os.messages import (
    QueryBootloader,
    ReadDatetime,
    ReadInfo,
    ReadMemoryPools,
    ReadTasks,
)
from mcumgrx_plugins.raw.commands import RawResult
from mcumgrx_plugins.raw.messages import RawCommand
from mcumgrx_plugins.raw.text import to_json
from mcumgrx_plugins.settings.messages import ReadSetting
from mcumgrx_plugins.shell.commands import RunResult
from mcumgrx_plugins.shell.messages import Execute
from mcumgrx_plugins.stat import commands as stat_commands
from mcumgrx_plugins.stat.messages import ListStatistics, ReadStatistics

from ..support.recorded import reply_to

TASK = {"prio": -1, "tid": 1, "state": 2, "stksiz": 512, "stkuse": 60, "cswcnt": 4, "runtime": 5, "more": [1]}
POOL = {"blksiz": 1, "nblks": 316, "nfree": 311, "min": 300}
DETAIL = {"group": 64, "name": "acme", "handlers": 3, "more": "x"}


def nothing(result: Any) -> None:
    """Of values that are not shown by themselves."""


# Each with a sound answer, and what the command line makes of its result.
ANSWERS: list[tuple[SmpCommand[Any], dict[str, Any], Callable[[Any], Any]]] = [
    (ReadTasks(), {"tasks": {"a": TASK, "b": TASK}}, lambda r: os_commands.TasksResult(r.tasks, r.extra)),
    (ReadMemoryPools(), {"mpools": {"a": POOL, "b": POOL}}, lambda r: os_commands.PoolsResult(r.pools, r.extra)),
    (ReadMemoryPools(), {"tasks": {"a": POOL, "b": POOL}}, lambda r: os_commands.PoolsResult(r.pools, r.extra)),
    (ReadMemoryPools(), {"a": POOL, "b": POOL}, lambda r: os_commands.PoolsResult(r.pools, r.extra)),
    (ReadParams(), {"buf_size": 384, "buf_count": 4}, lambda r: os_commands.ParamsResult(1, 1, 1, r.extra)),
    (ReadInfo("s"), {"output": "Zephyr"}, lambda r: os_commands.InfoResult(None, "s", r)),
    (ReadDatetime(), {"datetime": "2026-01-02T03:04:05"}, nothing),
    (QueryBootloader("mode"), {"mode": 3}, lambda r: os_commands.BootloaderAnswer("mode", r)),
    (
        ReadBootloaderMode(),
        {"mode": 3, "no-downgrade": True},
        lambda r: os_commands.BootloaderResult("MCUboot", r.mode, "", r.no_downgrade, None, r.extra),
    ),
    (ListStatistics(), {"stat_list": ["a", "b"]}, lambda r: stat_commands.ListResult(r.names, r.extra)),
    (ReadStatistics("a"), {"name": "a", "fields": {"x": 1, "y": 2}}, lambda r: stat_commands.ShowResult((r,))),
    (ReadSetting("a"), {"val": b"x", "max_size": 32}, nothing),
    (ReadStatus("a"), {"len": 5}, lambda r: fs_commands.SizeResult("a", r.size)),
    (
        ReadHash("a"),
        {"type": "crc32", "off": 1, "len": 4, "output": 77},
        lambda r: fs_commands.HashResult("a", r.type, r.offset, r.length, r.hex, r.extra),
    ),
    (
        ReadHashTypes(),
        {"types": {"crc32": {"format": 0, "size": 4}, "sha256": {"format": 1, "size": 32}}},
        fs_commands.HashTypesResult,
    ),
    (ListGroups(), {"groups": [0, 1, 64]}, lambda r: enum_commands.ListResult(r.groups, r.extra)),
    (
        ReadGroupDetails(),
        {"groups": [DETAIL, {**DETAIL, "group": 65}]},
        lambda r: enum_commands.ShowResult(r.groups, (), True, r.extra),
    ),
    (Execute(("x",)), {"o": "text", "ret": 0}, lambda r: RunResult("x", r.text, r.status)),
    (RawCommand(64, 0), {"a": [1, {"b": b"x"}]}, lambda r: RawResult(64, 0, to_json(r))),
]

ODD: list[Any] = [
    *(None, True, 0, 5, -1, 2**63, -(2**63), 1.5, math.nan, -math.inf, "", "5", "text \x1b[2J", b"", b"\xff\xfe"),
    *([], [1, "a", None], {}, {"a": 1}, {1: 2, b"x": None}, {"a": {"b": [1.5]}}, cbor2.undefined),
]


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside, however deep."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (key,)
        yield from ((key, *more) for more in places(item))


def changed(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made: Any = copy.deepcopy(body)
    at = made
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return made  # type: ignore[no-any-return]


def without(body: dict[str, Any], place: tuple[Any, ...]) -> dict[str, Any]:
    made: Any = copy.deepcopy(body)
    at = made
    for key in place[:-1]:
        at = at[key]
    del at[place[-1]]
    return made  # type: ignore[no-any-return]


def shows(command: SmpCommand[Any], body: dict[str, Any], make: Callable[[Any], Any]) -> str | None:
    """What people read of this answer, which must be possible in JSON too; None where it makes no sense."""
    try:
        result = command.result(reply_to(command, cbor2.dumps(body)))
    except MalformedReply as error:
        if not str(error).startswith(f"the device's answer to the {command.facts.what} makes no sense: "):
            raise
        return None
    shown = make(result)
    if shown is None:
        return ""
    json.loads(json_line({"command": "x", "result": shown}))
    return "\n".join(shown.lines())


@pytest.mark.parametrize(("command", "body", "make"), ANSWERS, ids=lambda value: type(value).__name__)
def test_every_value_in_every_place(command: SmpCommand[Any], body: dict[str, Any], make: Callable[[Any], Any]) -> None:
    assert shows(command, body, make) is not None
    for place in places(body):
        shows(command, without(body, place), make)
        for value in ODD:
            shows(command, changed(body, place, value), make)
    for value in ODD:
        if isinstance(value, dict):
            shows(command, value, make)
    if not isinstance(command, RawCommand):
        with pytest.raises(MalformedReply):
            command.result(reply_to(command, b""))


LISTS = [
    answer for answer in ANSWERS if type(answer[0]) in (ReadTasks, ReadMemoryPools, ReadHashTypes, ReadGroupDetails)
]


@pytest.mark.parametrize(("command", "body", "make"), LISTS, ids=lambda value: type(value).__name__)
def test_one_entry_costs_no_other(command: SmpCommand[Any], body: dict[str, Any], make: Callable[[Any], Any]) -> None:
    last = str(shows(command, body, make)).splitlines()
    last = [line for line in last if not line.startswith("(")]
    for place in places(body):
        names = [key for key in place if key in ("a", "crc32", 0)]
        if not names or (len(place) == 1 and command.__class__ is not ReadMemoryPools) or place == ("groups",):
            continue
        for value in ODD:
            text = shows(command, changed(body, place, value), make)
            assert text is not None, (place, value)
            # The columns may have become others; the words of the second entry are still there.
            assert last[-1].split()[0] in text
