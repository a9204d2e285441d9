"""`ShellGroup`: the command of group 9 over a client."""

from __future__ import annotations

from collections.abc import Sequence

from mcumgrx.plugin_api import Group, Hint, MalformedReply, RequestTimeout, SmpError, explaining

from .messages import Execute, ShellOutput, quoted

_OVERFLOW = (
    "the command did run, but what it wrote does not fit the device's buffer and is lost: "
    "raise CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE or lower CONFIG_SHELL_BACKEND_DUMMY_BUF_SIZE in its firmware"
)
_MISSING = "its firmware was built without CONFIG_MCUMGR_GRP_SHELL; MCUboot's recovery has no shell"
_INVALID = "the line may be too long for the device, which takes 255 characters unless it was built otherwise"
_HINTS = ((SmpError.MESSAGE_SIZE, _OVERFLOW), (SmpError.NOT_SUPPORTED, _MISSING), (SmpError.INVALID, _INVALID))
_UNREADABLE = "the command has run, most likely: look at what it should do before it is run again"
_SILENT = "the command may still be running: allow it more time with --timeout SECONDS"


class ShellGroup(Group):
    """Group 9 of a connected device. Every method raises the errors of `Client.request`."""

    async def run(self, argv: Sequence[str], *, timeout_s: float | None = None) -> ShellOutput:
        """Run a command; each of `argv` is one word for it, whatever characters it has.

        An exit status other than 0 is no error. It is asked once, never repeated: without an answer the command may
        have run, or be running still.
        """
        return await self._execute(quoted(argv), timeout_s)

    async def run_line(self, line: str, *, timeout_s: float | None = None) -> ShellOutput:
        """Run a command line as it would be typed into the shell."""
        # Joined with one space each, it is the same line again; servers expect words.
        return await self._execute(tuple(line.split(" ")), timeout_s)

    async def _execute(self, argv: tuple[str, ...], timeout_s: float | None) -> ShellOutput:
        try:
            with explaining(*_HINTS):
                return await self.request(Execute(argv), timeout_s=timeout_s)
        except RequestTimeout as error:
            error.hint = error.hint or _SILENT
            raise
        except MalformedReply as error:
            error.hint = Hint(_UNREADABLE, "; ", error.hint) if error.hint else _UNREADABLE
            raise
