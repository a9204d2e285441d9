"""Group 9 of the simulated device: command lines, whose commands are Python functions.

Source: Zephyr `subsys/mgmt/mcumgr/grp/shell_mgmt/src/shell_mgmt.c`, `subsys/shell/shell.c`.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.groups import Call, Device, GroupError, GroupServer, Refused

RED, NORMAL = "\x1b[1;31m", "\x1b[m"
HELP_PRINTED = 1
"""What a command returns that has only shown its help."""


class ShellErrorCode(IntEnum):
    """Codes of group 9 (Zephyr `shell_mgmt.h`)."""

    UNKNOWN = 1
    COMMAND_TOO_LONG = 2
    EMPTY_COMMAND = 3


class Terminal:
    """What a command writes to, and the device it runs on.

    `uptime_s` counts from the device's start. `busy_s` adds up how long the command takes; nothing else is served
    in the meantime.
    """

    def __init__(self, device: Device, uptime_s: float) -> None:
        self.device = device
        self.uptime_s = uptime_s
        self.busy_s = 0.0
        self._written: list[str] = []

    @property
    def text(self) -> str:
        """All that has been written, with the line ends of a terminal."""
        return "".join(self._written)

    def print(self, text: str = "") -> None:
        """Write a line."""
        self._written.append(f"{text}\n".replace("\n", "\r\n"))

    def error(self, text: str) -> None:
        """Write a line in red."""
        self._written.append(RED + f"{text}\n".replace("\n", "\r\n") + NORMAL)


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """One command. `name` may be several words, such as `kernel version`.

    `run` takes the terminal and the arguments behind the name. What it returns is the answer's `ret`; None is 0.
    """

    name: str
    help: str
    run: Callable[[Terminal, list[str]], int | None]


def _version(terminal: Terminal, arguments: list[str]) -> None:
    terminal.print(f"Zephyr version {terminal.device.config.info.version}")


def _uptime(terminal: Terminal, arguments: list[str]) -> None:
    terminal.print(f"Uptime: {int(terminal.uptime_s * 1000)} ms")


def _sleep(terminal: Terminal, arguments: list[str]) -> int:
    if len(arguments) != 1 or not (arguments[0].isascii() and arguments[0].isdigit()) or len(arguments[0]) > 9:
        terminal.error("sleep: give the time in milliseconds")
        return -errno.EINVAL
    terminal.busy_s += int(arguments[0]) / 1000
    return 0


def _reboot(terminal: Terminal, arguments: list[str]) -> None:
    terminal.device.request_reset()


def _echo(terminal: Terminal, arguments: list[str]) -> None:
    terminal.print(" ".join(arguments))


def _board(terminal: Terminal, arguments: list[str]) -> None:
    terminal.print(terminal.device.config.info.board)


_COMMANDS = (
    ShellCommand("echo", "Write the arguments.", _echo),
    ShellCommand("hwinfo board", "Name of the board.", _board),
    ShellCommand("kernel reboot", "Reboot.", _reboot),
    ShellCommand("kernel sleep", "Block for some milliseconds.", _sleep),
    ShellCommand("kernel uptime", "Time since the start.", _uptime),
    ShellCommand("kernel version", "Version of the kernel.", _version),
)


@dataclass(frozen=True, slots=True)
class ShellConfig:
    """Which commands there are, and how the shell was built.

    Attributes:
        commands: beside `help`, which is there by itself unless it is among them.
        line_size: a line with its terminator must be shorter (`CONFIG_SHELL_CMD_BUFF_SIZE`).
        output_size: output with its terminator is cut to this many bytes (`CONFIG_SHELL_BACKEND_DUMMY_BUF_SIZE`).
        legacy_rc: the command's result comes as `rc`, as before Zephyr had `ret`.
    """

    commands: tuple[ShellCommand, ...] = field(default=_COMMANDS)
    line_size: int = 256
    output_size: int = 512
    legacy_rc: bool = False


class ShellServer(GroupServer):
    """The shell group."""

    group: ClassVar[int] = GroupId.SHELL
    name = "shell mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        ShellErrorCode.COMMAND_TOO_LONG: SmpError.INVALID,
        ShellErrorCode.EMPTY_COMMAND: SmpError.INVALID,
    }

    def __init__(self, config: ShellConfig | None = None) -> None:
        super().__init__({(Op.WRITE, 0): self.execute})
        self.config = config if config is not None else ShellConfig()
        self._commands = {tuple(command.name.split()): command for command in self.config.commands}
        self._commands.setdefault(("help",), ShellCommand("help", "Write this help.", self._help))
        self._since: float | None = None

    def restarted(self) -> None:
        self._since = None

    def execute(self, call: Call) -> dict[str, Any]:
        line = self._line(call.read(ended=False, argv="any").get("argv"))
        if self._since is None or call.now < self._since:
            self._since = call.now  # the first line since the start stands for the start
        terminal = Terminal(call.device, call.now - self._since)
        result = self._run(terminal, line)
        call.device.flash.busy_s += max(0.0, terminal.busy_s)
        # The shell moves to a new line first, behind a prompt that nobody sees.
        output = f"\r\n{terminal.text}".encode("utf-8", "surrogateescape")[: self.config.output_size - 1]
        key = "rc" if self.config.legacy_rc else "ret"
        return {"o": output.decode("utf-8", "surrogateescape"), key: result}

    def _line(self, argv: object) -> str:
        """The arguments with one space between them. Raises `Refused` and `GroupError`.

        Arguments end at the first that is no text. Their lengths are counted with a space behind each.
        """
        if not isinstance(argv, list):
            raise Refused(SmpError.INVALID)
        length = 0
        words: list[str] = []
        for word in argv:
            if not isinstance(word, str):
                break
            size = len(word.encode("utf-8", "surrogateescape"))
            if length + size >= self.config.line_size:
                raise GroupError(ShellErrorCode.COMMAND_TOO_LONG)
            length += size + 1
            words.append(word)
        if not words:
            raise GroupError(ShellErrorCode.EMPTY_COMMAND)
        return " ".join(words).partition("\0")[0]

    def _run(self, terminal: Terminal, line: str) -> int:
        try:
            words = shlex.split(line)
        except ValueError:
            terminal.error("not terminated: a quotation mark")
            return -errno.ENOEXEC
        if not words:
            return -errno.ENOEXEC
        for count in range(len(words), 0, -1):
            command = self._commands.get(tuple(words[:count]))
            if command is not None:
                return command.run(terminal, words[count:]) or 0
        below = [name for name in self._commands if name[0] == words[0]]
        if not below:
            terminal.error(f"{words[0]}: command not found")
            return -errno.ENOEXEC
        terminal.print(f"{words[0]} - commands")
        terminal.print("Subcommands:")
        self._list(terminal, {" ".join(name[1:]): self._commands[name].help for name in below})
        return HELP_PRINTED

    def _help(self, terminal: Terminal, arguments: list[str]) -> None:
        terminal.print("Available commands:")
        texts: dict[str, str] = {}
        for name, command in sorted(self._commands.items()):
            texts.setdefault(name[0], command.help if len(name) == 1 else f"{name[0].capitalize()} commands")
        self._list(terminal, texts)

    @staticmethod
    def _list(terminal: Terminal, texts: Mapping[str, str]) -> None:
        width = max(map(len, texts), default=0)
        for name, text in texts.items():
            terminal.print(f"  {name:<{width}}  : {text}")
