"""Makes a click command out of an async function that `mcumgrx.plugin_api.command` described.

Here is the way from its result or exception to what is shown and the exit code. What it is given is in `arguments` and
`context`; finding commands is the business of `tree`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import click

from ..errors import McumgrError, PluginError
from ..isolation import UserInterrupt, is_wanted, said
from ..plugin_api import Argument, CommandFunction, CommandSpec
from .arguments import PREFIX, Settings, collect, environment, global_options, made_parameter
from .context import Context, no_device
from .exit_codes import Exit, Failure, Situation, explain
from .help import HelpContext, help_option, write_epilog
from .interrupt import interruptions
from .logs import logging_to
from .render import Renderer
from .renderers import make_renderer
from .streams import lost, standard_streams, streams, write_line

__all__ = ["Command", "make_command", "show_failure"]

log = logging.getLogger("mcumgrx.cli")


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
    parameters: list[click.Parameter] = [made_parameter(one) for one in spec.parameters]
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
            option.hidden = option.name in [f"{PREFIX}{about}" for about in ("device", "id", "no_cache")]

    def callback(**values: Any) -> int:
        ctx = click.get_current_context()
        settings = collect(ctx)
        settings = replace(settings, environment=environment(ctx))
        own = {key: value for key, value in values.items() if not key.startswith(PREFIX)}
        return _execute(name, lambda context: function(context, **own), spec, settings, plugin)

    return Command(
        name.rpartition(" ")[2],
        spec=spec,
        params=[*parameters, *common, help_option()],
        callback=callback,
        help=inspect.getdoc(function),
    )


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
        raise no_device(context.settings.device)

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
