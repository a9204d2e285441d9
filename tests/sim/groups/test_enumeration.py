"""The simulated enumeration: worked out from the groups that the device has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from mcumgrx.protocol.header import Op
from mcumgrx.sim.groups import Call, GroupServer
from mcumgrx.sim.groups.enumeration import EnumConfig, EnumServer
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.settings import SettingsServer
from mcumgrx.sim.groups.shell import ShellServer
from mcumgrx.sim.groups.stat import StatServer
from mcumgrx.sim.groups.zephyr import ZephyrServer


class HeaterServer(GroupServer):
    group: ClassVar[int] = 100
    name = "heater"

    def __init__(self) -> None:
        super().__init__({(Op.READ, 5): self.temperature})

    def temperature(self, call: Call) -> Mapping[str, Any]:
        return {}


def everything() -> tuple[GroupServer, ...]:
    return (
        EnumServer(),
        HeaterServer(),
        ZephyrServer(),
        StatServer(),
        ShellServer(),
        SettingsServer(),
        FsServer(),
    )


def test_all_groups_in_the_order_they_are_linked_in(desk: Any) -> None:
    device = desk(*everything())
    assert device.read(0) == {"count": 9}
    assert device.read(1) == {"groups": [10, 8, 1, 0, 3, 9, 2, 63, 100]}
    details = device.read(3, {"groups": [8, 3, 9, 2, 63, 10, 100, 8]})["groups"]
    assert [(entry["name"], entry["handlers"]) for entry in details] == [
        ("enum mgmt", 4),
        ("fs mgmt", 5),
        ("settings mgmt", 4),
        ("shell mgmt", 1),
        ("stat mgmt", 2),
        ("zephyr basic mgmt", 1),
        ("heater", 6),
    ]


def test_a_given_order_and_given_tables(desk: Any) -> None:
    device = desk(EnumServer(EnumConfig((0, 77, 10), handlers={0: 8})))
    assert device.read(1) == {"groups": [0, 10]}
    assert device.read(3) == {
        "groups": [
            {"group": 0, "name": "os mgmt", "handlers": 8},
            {"group": 10, "name": "enum mgmt", "handlers": 4},
        ]
    }


def test_single_groups_to_the_end(desk: Any) -> None:
    device = desk(EnumServer(EnumConfig((10, 1, 0))))
    assert device.read(2) == {"group": 10}
    assert device.read(2, {"index": 1}) == {"group": 1}
    assert device.read(2, {"index": 2}) == {"group": 0, "end": True}
    assert device.read(2, {"index": 3}) == device.err(4)
    assert device.read(2, {"index": 3}, version=0) == {"rc": 1}
    assert device.read(2, {"index": 65536}) == {"rc": 3}
    assert device.read(2, {"index": "0"}) == {"rc": 3}


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [([], [10, 1, 0]), ([60], []), ([0, 0, 60], [0]), ([0x10000], [0]), ([0] * 16, [0])],
)
def test_details_of_some(desk: Any, wanted: list[int], groups: list[int]) -> None:
    answer = desk(EnumServer(EnumConfig((10, 1, 0)))).read(3, {"groups": wanted})
    assert [entry["group"] for entry in answer["groups"]] == groups


def test_details_that_cannot_be_asked_for(desk: Any) -> None:
    device = desk(EnumServer())
    assert device.read(3, {"groups": [0] * 17}) == device.err(2)
    assert device.read(3, {"groups": [0] * 17}, version=0) == {"rc": 3}
    for wanted in ([-1], ["0"], [True], [1 << 32]):
        assert device.read(3, {"groups": wanted}) == {"rc": 3}
    assert desk(EnumServer(EnumConfig(details=False))).read(3) == {"rc": 8}
