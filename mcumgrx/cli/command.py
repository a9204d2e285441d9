"""Makes a click command out of an async function that `mcumgrx.plugin_api.command` described.

Here are the options that every command has, the `CommandContext` that its function gets, and the way from its result
or exception to what is shown and the exit code. Finding commands is the business of `main`.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.core import ParameterSource

from ..errors import McumgrError, PluginError, UsageError
from ..events import DeviceText, Event, Note, Progress, StageName
from ..isolation import UserInterrupt, is_wanted, said
from ..plugin_api import Argument, CommandFunction, CommandSpec, Option
from .exit_codes import Exit, Failure, Situation, explain
from .help import NO_BREAK, HelpContext, help_option, write_epilog
from .interrupt import interruptions
from .logs import logging_to
from .render import Renderer, make_renderer
from .streams import lost, standard_streams, streams, write_line, write_text
from .text import printable

if TYPE_CHECKING:
    from ..client import Client
    from ..session import SessionDevice

__all__ = [
    "Command",
    "Context",
    "Settings",
    "collect",
    "global_options",
    "make_command",
    "show_failure",
]

log = logging.getLogger("mcumgrx.cli")
device_log = logging.getLogger("mcumgrx.device")


# -- the options of every command -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the options that every command has."""

    device: str | None = None
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

    @property
    def reaching(self) -> tuple[str, ...]:
        """What another command needs to reach the same device in the same way."""
        device = ("-d", self.device) if self.device else ()
        return device if self.timeout is None else (*device, "--timeout", f"{self.timeout:g}")


if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic only since click 8.5


class _Number(_Type):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _Seconds(_Number):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if number <= 0:
            self.fail("it must be more than 0 seconds", param, ctx)
        return number


class _Integer(_Type):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(value, 16 if value.lower().lstrip("+-").startswith("0x") else 10)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)


class _Path(_Type):
    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        # `Path` would make the current folder of an empty name, and one slash of two in an address of the web.
        if not str(value):
            self.fail("the name of the file is empty", param, ctx)
        if _WEB.match(str(value)):
            self.fail(f"{value} is a web address: download it, and name the file", param, ctx)
        return Path(value)


_WEB = re.compile(r"(https?|ftp)://", re.IGNORECASE)


_TYPES: dict[type, _Type] = {
    str: click.STRING,
    int: _Integer(),
    float: _Number(),
    Path: _Path(),
    bool: click.BOOL,
}
_METAVARS: dict[type, str] = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "FILE"}

# The names of global options inside click, where a command's own parameters live too.
_PREFIX = "global_"


def _environment_name(name: str) -> str:
    return f"MCUMGRX_{name.upper()}"


class _Device(click.Option):
    """Keeps every `-d`: a command is for one device, and must not choose between two in silence."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **{**more, "multiple": True})

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        return None if value is None else (value,)  # and not cut at its spaces


def global_options() -> list[click.Option]:
    """New click options for one command; the same for all, before and after the subcommand."""

    def option(name: str, *flags: str, cls: type[click.Option] = click.Option, **more: Any) -> click.Option:
        return cls([*flags, _PREFIX + name], envvar=_environment_name(name), **more)

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
            type=_Seconds(),
            help="How long an ordinary answer may take [default:\u00a05].",
        ),
        option("yes", "--yes", is_flag=True, help="Answer questions with yes."),
        option("verbose", "-v", "--verbose", count=True, help="Say more on stderr; -vv says all."),
        option("log_file", "--log-file", metavar="FILE", type=_Path(), help="Append a complete log to FILE."),
        option("id", "--id", metavar="NAME", help="Remember the device by this name."),
        option("no_cache", "--no-cache", is_flag=True, help="Remember nothing of the device, nor use what is known."),
        option("device_log", "--device-log", is_flag=True, help="Show what the device prints beside SMP."),
    ]


def collect(ctx: click.Context) -> Settings:
    """The settings so far: what the levels above have, and over it what was given at this one.

    The later one on the command line wins, and any wins over the environment. `-v` adds up; two devices are refused.
    """
    settings: Settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    first = ctx.parent is None
    for option in ctx.command.params:
        name = (option.name or "").removeprefix(_PREFIX)
        if option.name != _PREFIX + name:
            continue
        source = ctx.get_parameter_source(_PREFIX + name)
        if source is ParameterSource.COMMANDLINE or (source is ParameterSource.ENVIRONMENT and first):
            value = ctx.params[_PREFIX + name]
            if name == "device":
                value = _one_device(ctx)
            if name == "verbose" and source is ParameterSource.COMMANDLINE and not first:
                value += settings.verbose
            settings = replace(settings, **{name: value})
    ctx.obj = settings
    return settings


def _one_device(ctx: click.Context) -> str:
    """The device that is named at this level, and at those above it where any is."""
    name = _PREFIX + "device"
    given: list[str] = [*ctx.params[name]]
    above = ctx.parent
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        while above is not None:
            if above.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                given = [*above.params[name], *given]
            above = above.parent
    if len(set(given)) > 1:
        raise UsageError(
            f"-d is given more than once: {' and '.join(given)}",
            hint="a command is for one device: run it once for each",
        )
    return given[0]


# -- the context ------------------------------------------------------------------------------------------------------


class Context:
    """What a command's function gets (`mcumgrx.plugin_api.CommandContext`), and a little more for core commands."""

    def __init__(self, command: str, settings: Settings, renderer: Renderer) -> None:
        self.command = command
        self.settings = settings
        self.renderer = renderer
        self._clients: list[Client] = []
        self._scheme = ""

    @property
    def timeout_s(self) -> float | None:
        return self.settings.timeout

    @property
    def progress(self) -> Progress:
        return self._event if self.settings.device_log else self.renderer.event

    def _event(self, event: Event) -> None:
        if not isinstance(event, DeviceText):  # shown as it came, with all other text of the device
            self.renderer.event(event)

    def _hear(self, text: str) -> None:
        _log_device_text(text)
        if self.settings.device_log:
            self.renderer.event(DeviceText(text))

    @property
    def device(self) -> SessionDevice:
        from .. import session
        from ..address import Address
        from ..memory import Memory
        from ..registry import default_registry

        if not self.settings.device:
            raise _no_device(self.settings.device)
        address = Address.parse(self.settings.device)
        transport = default_registry().transports.get(address.scheme)
        self._scheme = transport.scheme if transport is not None else address.scheme
        return session.device(
            address,
            timeout_s=self.timeout_s,
            on_text=self._hear,
            memory=None if self.settings.no_cache else Memory(),
            name=self.settings.id,
        )

    def connect(self) -> AbstractAsyncContextManager[Client]:
        return self._connect(self.device)

    @asynccontextmanager
    async def _connect(self, device: SessionDevice) -> AsyncIterator[Client]:
        try:
            client = await device.connect()
            self._clients.append(client)
            yield client
        finally:
            await device.close()

    async def confirm(self, question: str) -> bool:
        if self.settings.yes:
            return True
        if self.settings.json or not (_is_terminal(sys.stdin) and _is_terminal(streams().err)):
            return False
        self.renderer.pause()
        answer = await _ask(f"{printable(question)} [y/N] ")
        return answer.strip().lower() in ("y", "yes")

    @contextmanager
    def standard_output(self) -> Iterator[None]:
        if self.settings.json:
            raise UsageError(
                "this command writes to standard output itself, where the lines of --json would come between",
                hint="leave out --json, or name a file for what it writes",
            )
        with streams().released():
            yield

    def warn(self, text: str) -> None:
        self.renderer.event(Note(text, warning=True))

    def show(self, kind: str, value: object) -> None:
        """Show a value before the result is there, such as a plan."""
        self.renderer.show(kind, value)

    def say(self, text: str, style: str = "") -> None:
        """Tell a story beside what is done, as `demo` does."""
        self.renderer.say(text, style)

    @property
    def has_worked(self) -> bool:
        """It has done more than to look."""
        early = {StageName.INSPECT, StageName.CONNECT, StageName.READ, StageName.PLAN, StageName.DOWNLOAD}
        return bool(set(self.renderer.stages) - early)

    def situation(self) -> Situation:
        """How far the command has come, for hints."""
        early = {StageName.INSPECT, StageName.CONNECT, StageName.READ}
        last = self.renderer.last_bytes
        return Situation(
            command=self.command,
            scheme=self._scheme,
            heard=any(client.last_heard_s is not None for client in self._clients),
            answered=bool(set(self.renderer.stages) - early),
            sent=None if last is None else last.done - last.resumed_from,
            options=self.settings.reaching,
            environment=self.settings.environment,
        )


def _no_device(given: str | None) -> UsageError:
    from ..registry import default_registry

    examples = [one.example for one in dict.fromkeys(default_registry().transports.values()) if one.example]
    named = " or ".join(f"-d {example}" for example in examples[:3]) or "-d sim:"
    hint = f"name one, for example {named}; 'mcumgrx scan' shows what there is. Or set MCUMGRX_DEVICE"
    return UsageError("the address of the device is empty" if given == "" else "no device is given", hint=hint)


def _log_device_text(text: str) -> None:
    for line in text.splitlines():
        device_log.info("%s", line)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


async def _ask(prompt: str) -> str:
    """A line from the terminal. The loop goes on meanwhile, and an interrupted question does not keep the process."""
    from ..threads import in_thread

    write_text(streams().err, prompt)
    # Not sys.stdin: its lock would be held by this thread when the interpreter ends.
    return (await in_thread(os.read, sys.stdin.fileno(), 1024)).decode(errors="replace")


# -- commands ---------------------------------------------------------------------------------------------------------


class Command(click.Command):
    """A click command whose help lists arguments, its own options, and those of every command apart."""

    context_class = HelpContext

    def __init__(self, name: str, *, spec: CommandSpec, **more: Any) -> None:
        self.spec = spec
        super().__init__(name, add_help_option=False, **more)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [
            (one.name.upper() + ("…" if one.many else ""), one.help)
            for one in self.spec.parameters
            if isinstance(one, Argument)
        ]
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                is_own = parameter.name in {one.name for one in self.spec.parameters}
                (own if is_own else common).append(record)
        for title, rows in (("Arguments", arguments), ("Options", own), ("Options of every command", common)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(self.spec.epilog, formatter)


def make_command(name: str, function: CommandFunction, spec: CommandSpec, *, plugin: str | None = None) -> Command:
    """The click command for `function`. `plugin` names the third party it is from, for messages.

    Raises `PluginError` for parameters that clash with each other or with the options of every command.
    """
    parameters: list[click.Parameter] = [_parameter(one) for one in spec.parameters]
    common = global_options()
    taken = {flag for option in common for flag in option.opts} | {"-h", "--help"}
    for parameter in parameters:
        clash = taken.intersection(parameter.opts) if isinstance(parameter, click.Option) else ()
        if clash:
            raise PluginError(f"the command {name!r} has an option {min(clash)} of its own, which every command has")
        if parameter.name in [other.name for other in parameters if other is not parameter]:
            raise PluginError(f"the command {name!r} has two parameters {parameter.name!r}")
    if not spec.needs_device and name != "demo":
        for option in common:
            option.hidden = option.name in [f"{_PREFIX}{about}" for about in ("device", "id", "no_cache")]

    def callback(**values: Any) -> int:
        ctx = click.get_current_context()
        settings = collect(ctx)
        settings = replace(settings, environment=_environment(ctx))
        own = {key: value for key, value in values.items() if not key.startswith(_PREFIX)}
        return _execute(name, lambda context: function(context, **own), spec, settings, plugin)

    return Command(
        name.rpartition(" ")[2],
        spec=spec,
        params=[*parameters, *common, help_option()],
        callback=callback,
        help=inspect.getdoc(function),
    )


def _environment(ctx: click.Context) -> tuple[tuple[str, str, str], ...]:
    """What variables have set, and nothing on the command line, before the subcommand or after it."""
    found = []
    for option in ctx.command.params:
        levels: list[click.Context] = [ctx]
        while levels[-1].parent is not None:
            levels.append(levels[-1].parent)
        sources = {level.get_parameter_source(option.name or "") for level in levels}
        variable = option.envvar
        if ParameterSource.ENVIRONMENT in sources - {None} and ParameterSource.COMMANDLINE not in sources:
            found.append((str(variable), option.opts[0], os.environ.get(str(variable), "")))
    return tuple(found)


def _parameter(one: Argument | Option) -> click.Parameter:
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
    return click.Option([one.flag, one.name], help=help_text, envvar=_environment_name(one.name), **more)


def _execute(
    name: str,
    start: Callable[[Any], Awaitable[Any]],
    spec: CommandSpec,
    settings: Settings,
    plugin: str | None,
) -> int:
    """Run a command and show what comes of it; returns the exit code."""
    with standard_streams() as now:
        with now.beside() as outlet:
            renderer = make_renderer(as_json=settings.json, verbose=settings.verbose)
            renderer.options = settings.reaching
            context = Context(name, settings, renderer)
            try:
                code = _carry_out_and_tell(name, start, spec, context, plugin)
            finally:
                renderer.close()
            with interruptions() as signals:
                # Whoever reads slowly is waited for, but not by somebody who wants to leave.
                outlet.close(None if signals.number is None else _LAST_WORDS_S)
        return _after_loss(code, context)


# For what an interrupted command has to say, where a terminal or a reader does not take it.
_LAST_WORDS_S = 0.5


def _carry_out_and_tell(
    name: str,
    start: Callable[[Any], Awaitable[Any]],
    spec: CommandSpec,
    context: Context,
    plugin: str | None,
) -> int:
    settings = context.settings
    result: Any = None
    failure: BaseException | None = None
    try:
        with logging_to(context.renderer.log, settings.verbose, settings.log_file, context.warn):
            try:
                result = _carry_out(start, spec, context)
            except BaseException as error:
                failure = error
                if not is_wanted(error):
                    level = logging.DEBUG if isinstance(error, McumgrError) else logging.INFO
                    log.log(level, "traceback", exc_info=error)
        return _tell(name, result, failure, context, plugin)
    except UserInterrupt as error:
        return _tell(name, None, error, context, plugin)


def _carry_out(start: Callable[[Any], Awaitable[Any]], spec: CommandSpec, context: Context) -> Any:
    from .run import run

    if spec.needs_device and not context.settings.device:
        raise _no_device(context.settings.device)

    async def work() -> Any:
        return await start(context)

    return run(work)


def _tell(name: str, result: Any, failure: BaseException | None, context: Context, plugin: str | None) -> int:
    """Show how a command has ended; returns its exit code."""
    renderer = context.renderer
    if failure is None:
        try:
            code = _exit_code(result)
            renderer.result(name, result)
            return code
        except BaseException as error:  # of the methods of a plugin's result
            failure = error
    if not is_wanted(failure):
        return show_failure(renderer, failure, context.situation(), plugin=plugin, settings=context.settings)
    with interruptions() as signals:
        by = f" by {signals.name}" if signals.name else ""
        signals.told()
    again = "; run the same command again to continue" if renderer.stages else ""
    renderer.failure(Failure(Exit.INTERRUPTED, "KeyboardInterrupt", f"interrupted{by}{again}"))
    return Exit.INTERRUPTED


def _exit_code(result: Any) -> int:
    code = getattr(result, "exit_code", Exit.DONE)
    if not isinstance(code, int) or not 0 <= code <= 255:
        raise TypeError(f"the exit_code of its result is {code!r}, not a number from 0 to 255")
    return int(code)


def _after_loss(code: int, context: Context) -> int:
    """The exit code, if a result may have been lost on its way to standard output.

    What was done to a device is done, whether or not somebody could read of it. A result that was all that was asked
    for is another matter: whoever reads a file that is not there must not take it for the device's answer.
    """
    error = lost(streams().out)
    if error is None:
        return code
    problem = f"the result cannot be written to standard output: {error.strerror or error}"
    done = code != Exit.DONE or context.has_worked
    write_line(streams().err, f"{'warning' if done else 'error'}: {problem}")
    return code if done else Exit.OUTPUT_LOST


def show_failure(
    renderer: Renderer,
    error: BaseException,
    where: Situation,
    *,
    plugin: str | None = None,
    settings: Settings | None = None,
) -> int:
    """Show why a command failed and return its exit code."""
    if isinstance(error, McumgrError):
        failure = explain(error, where)
        if not isinstance(failure.message, str) or not isinstance(failure.hint, str | None):  # made by a stranger
            hint = None if failure.hint is None else str(failure.hint)
            failure = replace(failure, message=str(failure.message), hint=hint)
    else:
        plugin = plugin or _culprit(error)
        whose = f" in the plugin {plugin!r}" if plugin is not None else ""
        text = f"this is a bug{whose}: {said(error)}"
        failure = Failure(Exit.BUG, type(error).__name__, text, _report_hint(plugin, settings))
    renderer.failure(failure)
    return failure.exit


def _culprit(error: BaseException) -> str | None:
    from ..registry import default_registry

    record = default_registry().culprit(error)
    return None if record is None else record.name


def _report_hint(plugin: str | None, settings: Settings | None) -> str:
    from importlib import metadata

    if settings is not None and settings.log_file is not None:
        trace = f"{settings.log_file} holds the details"
    else:
        trace = "-v shows where, and --log-file FILE writes a log for a report"
    if plugin is not None:
        return f"{trace}; please tell its author"
    try:
        links = metadata.metadata("mcumgrx").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        links = []
    where = next((link.partition(",")[2].strip() for link in links if link.lower().startswith("issues")), None)
    return f"{trace}; please report it" + (f" at {where}" if where else "")
