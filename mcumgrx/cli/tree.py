"""The tree of commands: core commands and those of plugins, found by name, and the help that lists them."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from .._version import __version__
from ..errors import McumgrError, PluginError, UsageError
from ..hints import Hint, Run
from ..isolation import is_wanted
from ..plugin_api import CliCommand
from .arguments import TYPED, collect, global_options, settings_in
from .command import failure_of, make_command
from .exit_codes import Exit, Failure, Situation
from .help import HelpContext, help_option, telling, write_epilog
from .interrupt import interruptions
from .logs import hold_early_records, log_begin, log_failure, logging_to
from .renderers import make_renderer
from .streams import lost, standard_streams, streams, write_line
from .words import meant_commands, meant_options

if TYPE_CHECKING:
    from ..registry import PluginRecord, Registry

log = logging.getLogger("mcumgrx.cli")

CORE_COMMANDS = {
    plugin.name: plugin
    for plugin in (
        CliCommand("dfu", "Update a device, and prove that the new firmware runs", load="mcumgrx.cli.dfu:dfu"),
        CliCommand("scan", "Find devices: serial ports, and whatever links can see", load="mcumgrx.cli.scan:scan"),
        CliCommand("demo", "See an update and a rollback, on a simulated device", load="mcumgrx.cli.demo:demo"),
        CliCommand("cache show", "Show what is remembered of devices", load="mcumgrx.cli.cache:show_cache"),
        CliCommand("cache clear", "Forget what is remembered of devices", load="mcumgrx.cli.cache:clear_cache"),
        CliCommand("plugins list", "List the plugins, and what does not work", load="mcumgrx.cli.plugins:list_plugins"),
    )
}

# Headings of the top level; what is not named is about a device.
_SECTIONS = {
    "Update": ("dfu",),
    "Device": (),
    "Tools": ("scan", "sim", "demo", "plugins", "doctor", "cache", "capture"),
}

_SECTION_HELP = {
    "plugins": "Plugins: transports, command groups and commands from installed packages.",
    "cache": "What is remembered of devices from one command to the next.",
}

_EXAMPLES = """
Examples:
  mcumgrx demo                                see it work, without hardware
  mcumgrx dfu app.signed.bin -d /dev/ttyACM0  update a device on a serial port
  mcumgrx image list -d /dev/ttyACM0          what is in its slots
  mcumgrx os echo hello -d sim: --json        a simulated device, for a script

Every option can be set by the environment, too: -d by MCUMGRX_DEVICE,
--erase-timeout by MCUMGRX_ERASE_TIMEOUT, and so on.
"""


def run_command_line(arguments: list[str]) -> int:
    """Parse and run; everything that can go wrong becomes a message and an exit code."""
    with hold_early_records(), standard_streams() as now:
        code = _run(arguments)
        error = lost(now.out)
        if error is None or code != Exit.DONE:
            return code
        write_line(now.err, f"error: the output cannot be written: {error.strerror or error}")
        return Exit.OUTPUT_LOST


def _run(arguments: list[str]) -> int:
    # Not by `main` of click, which makes something of its own of interruptions and errors of the system.
    try:
        with make_root().make_context("mcumgrx", [*arguments]) as context:
            context.meta[TYPED] = tuple(arguments)
            return int(context.command.invoke(context) or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as error:
        return _usage(error, arguments)
    except BaseException as error:  # while finding the command: a plugin's trouble, or a bug
        if is_wanted(error):
            raise
        return _refused(failure_of(error, Situation()), arguments, error)


def _refused(failure: Failure, arguments: list[str], raised: BaseException | None = None) -> int:
    """Show why no command was found, or none could begin, and log it like the end of one."""
    settings = settings_in(arguments)
    renderer = make_renderer(as_json=settings.json)
    with logging_to(renderer.log, settings.verbose, settings.log_file):
        log_begin("", arguments, None)
        if raised is not None:
            level = logging.DEBUG if isinstance(raised, McumgrError) else logging.INFO
            log.log(level, "traceback", exc_info=raised)
        log_failure(failure)
    renderer.failure(failure)
    return failure.exit


def make_root() -> click.Group:
    """The whole command line."""
    return _Root()


def _usage(error: click.UsageError, arguments: list[str]) -> int:
    message, meant = _in_our_words(error, arguments)
    hints = []
    if meant:
        hints.append(f"did you mean {' or '.join(meant)}?")
    if error.ctx is not None:
        hints.append(f"{'See' if hints else 'see'} '{error.ctx.command_path} --help'")
    text = message[:1].lower() + message[1:]
    return _refused(Failure(Exit.USAGE, "UsageError", text, " ".join(hints) or None), arguments)


def _in_our_words(error: click.UsageError, arguments: list[str]) -> tuple[str, list[str]]:
    """What is wrong, and what may have been meant. click's own sentences end in such advice, in several forms."""
    if isinstance(error, click.NoSuchOption):
        before = arguments[: arguments.index("--")] if "--" in arguments else arguments
        parameters = error.ctx.command.get_params(error.ctx) if error.ctx is not None else []
        there = [name for one in parameters for name in (*one.opts, *one.secondary_opts) if name.startswith("-")]
        return f"no such option {error.option_name!r}", meant_options(error.option_name, before, there)
    return error.format_message().rstrip(". "), []


def _registry() -> Registry:
    from ..registry import default_registry

    registry = default_registry()
    with interruptions() as signals:
        signals.check()  # a plugin that catches everything at its import catches that as well
    return registry


def _make(plugin: CliCommand) -> click.Command:
    if plugin.name in CORE_COMMANDS:
        module, _, name = plugin.load.partition(":")
        function = getattr(importlib.import_module(module), name)
        return make_command(plugin.name, function, function.__mcumgrx_command__)
    function, spec = _registry().command(plugin)
    owner = next((record for record in _registry().plugins if f"command {plugin.name}" in record.supplies), None)
    third_party = owner is not None and owner.distribution != "mcumgrx"
    return make_command(plugin.name, function, spec, plugin=owner.name if owner is not None and third_party else None)


class _Group(click.Group):
    """A group of commands, such as `mcumgrx os`; each is imported when it is needed."""

    context_class = HelpContext

    def __init__(self, name: str, help: str, plugins: Mapping[str, CliCommand]) -> None:
        parameters: list[click.Parameter] = [*global_options(), help_option()]
        super().__init__(name, params=parameters, callback=self._begin, add_help_option=False, help=help)
        self._plugins = plugins
        self.invoke_without_command = True
        self.no_args_is_help = False

    def _begin(self, **values: object) -> None:
        ctx = click.get_current_context()
        settings = collect(ctx)
        if ctx.invoked_subcommand is None:
            settings.refuse_several()
            write_line(streams().out, ctx.get_help())

    def plugins_for(self, name: str = "") -> Mapping[str, CliCommand]:
        """This group's commands, by what is typed behind its name: one word or two. At least those that begin so."""
        return self._plugins

    def summary(self, name: str) -> str:
        """One line about a command of this group, or about a group in it."""
        plugins = self.plugins_for()
        return plugins[name].summary if name in plugins else ", ".join(_below(plugins, name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys(name.partition(" ")[0] for name in self.plugins_for()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        plugins = self.plugins_for(name)
        if name in plugins:
            return _make(plugins[name])
        below = _below(plugins, name)
        return _Group(name, _section_help(name), below) if below else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and name == "help":  # of what follows: as `--help` behind that
            words = [word for word in args[1:] if not word.startswith("-")]
            if words:
                return self.resolve_command(ctx, [*words, "--help"])
            write_line(streams().out, ctx.get_help())
            ctx.exit()
        if command is None:
            raise self.unknown(ctx, args)
        return name, command, args[1:]

    def unknown(self, ctx: click.Context, words: list[str]) -> McumgrError:
        """The error for a command that does not exist; `words` begin with it."""
        section = ctx.command_path.partition(" ")[2]
        meant = meant_commands(words, _all_commands(), section)
        parts: list[str | Run] = []
        for one in meant:
            parts += [" or " if parts else "did you mean ", Run(one, device=False)]
        hint = Hint(*parts, "?") if meant else Hint(f"see '{ctx.command_path} --help'")
        return UsageError(f"there is no command '{ctx.command_path} {words[0]}'", hint=hint)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.summary(name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        rows = [record for parameter in self.get_params(ctx) if (record := parameter.get_help_record(ctx)) is not None]
        with formatter.section("Options of every command, before or after it"):
            formatter.write_dl(rows)


def _below(plugins: Mapping[str, CliCommand], first: str) -> dict[str, CliCommand]:
    """Of the commands of two words that begin with this one, by the other."""
    return {name.partition(" ")[2]: plugin for name, plugin in plugins.items() if name.startswith(f"{first} ")}


def _all_commands() -> list[str]:
    """Every command, and every group of commands by itself."""
    names = [*CORE_COMMANDS, *_registry().commands]
    return list(dict.fromkeys([*names, *(name.partition(" ")[0] for name in names)]))


class _Root(_Group):
    """`mcumgrx` itself."""

    def __init__(self) -> None:
        super().__init__(
            "mcumgrx", "Update and manage Zephyr and MCUboot devices over SMP, the MCUmgr protocol.", CORE_COMMANDS
        )
        self.params.append(telling("--version", help="Show the version.", text=lambda _: _version_text()))

    def plugins_for(self, name: str = "") -> Mapping[str, CliCommand]:
        if any(core.partition(" ")[0] == name for core in CORE_COMMANDS):
            return CORE_COMMANDS  # found without looking at plugins
        return {**_registry().commands, **CORE_COMMANDS}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(super().list_commands(ctx))

    def unknown(self, ctx: click.Context, words: list[str]) -> McumgrError:
        for record in _registry().plugins:
            if record.name == words[0] and (record.disabled or record.error):
                return _not_there(record, f"the command '{ctx.command_path} {words[0]}'")
        error = super().unknown(ctx, words)
        idle = [record.name for record in _registry().plugins if record.error or record.disabled]
        if idle:
            error.hint = f"{error.hint} Not all plugins are at work ({', '.join(idle)}): see 'mcumgrx plugins list'"
        return error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        named = {name for members in _SECTIONS.values() for name in members}
        for title, members in _SECTIONS.items():
            chosen = [name for name in members if name in names] if members else [n for n in names if n not in named]
            if chosen:
                width = max(len(name) for name in names)
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), self.summary(name)) for name in chosen])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        transports = dict.fromkeys(_registry().transports.values())
        rows = [(one.example or f"{one.scheme}:", one.summary) for one in transports]
        if rows:
            with formatter.section("Addresses of devices"):
                formatter.write_dl(rows, col_max=34)
        write_epilog(_EXAMPLES, formatter)


def _section_help(name: str) -> str:
    if name in _SECTION_HELP:
        return _SECTION_HELP[name]
    group = next((one for one in _registry().groups.values() if one.name == name), None)
    if group is not None:
        return f"{group.summary} (command group {group.id})."
    transport = _registry().transports.get(name)
    return f"{transport.summary}." if transport is not None else ""


def _not_there(record: PluginRecord, what: str) -> PluginError:
    if record.disabled:
        problem, hint = "is switched off", "take it out of MCUMGRX_DISABLE_PLUGINS"
    else:
        problem, hint = f"does not work: {record.error}", record.hint or "see 'mcumgrx plugins list'"
    return record.fault(f"{what} belongs to the plugin {record.name!r}, which {problem}", hint)


def _version_text() -> str:
    from ..protocol.codec import IMPLEMENTATION

    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"mcumgrx {__version__} (codec: {IMPLEMENTATION}, Python {python})"
