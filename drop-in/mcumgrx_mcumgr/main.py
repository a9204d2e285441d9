"""The program: arguments in, text and exit code out.

As with Apache's program an exit code of 0 does not mean that the device said yes: what it refuses is `Error: N` on
standard output. With MCUMGRX_MCUMGR_STRICT=1 the code is 1 then. It is 1 for everything else that goes wrong.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from mcumgrx import __version__
from mcumgrx.errors import DeviceError, McumgrError, RequestTimeout, UsageError

from . import commands, profiles
from .codes import first_version
from .connection import CONNTYPES, address_of

if TYPE_CHECKING:
    from mcumgrx.address import Address
    from mcumgrx.blocking import BlockingDevice

STRICT = "MCUMGRX_MCUMGR_STRICT"

# Those of Apache's program. Its "info" is no log of what happens on the link, which here begins with "info".
_LEVELS = {
    **dict.fromkeys(("panic", "fatal"), logging.CRITICAL),
    "error": logging.ERROR,
    **dict.fromkeys(("warn", "warning", "info"), logging.WARNING),
    "debug": logging.INFO,
    "trace": logging.DEBUG,
}


@dataclass(frozen=True, slots=True)
class Command:
    """One of the program's commands: what it does with a device, or without one, and how many words it takes."""

    usage: str
    help: str
    on_device: Callable[[BlockingDevice, list[str], commands.Settings], None] | None = None
    alone: Callable[[list[str]], None] | None = None
    least: int = 0
    most: int = 0
    reads: bool = False  # the first word is a file of this computer


def _version(words: list[str]) -> None:
    print(f"mcumgr {__version__} (mcumgrx)")


_COMMANDS = {
    "conn add": Command("NAME type=TYPE connstring=STRING", "Add a profile", alone=profiles.add, least=1, most=3),
    "conn delete": Command("NAME", "Delete a profile", alone=profiles.delete, least=1, most=1),
    "conn show": Command("[NAME]", "Show the profiles", alone=profiles.show, most=1),
    "datetime": Command("[now|TIME]", "Show or set the clock", commands.clock, most=1),
    "echo": Command("TEXT", "Send a text and print what comes back", commands.echo, least=1, most=1),
    "fs download": Command("FROM TO", "Read a file", commands.fs_download, least=2, most=2),
    "fs upload": Command("FROM TO", "Write a file", commands.fs_upload, least=2, most=2, reads=True),
    "image confirm": Command("[HASH]", "Make an image permanent", commands.image_confirm, most=1),
    "image erase": Command("", "Erase the free slot", commands.image_erase),
    "image list": Command("", "Show the images", commands.image_list),
    "image test": Command("HASH", "Boot an image once", commands.image_test, least=1, most=1),
    "image upload": Command("FILE", "Transfer an image", commands.image_upload, least=1, most=1, reads=True),
    "mpstat": Command("", "Show the memory pools", commands.pools),
    "reset": Command("", "Restart the device", commands.reset),
    "shell exec": Command("WORD...", "Run a shell command", commands.shell_exec, least=1, most=255),
    "stat": Command("NAME", "Show a group of statistics", commands.stat, least=1, most=1),
    "stat list": Command("", "Show the groups of statistics", commands.stat_list),
    "taskstat": Command("", "Show the tasks", commands.tasks),
    "version": Command("", "Show the version", alone=_version),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Raises nothing."""
    try:
        code = _run(_read(sys.argv[1:] if arguments is None else arguments), program=arguments is None)
        sys.stdout.flush()
        return code
    except RequestTimeout as error:
        _tell("Error", f"NMP timeout: {error}", error)  # the words that scripts look for
    except McumgrError as error:
        _tell("Error", str(error), error)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    except Exception as error:
        logging.getLogger("mcumgrx").info("traceback", exc_info=error)
        _tell("Error", f"{type(error).__name__}: {error}", error)
    return 1


def _run(options: argparse.Namespace, program: bool) -> int:
    if program:  # and not a part of another one, whose log is its own
        logging.basicConfig(stream=sys.stderr, level=_LEVELS[options.loglevel], format="%(name)s: %(message)s")
    name, words = _split(options.words)
    if name not in _COMMANDS and options.words and not options.help:
        beginning = " ".join(options.words)
        if not any(known.startswith(f"{beginning} ") for known in _COMMANDS):
            raise UsageError(f'unknown command "{beginning}" for "mcumgr"', hint="mcumgr --help lists them")
    if name not in _COMMANDS or options.help:
        _parser().print_help()
        return 0
    command = _COMMANDS[name]
    _check(name, command, words, options)
    if command.alone is not None:
        command.alone(words)
    elif command.on_device is not None:
        settings = commands.Settings(options.timeout, options.tries, options.image, options.window, options.upgrade)
        with commands.opened(_address(options), settings) as device:
            try:
                command.on_device(device, words, settings)
            except DeviceError as error:
                print(f"Error: {first_version(error)}")
                _tell("mcumgr", str(error), error)
                return int(os.environ.get(STRICT, "") not in ("", "0"))
    return 0


def address_from(options: str) -> Address:
    """The device that options of the command line name. Raises `UsageError`."""
    return _address(_read(shlex.split(options)))


def _address(options: argparse.Namespace) -> Address:
    """The device: what the profile says, and what options say instead."""
    conntype, connstring = options.conntype, options.connstring
    if options.conn:
        profile = profiles.find(options.conn)
        conntype, connstring = conntype or profile.type, connstring or profile.connstring
    connstring = ",".join(part for part in (connstring, options.connextra) if part)
    return address_of(conntype, connstring, hci=options.hci, name=options.name)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command, of two words or one, and what is behind it."""
    for count in (2, 1):
        if (name := " ".join(words[:count])) in _COMMANDS:
            return name, words[count:]
    return "", words


def _check(name: str, command: Command, words: list[str], options: argparse.Namespace) -> None:
    if not command.least <= len(words) <= command.most:
        raise UsageError(f"{name} takes other arguments", hint=f"mcumgr {name} {command.usage}".rstrip())
    given = (options.image, options.window, options.upgrade or None, options.noerase or None)
    if name != "image upload" and any(option is not None for option in given):
        raise UsageError(f"-n, -w, -u and -e belong to image upload, and not to {name}")
    if command.reads and words[0] != "-" and not os.access(words[0], os.R_OK):
        raise UsageError(f"{words[0]} is not there, or cannot be read")


def _tell(beginning: str, text: str, error: Exception) -> None:
    """On standard error, which nobody parses: what has happened, and what can be done."""
    print(f"{beginning}: {text}", file=sys.stderr)
    if hint := getattr(error, "hint", None):
        print(f"hint: {hint}", file=sys.stderr)


# -- arguments --------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="mcumgr --help")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")


def _count(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
    return int(text)


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    return _parser().parse_intermixed_args(arguments)


def _parser() -> argparse.ArgumentParser:
    """One for all commands, because options may stand anywhere."""
    width = max(len(f"{name} {command.usage}") for name, command in _COMMANDS.items())
    table = "\n".join(f"  {f'{name} {one.usage}':<{width}}  {one.help}" for name, one in _COMMANDS.items())
    parser = _Parser(
        prog="mcumgr",
        usage="mcumgr [options] command ...",
        description=f"Manage devices over SMP.\n\ncommands:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add = parser.add_argument
    add("words", nargs="*", help=argparse.SUPPRESS)
    add("-h", "--help", action="store_true", help="show this")
    add("--conntype", default="", metavar="TYPE", help=f"kind of connection: {', '.join(CONNTYPES)}")
    add("--connstring", default="", metavar="TEXT", help="which device: key=value,...")
    add("--connextra", default="", metavar="TEXT", help="more of the connstring")
    add("-c", "--conn", default="", metavar="NAME", help="profile to use")
    add("-t", "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="how long an answer may take [10]")
    add("-r", "--tries", type=_count, default=1, metavar="N", help="how often to ask as long as none comes [1]")
    add("-l", "--loglevel", choices=_LEVELS, default="info", metavar="LEVEL", help=f"one of {', '.join(_LEVELS)}")
    add("-i", "--hci", type=int, metavar="N", help="number of the Bluetooth adapter (Linux)")
    add("--name", default="", help="name of the Bluetooth device")
    add("--write-rsp", action="store_true", help="taken, and without effect")
    upload = parser.add_argument_group("image upload")
    upload.add_argument(
        "-n",
        "--image",
        type=lambda text: _count(text, 0),
        metavar="N",
        help="number of the image (core) [as the file says, or 0]",
    )
    upload.add_argument("-w", "--maxwinsize", dest="window", type=_count, metavar="N", help="most chunks on their way")
    upload.add_argument("-u", "--upgrade", action="store_true", help="only if its version is newer")
    upload.add_argument(
        "-e", "--noerase", action="store_true", help="taken, and without effect: nothing is erased before"
    )
    return parser
