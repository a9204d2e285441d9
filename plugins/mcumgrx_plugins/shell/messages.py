"""The message of group 9 (Zephyr `shell_mgmt.c`), its codes, and how words become a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, ErrorCode, Fields, Op, SmpCommand

from . import SHELL


class ShellErrorCode(ErrorCode):
    """Codes of group 9 (Zephyr `shell_mgmt.h`)."""

    UNKNOWN = 1, "unknown error"
    COMMAND_TOO_LONG = (
        2,
        "the command line is too long",
        "CONFIG_SHELL_CMD_BUFF_SIZE in its firmware sets the limit, 255 characters if it says nothing",
    )
    EMPTY_COMMAND = 3, "the command line is empty"


@dataclass(frozen=True, slots=True)
class ShellOutput:
    """What a command wrote, as it came (with the control sequences of a terminal), and its exit status.

    0 is success. Zephyr's commands return negative errno values; 1 says that help was shown instead.
    """

    text: str
    status: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Execute(SmpCommand[ShellOutput], group=SHELL, number=0, op=Op.WRITE, what="shell command", timeout_s=10.0):
    """Run a command line: the device puts one space between the words of `argv`, and quotes nothing.

    It answers when the command has ended, and nothing else meanwhile. What is written later it does not tell.
    """

    argv: tuple[str, ...]

    def body(self) -> Body:
        return {"argv": list(self.argv)}

    def parse(self, fields: Fields) -> ShellOutput:
        # The device cuts output that is too long anywhere, in the middle of a character too.
        text = fields.text("o").replace("\ufffd", "?")
        status = fields.optional_integer("ret")
        if status is None:
            status = fields.integer("rc", 0)  # of older servers, and CONFIG_MCUMGR_GRP_SHELL_LEGACY_RC_RETURN_CODE
        return ShellOutput(text, status, fields.extra())


# -- words and lines --------------------------------------------------------------------------------------------------

_QUOTED_PIECE = re.compile(r"""([\\"]+)|([^\\"]*[\s'][^\\"]*)|([^\\"]+)""")


def quoted(argv: Sequence[str]) -> tuple[str, ...]:
    """The words as the shell of the device gives them back when it takes the line apart.

    Zephyr's shell knows quotation marks and a backslash before a character (`shell_utils.c`). Between quotation marks
    a backslash means something else before 0, x and the quotation mark, so it stands outside of them.
    """
    return tuple(_quoted(word) for word in argv)


def _quoted(word: str) -> str:
    if not word:
        return '""'

    def piece(match: re.Match[str]) -> str:
        marks, spaced, plain = match.groups()
        if marks is not None:
            return "".join(f"\\{mark}" for mark in marks)
        return f'"{spaced}"' if spaced is not None else str(plain)

    return _QUOTED_PIECE.sub(piece, word)


# Control sequences (ECMA-48): CSI with its parameters, OSC with its text, and the two-character ones.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]")


def plain_text(output: str) -> str:
    """The output without colours and other control sequences, with lines as elsewhere; other controls stay."""
    text = _SEQUENCE.sub("", output).replace("\r\n", "\n")
    return text.removeprefix("\n").removesuffix("\n")
