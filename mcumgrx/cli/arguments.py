"""Arguments and options: those that every command has, and what a command's own become for click."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..plugin_api import Argument, Option
from .help import NO_BREAK

TYPED = "mcumgrx.typed"
"""Where a context of click has the command line as it was typed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options that every command has."""

    device: str | None = None
    """The first, where several are named."""
    devices: tuple[str, ...] = ()
    json: bool = False
    timeout: float | None = None
    verbose: int = 0
    log_file: Path | None = None
    device_log: bool = False
    yes: bool = False
    id: str | None = None
    no_cache: bool = False
    environment: tuple[tuple[str, str, str], ...] = ()
    """What was set by a variable and not on the command line: (variable, option, value)."""

    def refuse_several(self) -> None:
        """Raise `UsageError` where more than one device is named."""
        if len(self.devices) > 1:
            raise UsageError(
                f"-d is given more than once: {' and '.join(self.devices)}",
                hint="this command is for one device: run it once for each",
            )

    @property
    def reaching(self) -> tuple[str, ...]:
        """What another command needs to reach the same device in the same way."""
        device = ("-d", self.device) if self.device else ()
        return device if self.timeout is None else (*device, "--timeout", f"{self.timeout:g}")


# -- values, as click takes functions that read them -------------------------------------------------------------------


def _number(value: Any) -> float:
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number") from None
    if not math.isfinite(number):
        raise click.BadParameter(f"{value!r} is not a finite number")
    return number


def _seconds(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise click.BadParameter("it must be more than 0 seconds")
    return number


def _integer(value: Any) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(value, 16 if value.lower().lstrip("+-").startswith("0x") else 10)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a whole number") from None


def _path(value: Any) -> Path:
    # `Path` would make the current folder of an empty name, and one slash of two in an address of the web.
    if not str(value):
        raise click.BadParameter("the name of the file is empty")
    if WEB.match(str(value)):
        raise click.BadParameter(f"{value} is a web address: download it, and name the file")
    return Path(value)


WEB = re.compile(r"(https?|ftp)://", re.IGNORECASE)


_TYPES: dict[type, Any] = {str: click.STRING, int: _integer, float: _number, Path: _path, bool: click.BOOL}
_METAVARS: dict[type, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "FILE"}

# The names of global options inside click, where a command's own parameters live too.
PREFIX = "global_"


def _environment_name(name: str, plugin: str | None = None) -> str:
    """The variable for an option; of another distribution's plugin it has the plugin's name, whose option it is."""
    return "_".join(["MCUMGRX", *([re.sub(r"\W", "_", plugin)] if plugin else []), name]).upper()


class _Device(click.Option):
    """Keeps every `-d`: few commands are for several devices, and none may choose between two in silence."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{**more, "multiple": True})

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        return None if value is None else (value,)  # and not cut at its spaces


def global_options() -> list[click.Option]:
    """New click options for one command; the same for all, before and after the subcommand."""

    def option(name: str, *flags: str, cls: type[click.Option] = click.Option, **more: Any) -> click.Option:
        return cls([*flags, PREFIX + name], envvar=_environment_name(name), **more)

    return [
        option(
            "device",
            "-d",
            "--device",
            cls=_Device,
            metavar="ADDRESS",
            help="The device, as serial:/dev/ttyACM0 or sim:.",
        ),
        option("json", "--json", is_flag=True, help="Print JSON: events and the result, an object per line."),
        option(
            "timeout",
            "--timeout",
            metavar="SECONDS",
            type=_seconds,
            help="How long an ordinary answer may take [default:\u00a05].",
        ),
        option("yes", "--yes", is_flag=True, help="Answer questions with yes."),
        option("verbose", "-v", "--verbose", count=True, help="Say more on stderr; -vv says all."),
        option("log_file", "--log-file", metavar="FILE", type=_path, help="Append a complete log to FILE."),
        option("id", "--id", metavar="NAME", help="Remember the device by this name."),
        option("no_cache", "--no-cache", is_flag=True, help="Remember nothing of the device, nor use what is known."),
        option("device_log", "--device-log", is_flag=True, help="Show what the device prints beside SMP."),
    ]


def collect(ctx: click.Context) -> Settings:
    """What was said of this command, before it and behind it, on the command line and by variables.

    The later one on the command line wins, and any wins over the environment. `-v` adds up, and so do devices.
    """
    levels = [ctx]
    while (above := levels[0].parent) is not None:
        levels.insert(0, above)
    settings: dict[str, Any] = {}
    environment: list[tuple[str, str, str]] = []
    for option in ctx.command.params:
        name = option.name or ""
        of_all = name.removeprefix(PREFIX) if name.startswith(PREFIX) else None
        by_variable = [
            one.params[name] for one in levels if one.get_parameter_source(name) is ParameterSource.ENVIRONMENT
        ]
        typed = [one.params[name] for one in levels if one.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        given = by_variable[:1] + typed
        if by_variable and not typed:
            environment.append((str(option.envvar), option.opts[0], os.environ.get(str(option.envvar), "")))
        if of_all is None or not given:
            continue
        if of_all == "device":
            devices = [device for one in typed or given for device in one]
            settings |= {"device": devices[0], "devices": tuple(dict.fromkeys(devices))}
        else:
            settings[of_all] = sum(given) if of_all == "verbose" else given[-1]
    return Settings(**settings, environment=tuple(environment))


def settings_in(arguments: Sequence[str]) -> Settings:
    """How to tell what is wrong with a command line that cannot be parsed: what it says of output and log."""
    told = [option for option in global_options() if option.name in [PREFIX + name for name in _TELLING]]
    given = click.Command("mcumgrx", params=[*told], add_help_option=False).make_context(
        "mcumgrx", [*arguments], resilient_parsing=True, ignore_unknown_options=True, allow_extra_args=True
    )
    return Settings(**{name: value for name in _TELLING if (value := given.params[PREFIX + name])})


_TELLING = ("json", "verbose", "log_file")


def made_parameter(one: Argument | Option, plugin: str | None = None) -> click.Parameter:
    kind = _TYPES[one.type]
    if isinstance(one, Argument):
        return click.Argument([one.name], type=kind, required=one.required, nargs=-1 if one.many else 1)
    help_text = one.help
    more: dict[str, Any] = {}
    if one.type is bool:
        more.update(is_flag=True, default=bool(one.default))
    else:
        more["metavar"] = one.metavar or ("|".join(one.choices) if one.choices else _METAVARS[one.type])
        if one.default is not None:
            more["default"] = one.default
            shown = f"{one.default:g}" if isinstance(one.default, float) else str(one.default)
            help_text = f"{help_text.removesuffix('.')} [default:{NO_BREAK}{shown}]."
        if one.choices:
            kind = click.Choice(one.choices)
        more["type"] = kind
        more["multiple"] = one.many
    return click.Option([one.flag, one.name], help=help_text, envvar=_environment_name(one.name, plugin), **more)
