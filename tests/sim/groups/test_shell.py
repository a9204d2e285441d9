"""The simulated shell: how arguments become a line, what commands are, and where the output ends."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups.shell import ShellCommand, ShellConfig, ShellErrorCode, ShellServer, Terminal


def recorder(lines: list[list[str]]) -> ShellServer:
    def run(terminal: Terminal, arguments: list[str]) -> int:
        lines.append(arguments)
        return len(arguments)

    return ShellServer(ShellConfig((ShellCommand("run", "", run), ShellCommand("run fast", "", run))))


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        (["run", "a", "b"], ["a", "b"]),
        (["run a b"], ["a", "b"]),
        (["run", "a b"], ["a", "b"]),
        (["run", '"a b"'], ["a b"]),
        (["run", '"a', 'b"'], ["a b"]),
        (["run", "", "a"], ["a"]),
        (["run", "a\\ b"], ["a b"]),
        (["run", "fast", "a"], ["a"]),
        (["run", "a", 5, "b"], ["a"]),
        (["run", "a\0b"], ["a"]),
    ],
)
def test_arguments_are_joined_by_one_space_and_split_again(desk: Any, argv: list[Any], arguments: list[str]) -> None:
    lines: list[list[str]] = []
    device = desk(recorder(lines))
    assert device.write(0, {"argv": argv}) == {"o": "\r\n", "ret": len(arguments)}
    assert lines == [arguments]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, {"rc": 3}),
        ({"argv": "run"}, {"rc": 3}),
        ({"argv": {"a": 1}}, {"rc": 3}),
        ({"argv": []}, ShellErrorCode.EMPTY_COMMAND),
        ({"argv": [5]}, ShellErrorCode.EMPTY_COMMAND),
        ({"argv": [b"run"]}, ShellErrorCode.EMPTY_COMMAND),
        ({"argv": ["x" * 255]}, None),
        ({"argv": ["x" * 127, "x" * 127]}, None),
        ({"argv": ["x" * 256]}, ShellErrorCode.COMMAND_TOO_LONG),
        ({"argv": ["x" * 127, "x" * 128]}, ShellErrorCode.COMMAND_TOO_LONG),
    ],
)
def test_lines_that_are_none(desk: Any, body: dict[str, Any], answer: Any) -> None:
    device = desk(recorder([]), config=DeviceConfig(buf_size=1024))
    for version in (0, 1):
        got = device.write(0, body, version=version)
        if answer is None:
            assert got["ret"] == -8
        elif isinstance(answer, dict):
            assert got == answer
        else:
            assert got == (device.err(answer) if version else {"rc": 3})


@pytest.mark.parametrize("argv", [[""], [" "], ["", ""]])
def test_an_empty_line_is_no_command(desk: Any, argv: list[str]) -> None:
    assert desk(ShellServer()).write(0, {"argv": argv}) == {"o": "\r\n", "ret": -8}


@pytest.mark.parametrize(
    ("line", "output", "ret"),
    [
        ("kernel version", "Zephyr version 4.4.0\r\n", 0),
        ("hwinfo board", "mcumgrx_sim\r\n", 0),
        ("echo a  b", "a b\r\n", 0),
        ("kernel uptime", "Uptime: 0 ms\r\n", 0),
        ("nope", "\x1b[1;31mnope: command not found\r\n\x1b[m", -8),
        ("kernel sleep x", "\x1b[1;31msleep: give the time in milliseconds\r\n\x1b[m", -22),
        ('echo "a', "\x1b[1;31mnot terminated: a quotation mark\r\n\x1b[m", -8),
        ("hwinfo nope", "hwinfo - commands\r\nSubcommands:\r\n  board  : Name of the board.\r\n", 1),
    ],
)
def test_the_desk_device_has_commands(desk: Any, line: str, output: str, ret: int) -> None:
    device = desk(ShellServer())
    for version in (0, 1):
        assert device.write(0, {"argv": line.split(" ")}, version=version) == {"o": f"\r\n{output}", "ret": ret}
    assert device.read(0, {"argv": ["echo"]}) == {"rc": 8}


def test_help_lists_the_commands(desk: Any) -> None:
    answer = desk(ShellServer()).write(0, {"argv": ["help"]})
    assert answer["ret"] == 0
    assert "\r\n  kernel  : Kernel commands\r\n" in answer["o"]


def test_output_is_cut_and_may_still_not_fit(desk: Any) -> None:
    ran: list[int] = []

    def much(terminal: Terminal, arguments: list[str]) -> None:
        ran.append(1)
        terminal.print("y" * 1000)

    config = ShellConfig((ShellCommand("much", "", much),))
    large = desk(ShellServer(config), config=DeviceConfig(buf_size=1024))
    assert large.write(0, {"argv": ["much"]}) == {"o": "\r\n" + "y" * 509, "ret": 0}
    assert desk(ShellServer(config)).write(0, {"argv": ["much"]}) == {"rc": 7}
    assert len(ran) == 2, "it ran, and its output is lost"
    small = desk(ShellServer(ShellConfig(config.commands, output_size=100)))
    assert len(small.write(0, {"argv": ["much"]})["o"]) == 99


def test_a_command_blocks_the_server_and_can_reset_the_device(desk: Any) -> None:
    device = desk(ShellServer())
    device.write(0, {"argv": ["kernel", "sleep", "2500"]})
    assert device.busy_s == pytest.approx(2.5)
    device.write(0, {"argv": ["kernel", "reboot", "cold"]})
    assert device.device.reset_pending
    device.now += 30
    device.write(0, {"argv": ["kernel", "uptime"]})
    device.now += 1.25
    assert device.write(0, {"argv": ["kernel", "uptime"]})["o"] == "\r\nUptime: 1250 ms\r\n"
    assert device.device.boots == 2


def test_the_result_was_once_called_rc(desk: Any) -> None:
    device = desk(ShellServer(ShellConfig(legacy_rc=True)))
    assert device.write(0, {"argv": ["nope"]})["rc"] == -8
    assert cbor2.dumps(device.write(0, {"argv": ["echo", "x"]})) == cbor2.dumps({"o": "\r\nx\r\n", "rc": 0})


def test_help_can_be_replaced(desk: Any) -> None:
    device = desk(ShellServer(ShellConfig((ShellCommand("help", "", lambda terminal, arguments: 5),))))
    assert device.write(0, {"argv": ["help"]}) == {"o": "\r\n", "ret": 5}
