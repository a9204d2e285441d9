"""`CliContext` as the command line gives it to the functions of commands."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TextIO

from ..errors import UsageError
from ..events import DeviceText, Event, Note, Progress, StageName
from .arguments import Settings
from .exit_codes import Situation
from .render import Renderer
from .streams import streams, write_text
from .text import printable

if TYPE_CHECKING:
    from ..client import Client
    from ..plugin_api import GroupPlugin
    from ..session import SessionDevice

device_log = logging.getLogger("mcumgrx.device")


class Context:
    """What a command's function gets (`mcumgrx.plugin_api.CliContext`), and a little more for core commands."""

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
        for line in text.splitlines():
            device_log.info("%s", line)
        if self.settings.device_log:
            self.renderer.event(DeviceText(text))

    @property
    def groups(self) -> Mapping[int, GroupPlugin]:
        from ..registry import default_registry

        return default_registry().groups

    @property
    def has_device(self) -> bool:
        return bool(self.settings.device)

    @property
    def device(self) -> SessionDevice:
        if not self.settings.device:
            raise no_device(self.settings.device)
        return self.device_at(self.settings.device)

    def device_at(self, named: str) -> SessionDevice:
        """The device at an address, reached as all of this command are."""
        from .. import session
        from ..address import Address
        from ..memory import Memory
        from ..registry import default_registry

        address = Address.parse(named)
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
        asked = self._clients  # that of a flow is its own: there the stages tell
        last = self.renderer.last_bytes
        return Situation(
            command=self.command,
            scheme=self._scheme,
            heard=any(client.last_heard_s is not None for client in self._clients),
            answered=any(client.answered for client in asked) if asked else bool(set(self.renderer.stages) - early),
            sent=None if last is None else last.done - last.resumed_from,
            options=self.settings.reaching,
            environment=self.settings.environment,
        )


def no_device(given: str | None) -> UsageError:
    from ..registry import default_registry

    examples = [one.example for one in dict.fromkeys(default_registry().transports.values()) if one.example]
    named = " or ".join(f"-d {example}" for example in examples[:3]) or "-d sim:"
    hint = f"name one, for example {named}; 'mcumgrx scan' shows what there is. Or set MCUMGRX_DEVICE"
    return UsageError("the address of the device is empty" if given == "" else "no device is given", hint=hint)


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
