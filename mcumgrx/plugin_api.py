"""All that the author of a plugin imports.

A plugin is an installed distribution with an entry point in the group `mcumgrx` that names a module. The module
implements some of these hooks; each returns descriptions, and nothing heavy is imported until one is used::

    from mcumgrx.plugin_api import GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_transports():
        return [TransportPlugin("acme", "Acme radio bridge", load="mcumgrx_acme.transport:AcmeTransport")]

    @hookimpl
    def mcumgrx_groups():
        return [GroupPlugin(100, "acme", "Acme heater", load="mcumgrx_acme.group:AcmeGroup")]

    @hookimpl
    def mcumgrx_commands():
        return [CliCommand("acme temperature", "Read the heater", load="mcumgrx_acme.commands:temperature")]

    @hookimpl
    def mcumgrx_checks():
        return [CheckPlugin("acme heater", "Does it heat?", load="mcumgrx_acme.checks:heater")]

The base classes for what `load` names are here as well (`Transport`, `Group`, `SmpCommand`, …); they are resolved on
first use, so importing this module stays cheap. Nothing else of `mcumgrx` is promised to plugins, except
`mcumgrx.sim` and `mcumgrx.testing`.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from .isolation import said

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from .address import Address as Address
    from .address import OptionReader as OptionReader
    from .bulk import Delivery as Delivery
    from .bulk import transfer as transfer
    from .bulk import upload as upload
    from .bulk import window_for as window_for
    from .client import Client as Client
    from .contracts import Connection as Connection
    from .contracts import Device as Device
    from .contracts import HealthCheck as HealthCheck
    from .contracts import ImageGroup as ImageGroup
    from .contracts import OnTrial as OnTrial
    from .contracts import OsGroup as OsGroup
    from .contracts import OutsideCheck as OutsideCheck
    from .contracts import ReturnHint as ReturnHint
    from .contracts import SettingsGroup as SettingsGroup
    from .contracts import UploadOptions as UploadOptions
    from .errors import ConnectFailed as ConnectFailed
    from .errors import DeviceError as DeviceError
    from .errors import DeviceNotFound as DeviceNotFound
    from .errors import ErrorCode as ErrorCode
    from .errors import Exit as Exit
    from .errors import FlowError as FlowError
    from .errors import FramingError as FramingError
    from .errors import ImageError as ImageError
    from .errors import LinkLost as LinkLost
    from .errors import MalformedReply as MalformedReply
    from .errors import McumgrError as McumgrError
    from .errors import MessageTooLarge as MessageTooLarge
    from .errors import NotDone as NotDone
    from .errors import Outcome as Outcome
    from .errors import PlanRefused as PlanRefused
    from .errors import PluginError as PluginError
    from .errors import ProtocolError as ProtocolError
    from .errors import RequestTimeout as RequestTimeout
    from .errors import TransferStuck as TransferStuck
    from .errors import TransportError as TransportError
    from .errors import UploadMismatch as UploadMismatch
    from .errors import UsageError as UsageError
    from .errors import WrongDevice as WrongDevice
    from .errors import system_says as system_says
    from .events import Bytes as Bytes
    from .events import DeviceText as DeviceText
    from .events import Event as Event
    from .events import Limit as Limit
    from .events import Note as Note
    from .events import Progress as Progress
    from .events import Speed as Speed
    from .events import Stage as Stage
    from .events import StageName as StageName
    from .events import Status as Status
    from .events import ignore_progress as ignore_progress
    from .former_names import Command as Command
    from .fragments import read_data as read_data
    from .fragments import write_data as write_data
    from .group import Group as Group
    from .group import explaining as explaining
    from .hints import Hint as Hint
    from .hints import Run as Run
    from .hosts import resolve as resolve
    from .locks import lock_file as lock_file
    from .mcuboot import Dependency as Dependency
    from .mcuboot import FileBytes as FileBytes
    from .mcuboot import Image as Image
    from .mcuboot import ImageFlag as ImageFlag
    from .mcuboot import ImageHeader as ImageHeader
    from .mcuboot import ImageRole as ImageRole
    from .mcuboot import Package as Package
    from .mcuboot import PackageImage as PackageImage
    from .mcuboot import PackageKind as PackageKind
    from .mcuboot import Tlv as Tlv
    from .mcuboot import TlvType as TlvType
    from .mcuboot import Version as Version
    from .mcuboot import load_image as load_image
    from .mcuboot import load_package as load_package
    from .mcuboot import sample_key as sample_key
    from .mcuboot import signed_by as signed_by
    from .message_size import find_message_size as find_message_size
    from .messages.message import Body as Body
    from .messages.message import CommandFacts as CommandFacts
    from .messages.message import Fields as Fields
    from .messages.message import HasErrors as HasErrors
    from .messages.message import Reply as Reply
    from .messages.message import Request as Request
    from .messages.message import SmpCommand as SmpCommand
    from .messages.message import raise_for_error as raise_for_error
    from .messages.standard import Bootloader as Bootloader
    from .messages.standard import BootloaderMode as BootloaderMode
    from .messages.standard import Echo as Echo
    from .messages.standard import EraseImage as EraseImage
    from .messages.standard import ImageState as ImageState
    from .messages.standard import Params as Params
    from .messages.standard import ReadBootloader as ReadBootloader
    from .messages.standard import ReadBootloaderMode as ReadBootloaderMode
    from .messages.standard import ReadImageState as ReadImageState
    from .messages.standard import ReadParams as ReadParams
    from .messages.standard import ReadSlotInfo as ReadSlotInfo
    from .messages.standard import Reset as Reset
    from .messages.standard import Slot as Slot
    from .messages.standard import SlotInfo as SlotInfo
    from .messages.standard import UploadProgress as UploadProgress
    from .messages.standard import WriteImageState as WriteImageState
    from .pause import Pause as Pause
    from .protocol.codes import ImageErrorCode as ImageErrorCode
    from .protocol.codes import OsErrorCode as OsErrorCode
    from .protocol.codes import SmpError as SmpError
    from .protocol.console import ConsoleFraming as ConsoleFraming
    from .protocol.framing import DatagramFraming as DatagramFraming
    from .protocol.framing import Framing as Framing
    from .protocol.framing import StreamFraming as StreamFraming
    from .protocol.header import GroupId as GroupId
    from .protocol.header import Op as Op
    from .threads import in_thread as in_thread
    from .transfer.plan import ImageUpload as ImageUpload
    from .transfer.plan import Piece as Piece
    from .transfer.plan import Source as Source
    from .transfer.plan import TransferPlan as TransferPlan
    from .transfer.plan import UploadMessages as UploadMessages
    from .transfer.plan import UploadPlan as UploadPlan
    from .transfer.plan import largest_data as largest_data
    from .transfer.reading import Fragment as Fragment
    from .transfer.reading import ReadPlan as ReadPlan
    from .transfer.window import Window as Window
    from .transport import Discovered as Discovered
    from .transport import Flow as Flow
    from .transport import Limits as Limits
    from .transport import Transport as Transport

PROJECT = "mcumgrx"

API_VERSION = "1.0"
"""Of this contract, in the sense of semantic versioning: what is here stays, and works as it says, until 2.0.

A plugin that needs what a later version has says so by an `API_VERSION` of its own in the module that its entry point
names, and is told of where it is older; its distribution by `dependencies = ["mcumgrx>=…"]`.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# Where the names live that are resolved on first use.
_LATE = {
    "address": "Address OptionReader",
    "bulk": "Delivery transfer upload window_for",
    "client": "Client",
    "contracts": "Connection Device HealthCheck ImageGroup OnTrial OsGroup OutsideCheck ReturnHint SettingsGroup "
    "UploadOptions",
    "errors": "ConnectFailed DeviceError DeviceNotFound ErrorCode Exit FlowError FramingError ImageError LinkLost "
    "MalformedReply McumgrError MessageTooLarge NotDone Outcome PlanRefused PluginError ProtocolError "
    "RequestTimeout TransferStuck TransportError UploadMismatch UsageError WrongDevice system_says",
    "events": "Bytes DeviceText Event Limit Note Progress Speed Stage StageName Status ignore_progress",
    "former_names": "Command",
    "fragments": "read_data write_data",
    "group": "Group explaining",
    "hints": "Hint Run",
    "mcuboot": "Dependency FileBytes Image ImageFlag ImageHeader ImageRole Package PackageImage PackageKind Tlv "
    "TlvType Version load_image load_package sample_key signed_by",
    "hosts": "resolve",
    "locks": "lock_file",
    "message_size": "find_message_size",
    "messages.message": "Body CommandFacts Fields HasErrors Reply Request SmpCommand raise_for_error",
    "messages.standard": "Bootloader BootloaderMode Echo EraseImage ImageState Params ReadBootloader "
    "ReadBootloaderMode ReadImageState ReadParams ReadSlotInfo Reset Slot SlotInfo UploadProgress WriteImageState",
    "pause": "Pause",
    "protocol.codes": "ImageErrorCode OsErrorCode SmpError",
    "protocol.console": "ConsoleFraming",
    "protocol.framing": "DatagramFraming Framing StreamFraming",
    "protocol.header": "GroupId Op",
    "threads": "in_thread",
    "transfer.plan": "ImageUpload Piece Source TransferPlan UploadMessages UploadPlan largest_data",
    "transfer.reading": "Fragment ReadPlan",
    "transfer.window": "Window",
    "transport": "Discovered Flow Limits Transport",
}
_HOMES = {name: f"{__package__}.{module}" for module, names in _LATE.items() for name in names.split()}

_OWN = (
    "API_VERSION Argument CheckPlugin CliCommand CliContext CommandContext CommandPlugin GroupPlugin Option "
    "ReportDiscovered TransportPlugin aligned cli_command command hookimpl value_text"
)

if not TYPE_CHECKING:  # for which each `X as X` above says that it is public
    __all__ = sorted([*_HOMES, *_OWN.split()])


# Of these, plugins and scripts only pass on what they get; this is what they may ask besides.
PROMISED: Mapping[str, tuple[str, ...]] = {
    "Client": (
        "answered",
        "connected",
        "flow",
        "group",
        "last_heard_s",
        "limits",
        "meet",
        "optional",
        "params",
        "request",
        "time_for",
        "wait_lost",
    ),
    "FileBytes": (),
    "Memory": ("__init__", "path"),
    "Plan": ("as_dict", "from_version", "image", "notes", "slot", "texts", "to_version", "warnings"),
    "ReadPlan": ("__init__", "changed", "done", "stuck"),
    "Registry": ("__init__", "commands", "groups", "transports"),
    "UploadPlan": ("__init__", "done"),
    "Window": (),
}


def home_of(name: str) -> str | None:
    """The module in which a public name lives that is resolved on first use."""
    return _HOMES.get(name)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


# -- descriptions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransportPlugin:
    """A kind of link, reached by addresses that begin with `scheme:` or one of `aliases`.

    Attributes:
        load: `package.module:Class` of the `Transport`, imported on first use.
        example: an address as a user would type it, shown in help and hints.
        discover: `package.module:function` of an async function `(timeout_s: float) -> list[Discovered]` that returns
            what it has found after at most that many seconds, or None where there is no way to look.
        watch: `package.module:function` of an async function `(timeout_s: float, report: ReportDiscovered)` that
            reports each device as soon as it is found, and again whenever something about it has changed; it returns
            when there is nothing more to come, after at most that many seconds. Used instead of `discover` where there
            is one; it is what makes devices appear while `mcumgrx scan` still looks.
    """

    scheme: str
    summary: str
    _: KW_ONLY
    load: str
    aliases: tuple[str, ...] = ()
    example: str = ""
    discover: str | None = None
    watch: str | None = None


ReportDiscovered = Callable[["Discovered"], None]
"""What a `watch` function calls with each sighting of a device, in the event loop."""


@dataclass(frozen=True, slots=True)
class GroupPlugin:
    """A command group: its number, a short name by which `mcumgrx raw` and people know it, and the class.

    One object of it is enough: commands of the group take their number and their errors from it
    (`class Read(SmpCommand[float], group=HEATER, number=0)`), and the hook returns it.

    Attributes:
        load: `package.module:Class` of the `Group`.
        errors: `package.module:Class` of the `ErrorCode` table of the group's own codes, imported when one comes.
        fills: name of the role (`"ImageGroup"`, `"OsGroup"`, `"SettingsGroup"`) that the class, derived from it too,
            takes in flows. It does so for devices that are reached by a link of the same plugin, or whose user names it
            (`roles`); for all where the plugin that is mcumgrx's own is switched off.
    """

    id: int
    name: str
    summary: str
    _: KW_ONLY
    load: str
    errors: str | None = None
    fills: str | None = None

    def error_table(self) -> type[ErrorCode] | None:
        """The table that `errors` names; None where it names none, or one that is not there, which is logged."""
        from .errors import ErrorCode

        if self.errors is None:
            return None
        module, _, name = self.errors.partition(":")
        try:
            table: object = getattr(importlib.import_module(module), name)
        except Exception as error:
            table = said(error)
        if isinstance(table, type) and issubclass(table, ErrorCode):
            return table
        import logging  # only now: it costs every start a few milliseconds

        logging.getLogger("mcumgrx.registry").warning("%s is no table of errors: %s", self.errors, table)
        return None


@dataclass(frozen=True, slots=True)
class CliCommand:
    """A command of the command line.

    Attributes:
        name: one word, or two: the group of commands and the command in it (`"os echo"`).
        summary: one line for the list of commands.
        load: `package.module:function` of an async function made with `cli_command`.
    """

    name: str
    summary: str
    _: KW_ONLY
    load: str


@dataclass(frozen=True, slots=True)
class CheckPlugin:
    """A check that `mcumgrx dfu` makes of each new image that runs, before it confirms it.

    It is asked on every device: where that is none of its business, it says that all is well.

    Attributes:
        name: one word, or two; the first one is the plugin's.
        load: `package.module:function` of an async function `(client: Client, image: OnTrial) -> str | None` that
            returns None where the image is healthy, and otherwise what is wrong (see `HealthCheck`).
    """

    name: str
    summary: str
    _: KW_ONLY
    load: str


class Hooks:
    """The hooks. Each is synchronous and cheap, and returns descriptions."""

    @hookspec
    def mcumgrx_transports(self) -> list[TransportPlugin]:
        """The kinds of link that this plugin supplies."""
        raise NotImplementedError

    @hookspec
    def mcumgrx_groups(self) -> list[GroupPlugin]:
        """The command groups that this plugin supplies."""
        raise NotImplementedError

    @hookspec
    def mcumgrx_commands(self) -> list[CliCommand]:
        """The commands that this plugin adds to the command line."""
        raise NotImplementedError

    @hookspec
    def mcumgrx_checks(self) -> list[CheckPlugin]:
        """What this plugin checks of a new image before it is confirmed."""
        raise NotImplementedError


# -- commands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument of a command, passed to its function under `name`.

    `type` is `str`, `int`, `float` or `Path`. `int` takes decimal and 0x hexadecimal. Without `required`, None is
    passed when it is left out; with `many`, a tuple of all that are left.
    """

    name: str
    help: str
    _: KW_ONLY
    type: type[str] | type[int] | type[float] | type[Path] = str
    required: bool = True
    many: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command, such as `Option("--erase-timeout", "…", type=float, default=60.0)`.

    It is passed under its name without dashes (`erase_timeout`). `type=bool` makes a switch. `choices` limits a text.
    `metavar` names the value in help, with its unit (`SECONDS`). Every option can be set by the environment too: by
    `MCUMGRX_`, the name of the plugin and that of the option (`MCUMGRX_HEATER_ERASE_TIMEOUT`). One of which there may
    be `many` is passed as a tuple.
    """

    flag: str
    help: str
    _: KW_ONLY
    type: type[str] | type[int] | type[float] | type[bool] | type[Path] = str
    default: str | int | float | bool | Path | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    many: bool = False

    @property
    def name(self) -> str:
        return self.flag.lstrip("-").replace("-", "_")


class CliContext(Protocol):
    """What the command line gives to a command, as its first argument."""

    @property
    def timeout_s(self) -> float | None:
        """`--timeout` in seconds, or None for the defaults."""

    @property
    def progress(self) -> Progress:
        """Where events go to be shown as the user wants them."""

    @property
    def groups(self) -> Mapping[int, GroupPlugin]:
        """The command groups that plugins supply, by number."""

    @property
    def has_device(self) -> bool:
        """Whether a device is named."""

    @property
    def device(self) -> Device:
        """The device named by `-d`. Raises `UsageError` with a hint when there is none."""

    def connect(self) -> AbstractAsyncContextManager[Client]:
        """An open client to `device`, closed in every case."""

    async def confirm(self, question: str) -> bool:
        """Ask on a terminal before what cannot be undone; false where nobody can answer, true with `--yes`."""

    def standard_output(self) -> AbstractContextManager[None]:
        """For a `with` block, standard output (descriptor 1) is the command's own, to write to it by itself.

        Raises `UsageError` with `--json`, whose lines would come between.
        """


def value_text(value: object) -> str:
    """A value that a device sent, in one line for people: bytes in hex, maps and lists with commas."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return ", ".join(f"{value_text(key)} {value_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(value_text(item) for item in value) or "none"
    return str(value)


def aligned(rows: Sequence[Sequence[str]], *, head: bool = False) -> list[str]:
    """The rows in lines, with their columns under each other.

    `head`: the first row has their titles. Columns that are empty but for that are left out, unless all are.
    """
    columns = [cells for cells in zip(*rows, strict=True) if not head or len(rows) == 1 or any(cells[1:])]
    widths = [max(map(len, cells)) for cells in columns]
    lines = zip(*columns, strict=True)
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


CliFunction = Callable[..., Awaitable[Any]]
F = TypeVar("F", bound=CliFunction)


@dataclass(frozen=True, slots=True)
class CliSpec:
    """What `cli_command` attaches to a function, as `__mcumgrx_command__`."""

    parameters: tuple[Argument | Option, ...]
    needs_device: bool | None
    epilog: str
    many_devices: bool = False


def cli_command(
    *parameters: Argument | Option,
    needs_device: bool | None = True,
    epilog: str = "",
    many_devices: bool = False,
) -> Callable[[F], F]:
    """Make an async function a command; its docstring is the help, `epilog` shows examples.

    The function gets a `CliContext` and the parameters by name, and returns a dataclass (or None). The command
    line adds `-d`, `--json`, `--timeout`, `-v` and `--log-file`, renders the result, and turns exceptions into
    messages and exit codes::

        @cli_command(Argument("text", "what to send"))
        async def echo(context: CliContext, text: str) -> EchoResult:
            \"\"\"Send TEXT to the device and print what comes back.\"\"\"

    Without a device it is refused, unless `needs_device` is false: then `-d` is not for it. None is for a command that
    can do more with a device (`CliContext.has_device`): only `-d` itself names one then, and no variable. Several are
    refused, unless the command is for `many_devices`, and then finds out itself which there are.

    For a rendering of its own, the result has a method `lines() -> list[str]`; without one its fields are listed.
    """

    def attach(function: F) -> F:
        spec = CliSpec(parameters, needs_device, epilog, many_devices)
        function.__mcumgrx_command__ = spec  # type: ignore[attr-defined]
        return function

    return attach


# -- names from before 1.0 ------------------------------------------------------------------------------------------

CommandPlugin = CliCommand
CommandContext = CliContext
command = cli_command
