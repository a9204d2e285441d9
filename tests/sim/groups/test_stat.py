"""The simulated statistics: which groups there are, what the counters show, and builds without names."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx.errors import UsageError
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups.stat import StatConfig, StatErrorCode, StatGroup, StatServer


def test_the_desk_device_counts(desk: Any) -> None:
    device = desk(StatServer())
    assert device.read(1) == {"stat_list": ["smp_svr_stats", "smp", "flash"]}
    assert device.read(0, {"name": "smp_svr_stats"}) == {"name": "smp_svr_stats", "fields": {"ticks": 0}}
    device.now += 12.5
    assert device.read(0, {"name": "smp_svr_stats"})["fields"] == {"ticks": 12}
    assert device.read(0, {"name": "smp"})["fields"] == {"requests": 4, "boots": 1}
    device.reset()
    assert device.read(0, {"name": "smp_svr_stats"})["fields"] == {"ticks": 0}
    assert device.read(0, {"name": "smp"})["fields"]["boots"] == 2
    device.now = 0.5
    assert device.read(0, {"name": "smp_svr_stats"})["fields"] == {"ticks": 0}, "another clock"


@pytest.mark.parametrize(
    ("size", "value", "shown"),
    [
        (2, 0x12345, 0x2345),
        (4, 1 << 32 | 7, 7),
        (8, 1 << 32 | 7, 1 << 32 | 7),
        (4, lambda device, uptime_s: -1, 0xFFFFFFFF),
    ],
)
def test_counters_wrap(desk: Any, size: int, value: Any, shown: int) -> None:
    device = desk(StatServer(StatConfig((StatGroup("g", {"a": value}, counter_bytes=size),))))
    assert device.read(0, {"name": "g"}) == {"name": "g", "fields": {"a": shown}}


def test_fields_without_names(desk: Any) -> None:
    device = desk(StatServer(StatConfig((StatGroup("g", {"a": 1, "b": 2}),), field_names=False)))
    assert device.read(0, {"name": "g"})["fields"] == {"s0": 1, "s1": 2}


def test_names(desk: Any) -> None:
    device = desk(StatServer(StatConfig((StatGroup("n" * 31, {}), StatGroup("m" * 32, {})))))
    assert device.read(0, {"name": "n" * 31}) == {"name": "n" * 31, "fields": {}}
    assert device.read(0, {"name": "m" * 32}) == {"rc": 3}, "listed, and never to be reached"
    assert device.read(0, {"name": ""}) == {"rc": 3}
    assert device.send(0, 0, b"")[8:] == b"\xbf\x62rc\x03\xff"
    assert device.read(0, {"name": "none"}) == device.err(StatErrorCode.INVALID_STAT_NAME)
    assert device.read(0, {"name": "none"}, version=0) == {"rc": 5}
    assert device.write(1) == {"rc": 8}


def test_what_does_not_fit_the_buffer(desk: Any) -> None:
    many = StatGroup("many", {f"counter{number}": 0 for number in range(40)})
    assert desk(StatServer(StatConfig((many,)))).read(0, {"name": "many"}) == {"rc": 7}
    large = desk(StatServer(StatConfig((many,))), config=DeviceConfig(buf_size=1024))
    assert len(large.read(0, {"name": "many"})["fields"]) == 40


def test_impossible_counters_are_named() -> None:
    with pytest.raises(UsageError):
        StatGroup("g", {}, counter_bytes=3)
