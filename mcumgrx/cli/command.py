"""Makes a click command out of an async function that `mcumgrx.plugin_api.cli_command` described.

Here is the way from its result or exception to what is shown and the exit code. What it is given is in `arguments` and
`context`; finding commands is the business of `tree`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

from ..errors import McumgrError, PluginError
from ..isolation import UserInterrupt, is_wanted, said
from ..plugin_api import Argument, CliFunction, CliSpec
from .arguments import PREFIX, TYPED, Settings, collect, global_options, made_parameter
from .context import Context, no_device
from .data import to_lines
from .exit_codes import Exit, Failure, Situation, explain
from .help import HelpContext, help_option, write_epilog
from .interrupt import interruptions
from .logs import log_begin, log_failure, log_result, logging_to, story
from .renderers import make_renderer
from .streams import lost, standard_streams, streams, write_line

log = logging.getLogger("mcumgrx.cli")


class Command(click.Command):
    """A click command whose help lists arguments, its own options, and those of every command apart."""

    context_class = HelpContext

    def __init__(self, name: str, *, spec: CliSpec, **more: Any) -> None:
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


def make_command(name: str, function: CliFunction, spec: CliSpec, *, plugin: str | None = None) -> Command:
    """The click command for `function`. `plugin` names the third party it is from, for messages.

    Raises `PluginError` for parameters that clash with each other or with the options of every command.
    """
    parameters: list[click.Parameter] = [made_parameter(one, plugin) for one in spec.parameters]
    common = global_options()
    taken = {flag for option in common for flag in option.opts} | {"-h", "--help"}
    for parameter in parameters:
        clash = taken.intersection(parameter.opts) if isinstance(parameter, click.Option) else ()
        if clash:
            raise PluginError(f"the command {name!r} has an option {min(clash)} of its own, which every command has")
        if parameter.name in [other.name for other in parameters if other is not parameter]:
            raise PluginError(f"the command {name!r} has two parameters {parameter.name!r}")
    if spec.needs_device is False and name != "demo":
        for option in common:
            option.hidden = option.name in [f"{PREFIX}{about}" for about in ("device", "id", "no_cache")]

    def callback(**values: Any) -> int:
        ctx = click.get_current_context()
        settings = collect(ctx)
        if not spec.many_devices:
            settings.refuse_several()
        if spec.needs_device is None and any(option == "-d" for _, option, _ in settings.environment):
            settings = replace(settings, device=None)
        own = {key: value for key, value in values.items() if not key.startswith(PREFIX)}
        typed = ctx.find_root().meta.get(TYPED, ())
        return _Execution(name, lambda context: function(context, **own), spec, plugin, typed).run(settings)

    return Command(
        name.rpartition(" ")[2],
        spec=spec,
        params=[*parameters, *common, help_option()],
        callback=callback,
        help=inspect.getdoc(function),
    )


# For what an interrupted command has to say, where a terminal or a reader does not take it.
_LAST_WORDS_S = 0.5


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a command has ended: with a result, of which people see `lines`, or with a failure."""

    code: int
    result: Any = None
    lines: Sequence[str] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Execution:
    """A command that is run, and what comes of it shown. `plugin` names the third party it is from."""

    name: str
    start: Callable[[Any], Awaitable[Any]]
    spec: CliSpec
    plugin: str | None
    typed: Sequence[str]

    def run(self, settings: Settings) -> int:
        """The exit code."""
        with standard_streams() as now:
            with now.beside() as outlet:
                renderer = make_renderer(as_json=settings.json, verbose=settings.verbose)
                renderer.options = settings.reaching
                context = Context(self.name, settings, renderer)
                try:
                    code = self._carry_out_and_tell(context)
                finally:
                    renderer.close()
                with interruptions() as signals:
                    # Whoever reads slowly is waited for, but not by somebody who wants to leave.
                    outlet.close(None if signals.number is None else _LAST_WORDS_S)
            return _after_loss(code, context)

    def _carry_out_and_tell(self, context: Context) -> int:
        settings, renderer = context.settings, context.renderer
        result: Any = None
        failure: BaseException | None = None
        try:
            with logging_to(renderer.log, settings.verbose, settings.log_file, context.warn):
                if settings.log_file is not None:
                    log_begin(self.name, self.typed, settings)
                    renderer.journal = partial(story.info, "%s")
                try:
                    result = self._carry_out(context)
                except BaseException as error:
                    failure = error
                    if not is_wanted(error):
                        level = logging.DEBUG if isinstance(error, McumgrError) else logging.INFO
                        log.log(level, "traceback", exc_info=error)
                ending = self._ending(result, failure, context)
                if renderer.journal is not None:
                    if ending.failure is not None:
                        log_failure(ending.failure)
                    else:
                        log_result([renderer.told(line) for line in ending.lines], ending.code)
            return self._tell(ending, context)
        except UserInterrupt as error:
            return self._tell(self._ending(None, error, context), context)

    def _carry_out(self, context: Context) -> Any:
        from .run import run

        if self.spec.needs_device and not self.spec.many_devices and not context.settings.device:
            raise no_device(context.settings.device)

        async def work() -> Any:
            return await self.start(context)

        return run(work)

    def _ending(self, result: Any, failure: BaseException | None, context: Context) -> _Ending:
        if failure is None:
            try:
                return _Ending(_exit_code(result), result, to_lines(result) if context.renderer.journal else ())
            except BaseException as error:  # of the methods of a plugin's result
                failure = error
        if not is_wanted(failure):
            told = failure_of(failure, context.situation(), plugin=self.plugin, settings=context.settings)
            return _Ending(told.exit, failure=told)
        with interruptions() as signals:
            by = f" by {signals.name}" if signals.name else ""
        again = "; run the same command again to continue" if context.renderer.stages else ""
        interrupted = Failure(Exit.INTERRUPTED, "KeyboardInterrupt", f"interrupted{by}{again}")
        return _Ending(Exit.INTERRUPTED, failure=interrupted)

    def _tell(self, ending: _Ending, context: Context) -> int:
        """Show how it has ended; returns the exit code."""
        renderer = context.renderer
        if ending.failure is None:
            try:
                renderer.result(self.name, ending.result)
                return ending.code
            except BaseException as error:  # as in `_ending`
                ending = self._ending(None, error, context)
        assert ending.failure is not None
        if ending.code == Exit.INTERRUPTED:
            with interruptions() as signals:
                signals.told = True
        renderer.failure(ending.failure)
        return ending.code


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


def failure_of(
    error: BaseException, where: Situation, *, plugin: str | None = None, settings: Settings | None = None
) -> Failure:
    """Why a command failed, ready to be shown. `plugin` names whose command it is."""
    if isinstance(error, McumgrError):
        return explain(error, where)
    from ..registry import default_registry

    if plugin is None and (culprit := default_registry().culprit(error)) is not None:
        plugin = culprit.name
    whose = f" in the plugin {plugin!r}" if plugin is not None else ""
    text = f"this is a bug{whose}: {said(error)}"
    return Failure(Exit.BUG, type(error).__name__, text, _report_hint(plugin, settings))


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
