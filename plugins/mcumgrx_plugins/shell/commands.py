"""The commands `mcumgrx shell …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcumgrx.plugin_api import Argument, CliContext, DeviceError, Note, RequestTimeout, cli_command

# Of mcumgrx, for a command that ran on the device and failed; what it returned itself can be negative.
_REMOTE_FAILED = 13


# -- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunResult:
    """A command that ran: its line as it was sent, what it wrote as it came, and the exit status it returned."""

    line: str
    output: str
    status: int

    @property
    def exit_code(self) -> int:
        return _REMOTE_FAILED if self.status else 0

    def lines(self) -> list[str]:
        from .messages import plain_text

        return plain_text(self.output).splitlines()


@cli_command(
    Argument("command", "the command and its arguments; a single one is taken as a whole line", many=True),
    epilog="""
    mcumgrx shell run kernel version -d serial:/dev/ttyACM0
    mcumgrx shell run "kernel version" -d serial:/dev/ttyACM0
    mcumgrx shell run -d /dev/ttyACM0 -- log enable dbg -v
    """,
)
async def run(context: CliContext, command: Sequence[str]) -> RunResult:
    """Run a command in the device's shell and print what it writes.

    Arguments with spaces reach it as one. Options for it, and not for mcumgrx, go behind --. If the command returns
    anything but 0, mcumgrx ends with the exit code 13, and --json tells the exact status. The device answers
    nothing else meanwhile, and cuts long output.
    """
    from .group import ShellGroup
    from .messages import quoted

    async with context.connect() as client:
        group = client.group(ShellGroup)
        if len(command) == 1:
            line = command[0]
            done = await group.run_line(line)
        else:
            line = " ".join(quoted(command))
            done = await group.run(command)
    if done.status:
        context.progress(Note(_failed(done.status), warning=True))
    return RunResult(line, done.text, done.status)


def _failed(status: int) -> str:
    return f"the command returned {status}"


# -- open -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenResult:
    """How many commands ran, and the exit status of the last one."""

    commands: int
    status: int

    @property
    def exit_code(self) -> int:
        return _REMOTE_FAILED if self.status else 0

    def lines(self) -> list[str]:
        return []


@cli_command(
    epilog="""
    mcumgrx shell open -d serial:/dev/ttyACM0
    mcumgrx shell open -d /dev/ttyACM0 < commands.txt
    """
)
async def open_shell(context: CliContext) -> OpenResult:
    """Type commands for the device's shell, one a line; Ctrl-D ends it.

    Every line is sent when it is complete, so the device's own editing and completion do not work; arrow keys recall
    earlier lines. From a pipe or file the lines are run one after the other. The exit code is that of the last one.
    """
    from .console import Console
    from .group import ShellGroup
    from .messages import plain_text

    commands = status = 0
    with context.standard_output(), Console() as console:
        async with context.connect() as client:
            group = client.group(ShellGroup)
            if console.is_terminal:
                context.progress(Note("every line is run by the device's shell; Ctrl-D ends"))
            while (line := await console.line("device:~$ ")) is not None:
                line = line.strip()
                if not line:
                    continue
                try:
                    done = await group.run_line(line)
                except (DeviceError, RequestTimeout) as error:
                    # Nobody is there to type it again when it comes from a pipe.
                    if not console.is_terminal:
                        raise
                    hint = f" ({error.hint})" if error.hint else ""
                    context.progress(Note(f"{error}{hint}", warning=True))
                    continue
                commands, status = commands + 1, done.status
                console.show(plain_text(done.text))
                if status:
                    context.progress(Note(_failed(status), warning=True))
            console.end_line()
    return OpenResult(commands, status)
