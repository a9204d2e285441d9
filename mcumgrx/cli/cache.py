"""`mcumgrx cache`: what is remembered of devices from one command to the next, to be seen and to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..plugin_api import Argument, CliContext, cli_command
from .tables import Row, Table, table_lines

if TYPE_CHECKING:
    from ..memory import Known

_TITLES = ("DEVICE", "LINK", "MESSAGE", "LOST FROM", "ERASE", "USED")


@dataclass(frozen=True, slots=True)
class CacheContent:
    """All that is remembered, or all of one device; those used last at the end."""

    path: str
    devices: tuple[Known, ...]

    def lines(self) -> list[str]:
        if not self.devices:
            return ["nothing is remembered"]
        return table_lines(Table(_TITLES, tuple(_row(one) for one in self.devices)))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What has been removed."""

    path: str
    removed: tuple[Known, ...]

    def lines(self) -> list[str]:
        return [f"forgotten: {one.id} over {one.link}" for one in self.removed] or ["nothing was remembered"]


@cli_command(Argument("id", "of this device alone", required=False), needs_device=False)
async def show_cache(context: CliContext, id: str | None) -> CacheContent:
    """Show what is remembered of devices, so that the next transfer need not find it out.

    MESSAGE is the largest message that has arrived, LOST FROM the size from which on they got lost, ERASE the longest
    time for the answer to the first chunk of an upload.
    """
    from ..memory import Memory
    from ..threads import in_thread

    memory = Memory()
    devices = await in_thread(memory.known)
    return CacheContent(str(memory.path), tuple(one for one in devices if id in (None, one.id)))


@cli_command(Argument("id", "of this device alone", required=False), needs_device=False)
async def clear_cache(context: CliContext, id: str | None) -> Forgotten:
    """Forget what is remembered of a device, or of all. It is found out again when it is needed."""
    from ..memory import Memory
    from ..threads import in_thread

    memory = Memory()
    removed = await in_thread(memory.forget, id)
    return Forgotten(str(memory.path), tuple(removed))


def _row(known: Known) -> Row:
    learned = known.learned
    erase = "-" if learned.erase_s is None else f"{learned.erase_s:.1f} s"
    used = f"{datetime.fromtimestamp(known.used, UTC):%Y-%m-%d}"
    return Row((known.id, known.link, _bytes(learned.message_bytes), _bytes(learned.refused_bytes), erase, used))


def _bytes(size: int | None) -> str:
    return "-" if size is None else f"{size} B"
