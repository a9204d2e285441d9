"""What went wrong, for people and scripts: exception → exit code, message and hint. One table for each.

A hint that the exception carries itself is preferred. The table here is for what only shows from outside: which
command was asked for, over which kind of link, and how far it had come.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import (
    ConnectFailed,
    DeviceError,
    Exit,
    FlowError,
    McumgrError,
    MessageTooLarge,
    RequestTimeout,
    TransferStuck,
    TransportError,
    UsageError,
)
from ..hints import Hint, Run
from ..isolation import said

__all__ = ["Exit", "Failure", "Situation", "exit_for", "exit_label", "explain"]


# Of plugins' own errors: from where mcumgrx has none, to where shells have theirs (126 on).
_OWN_EXITS = range(64, 114)
_ENDS = set(Exit) - {Exit.DONE, Exit.BUG}


def exit_for(error: BaseException) -> int:
    """The exit code of a command that ended with `error`."""
    if not isinstance(error, McumgrError):
        return Exit.BUG
    # A plugin's class may have one that is none; then that of what it is derived from holds.
    codes: list[object] = [error.exit, *(vars(kind).get("exit") for kind in type(error).__mro__)]
    code = next(code for code in codes if isinstance(code, int) and (code in _OWN_EXITS or code in _ENDS))
    return Exit(code) if code in _ENDS else code


def exit_label(code: int) -> str:
    """As in `--json`; an exit code that only a plugin knows is a failure."""
    return Exit(code).label if code in set(Exit) else Exit.FAILED.label


@dataclass(frozen=True, slots=True)
class Situation:
    """What the command line knows about a failure beside the exception.

    Attributes:
        command: as typed, `os echo`.
        scheme: of the device's address, without aliases where that is known; empty without a device.
        heard: bytes have come from the device, be it text or noise.
        answered: the device has answered at least once, as far as that is known.
        sent: bytes that were through in the last transfer, or None when there was none.
        options: what a command needs to reach the same device in the same way: `("-d", "serial:/dev/ttyACM0")`.
        environment: what was set not on the command line but by a variable: (variable, option, value).
    """

    command: str = ""
    scheme: str = ""
    heard: bool = False
    answered: bool = False
    sent: int | None = None
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure, ready to be shown. `fields` are those of the exception, for `--json`."""

    exit: int
    kind: str
    message: str
    hint: str | None = None
    fields: dict[str, object] = field(default_factory=dict)


# -- hints ----------------------------------------------------------------------------------------------------------

_UNCONFIRMED = Hint(
    "the running image may be on trial, or another one marked for the next boot: see ", Run("image list")
)
_SLOW_ERASE = (
    "the device may still be erasing the slot: give it more time with --erase-timeout 120. If it is not, a chunk may "
    "be larger than it takes: try --chunk 64"
)
_STUCK_AT_START = Hint(
    "the device answers but writes nothing: its buffers may be smaller than it says (try --chunk 64), or its flash "
    "cannot be written; what the slots hold shows ",
    Run("image list"),
)
_NO_SECOND_SLOT = Hint(
    "the device does not list what was uploaded: it may be signed for another bootloader, or have gone to another "
    "image number; see ",
    Run("image list"),
)

# Firmware options that put SMP on a link: today's name, and the one before Zephyr 3.3.
_KCONFIG = {
    "ble": ("CONFIG_MCUMGR_TRANSPORT_BT", "CONFIG_MCUMGR_SMP_BT"),
    "udp": ("CONFIG_MCUMGR_TRANSPORT_UDP", "CONFIG_MCUMGR_SMP_UDP"),
    "serial": ("CONFIG_MCUMGR_TRANSPORT_UART", "CONFIG_MCUMGR_SMP_UART"),
    "shell": ("CONFIG_MCUMGR_TRANSPORT_SHELL", "CONFIG_MCUMGR_SMP_SHELL"),
}
_SERIAL = ("serial", "uart", "usb", "tcp")


def _option(kind: str) -> str:
    new, old = _KCONFIG[kind]
    return f"{new} (before Zephyr 3.3: {old})"


_SILENT_SERIAL = (
    "nothing on this port speaks SMP: check the port and its speed (serial:PORT,baud=115200), close other programs "
    f"that use it, and check that the firmware has {_option('serial')}, or {_option('shell')} if the port is its "
    "shell; for SMP without console lines try framing=raw"
)
_NOISE_ON_SERIAL = (
    "something arrives on this port, but no answer: is its speed right (serial:PORT,baud=115200), and is it the port "
    "that speaks SMP? A device that is only busy needs a longer --timeout SECONDS"
)
_SILENT_BLE = f"does the firmware have {_option('ble')}? If it asks for pairing, pair the device first"
_SILENT_UDP = f"check the address, and that the firmware has {_option('udp')} and its network is up"
_NO_SERVICE = (
    f"the device does not offer the SMP service: its firmware needs {_option('ble')}, and registers the service only "
    "while the application allows it. If it was just updated, the host may remember its old services: forget it there"
)


def _no_free_slot(error: Exception) -> bool:
    from ..protocol.codes import ImageErrorCode, SmpError  # only now: not every command needs the tables

    # Before SMP version 2, "no free slot" was a plain code, and that of the group came later.
    return isinstance(error, DeviceError) and error.says(SmpError.BAD_STATE, ImageErrorCode.NO_FREE_SLOT)


def _silent(error: Exception, where: Situation) -> bool:
    return isinstance(error, RequestTimeout) and not where.answered


def _concerns_image(where: Situation) -> bool:
    return where.command == "dfu" or where.command.startswith("image ")


# The first line that fits gives the hint.
_HINTS: tuple[tuple[Callable[[Exception, Situation], bool], str], ...] = (
    (lambda e, w: _concerns_image(w) and _no_free_slot(e), _UNCONFIRMED),
    (lambda e, w: isinstance(e, TransferStuck) and e.offset == 0, _STUCK_AT_START),
    (lambda e, w: isinstance(e, RequestTimeout) and w.sent == 0, _SLOW_ERASE),
    (
        lambda e, w: _concerns_image(w) and isinstance(e, RequestTimeout) and "erase" in e.what,
        _SLOW_ERASE.partition(". ")[0],
    ),
    (lambda e, w: isinstance(e, FlowError) and e.stage in ("upload", "mark") and e.outcome is None, _NO_SECOND_SLOT),
    (lambda e, w: _silent(e, w) and w.scheme in _SERIAL and w.heard, _NOISE_ON_SERIAL),
    (lambda e, w: _silent(e, w) and w.scheme in _SERIAL, _SILENT_SERIAL),
    (lambda e, w: _silent(e, w) and w.scheme == "ble", _SILENT_BLE),
    (lambda e, w: _silent(e, w) and w.scheme == "udp", _SILENT_UDP),
    (lambda e, w: isinstance(e, ConnectFailed) and w.scheme == "ble" and "service" in e.message, _NO_SERVICE),
    (lambda e, w: isinstance(e, RequestTimeout), "give the device more time with --timeout SECONDS"),
    (lambda e, w: isinstance(e, MessageTooLarge), "send less at once"),
)


_TOLD = ("message", "hint", "exit")


def explain(error: McumgrError, where: Situation) -> Failure:
    """What to tell about `error`."""
    kind = type(error).__name__
    hint = error.hint or next((text for fits, text in _HINTS if fits(error, where)), None)
    source = _set_by_environment(error, where)
    if source is not None:
        hint = Hint(source, *(("; ", hint) if hint else ()))
    if isinstance(hint, Hint):
        hint = hint.on(where.options)
    fields = {name: value for name, value in vars(error).items() if name not in _TOLD and name[0] != "_"}
    # An exception of a stranger's may have gone past our constructor, or have texts that are none.
    message = error.message or said(error).removeprefix(f"{kind}: ")
    return Failure(exit_for(error), kind, str(message), None if hint is None else str(hint), fields)


def _set_by_environment(error: McumgrError, where: Situation) -> str | None:
    """Which variables this error may come from, where nothing on the command line shows them."""
    about_link = isinstance(error, TransportError) or _silent(error, where)
    if not about_link and not isinstance(error, UsageError):
        return None
    named = [
        f"{option} comes from {variable}, which is {value!r}"
        for variable, option, value in where.environment
        if (option == "-d" if about_link else option in error.message or _names(error.message, value))
    ]
    return "; ".join(named) or None


def _names(message: str, value: str) -> bool:
    """Whether `value` stands in the message by itself: the 1 of a switch is not that of 127.0.0.1."""
    return re.search(rf"(?<![\w.:/-]){re.escape(value)}(?![\w.:/-])", message) is not None
