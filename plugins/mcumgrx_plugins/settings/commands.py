"""The commands `mcumgrx settings …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Argument, CliContext, Hint, Note, Option, Run, UsageError, cli_command, value_text

_NAME = Argument("name", "of the setting, such as app/interval")
# What a value can be taken for, and where `GetResult` has it.
_FIELDS = {"text": "text", "hex": "hex", "int": "signed", "uint": "unsigned"}
_TYPES = tuple(_FIELDS)


# -- get --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetResult:
    """A value in every form that it has; None for those that it has not. `type` is the one that was asked for.

    `size` is in bytes. `limit` is the size at which the device cuts values, as far as it tells. `may_be_cut` says that
    the value is just as long as that, so that there may be more of it in the device. `sent_as_text` is true for Mynewt.
    """

    name: str
    type: str | None
    size: int
    hex: str
    text: str | None
    unsigned: int | None
    signed: int | None
    limit: int | None
    may_be_cut: bool
    sent_as_text: bool
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        cut = f"cut at {self.size} bytes, or just as long"
        if self.type is not None:
            lines = [str(getattr(self, _FIELDS[self.type]))]
            return [*lines, f"({cut})"] if self.may_be_cut else lines
        rows = [("size", f"{self.size} byte{'' if self.size == 1 else 's'}" + (f" ({cut})" if self.may_be_cut else ""))]
        # Strings in C end with a zero.
        text = None if self.text is None else self.text.removesuffix("\0")
        rows += [("hex", self.hex)] if self.hex and not self.sent_as_text else []
        rows += [("text", text)] if text and text.isprintable() else []
        if self.size in (1, 2, 4, 8) and not self.sent_as_text:
            rows.append(("uint", str(self.unsigned)))
            rows += [("int", str(self.signed))] if self.signed != self.unsigned else []
        rows += [(key, value_text(value)) for key, value in self.extra.items()]
        width = max(len(key) for key, _ in rows)
        return [f"{key:<{width}}  {value}" for key, value in rows]


@cli_command(
    _NAME,
    Option("--type", "Show it as this alone; integers are little-endian.", choices=_TYPES),
    Option("--max-size", "Ask for so many bytes at most; by default for all that the device gives.", type=int),
    epilog="""
    mcumgrx settings get app/interval -d serial:/dev/ttyACM0
    mcumgrx settings get app/interval --type uint -d serial:/dev/ttyACM0
    """,
)
async def get(context: CliContext, name: str, type: str | None, max_size: int | None) -> GetResult:
    """Show the value that the setting NAME has in the firmware now.

    It is bytes, which only the firmware knows the meaning of: without --type they are shown in every form that fits.
    A device cuts long values (CONFIG_MCUMGR_GRP_SETTINGS_VALUE_LEN, mostly 32 bytes) without a word; a value that is
    just as long is marked.
    """
    from .group import EVERYTHING, LARGEST_SIZE, SettingsGroup
    from .values import as_integer, as_text

    if max_size is not None and not 0 <= max_size <= LARGEST_SIZE:
        raise UsageError(f"no value has {max_size} bytes", hint="leave out --max-size to get all")
    asked = EVERYTHING if max_size is None else max_size
    async with context.connect() as client:
        found = await client.group(SettingsGroup).read(name, asked)
    value = found.value
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    limit = asked if found.max_size is None else found.max_size
    may_be_cut = not isinstance(value, str) and len(data) >= limit
    result = GetResult(
        name=name,
        type=type,
        size=len(data),
        hex=data.hex(),
        text=as_text(value, may_be_cut=may_be_cut),
        unsigned=as_integer(value, signed=False),
        signed=as_integer(value, signed=True),
        limit=found.max_size,
        may_be_cut=may_be_cut,
        sent_as_text=isinstance(value, str),
        extra=found.extra,
    )
    if type is not None and getattr(result, _FIELDS[type]) is None:
        raise UsageError(
            f"the value of {name}, {len(data)} bytes, is no {type}", hint="--type hex shows what it is in every case"
        )
    return result


# -- set --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetResult:
    """The setting has this value in the firmware, but the application has not been told, and nothing is stored.

    `read_back`: a read shows it; None where the device does not let it be read. `answered`: the device said yes.
    """

    name: str
    type: str
    size: int
    hex: str
    read_back: bool | None = True
    answered: bool = True
    committed: bool = False
    stored: bool = False

    def lines(self) -> list[str]:
        shown = f"{self.size} byte{'' if self.size == 1 else 's'}" + (f", {self.hex}" if self.hex else "")
        seen = "and reads back the same" if self.read_back else "says the device, which does not let it be read"
        return [
            f"{self.name} is set ({shown}), {seen}; it is neither committed nor stored:",
            Hint("  ", Run("settings commit"), " lets the application use it"),
            Hint("  ", Run("settings save"), " keeps it when the device restarts"),
        ]


@cli_command(
    _NAME,
    Argument("value", "as --type says: text, bytes in hexadecimal, or a number"),
    Option("--type", "What VALUE is; integers are sent little-endian.", default="text", choices=_TYPES),
    Option("--size", "Width of an integer in bytes, 1 to 8; default: 4.", type=int, metavar="BYTES"),
    epilog="""
    mcumgrx settings set app/name desk -d serial:/dev/ttyACM0
    mcumgrx settings set app/interval 1000 --type uint --size 2 -d serial:/dev/ttyACM0
    mcumgrx settings set app/key --type hex 00a1b2c3 -d serial:/dev/ttyACM0
    mcumgrx settings set app/offset --type int -d serial:/dev/ttyACM0 -- -5
    """,
)
async def set_value(context: CliContext, name: str, value: str, type: str, size: int | None) -> SetResult:
    """Give the setting NAME another value in the firmware. It is neither committed nor stored by that.

    'settings commit' lets the application use it, 'settings save' keeps it when the device restarts.
    """
    from .group import SettingsGroup
    from .values import parse_value

    data = parse_value(value, type, size)
    async with context.connect() as client:
        done = await client.group(SettingsGroup).write_and_look(name, data)
    if not done.answered:
        context.progress(Note("no answer to the write could be read; the value is there", warning=True))
    return SetResult(name, type, len(data), data.hex(), done.seen, done.answered)


# -- delete, commit, load, save ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """The setting is no longer stored, by what the device says; nothing can be read that shows it."""

    name: str

    def lines(self) -> list[str]:
        return [
            f"{self.name} is not stored any more, says the device; nothing can be read that shows it",
            "the firmware has its value until the device restarts",
        ]


@cli_command(_NAME, epilog="mcumgrx settings delete app/interval -d serial:/dev/ttyACM0")
async def delete(context: CliContext, name: str) -> DeleteResult:
    """Take the setting NAME out of the device's storage; the firmware has its value until the device restarts."""
    from .group import SettingsGroup

    async with context.connect() as client:
        await client.group(SettingsGroup).delete(name)
    return DeleteResult(name)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The device took the request; it never tells whether each handler did."""

    def lines(self) -> list[str]:
        return [
            "the device has taken the commit; it does not tell what its handlers have made of it",
            "the settings are not stored by that",
        ]


@cli_command(epilog="mcumgrx settings commit -d serial:/dev/ttyACM0")
async def commit(context: CliContext) -> CommitResult:
    """Let the application use what has been set. It is not stored by that."""
    from .group import SettingsGroup

    async with context.connect() as client:
        await client.group(SettingsGroup).commit()
    return CommitResult()


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The device took the request; it never tells what it found."""

    def lines(self) -> list[str]:
        return ["the device has taken the request to load its settings; it tells neither what it found nor if it could"]


@cli_command(epilog="mcumgrx settings load -d serial:/dev/ttyACM0")
async def load(context: CliContext) -> LoadResult:
    """Read all settings from the device's storage, over those that have been set and not saved."""
    from .group import SettingsGroup

    async with context.connect() as client:
        await client.group(SettingsGroup).load()
    return LoadResult()


@dataclass(frozen=True, slots=True)
class SaveResult:
    """The settings are stored: all, or those at and below `name`."""

    name: str | None = None

    def lines(self) -> list[str]:
        unseen = "says the device; nothing can be read that shows it before it restarts"
        if self.name is None:
            return [f"the settings are stored, {unseen}"]
        return [
            f"{self.name} is stored, {unseen}",
            "(firmware that does not know how to store a part has stored all settings)",
        ]


@cli_command(
    Argument("name", "store only this setting and those below it, if the firmware can", required=False),
    epilog="""
    mcumgrx settings save -d serial:/dev/ttyACM0
    mcumgrx settings save app/interval -d serial:/dev/ttyACM0
    """,
)
async def save(context: CliContext, name: str | None) -> SaveResult:
    """Write the settings to the device's storage, so that they are kept when it restarts.

    Older firmware ignores NAME and stores all.
    """
    from .group import SettingsGroup

    async with context.connect() as client:
        await client.group(SettingsGroup).save(name)
    return SaveResult(name)
