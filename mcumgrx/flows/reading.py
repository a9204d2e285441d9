"""Reads what a device says of itself, before an update of it is planned."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from ..contracts import Connection, ImageGroup, OsGroup
from ..errors import ProtocolError
from ..messages.standard import Bootloader
from .device_state import DeviceState, in_recovery
from .job import Job
from .link import now
from .listing import image_list

__all__ = ["read_device"]

T = TypeVar("T")

# For an answer to an optional question: at least so long, and so many times what the image list took, which is the
# longest answer of all.
_OPTIONAL_S = 1.0
_OPTIONAL_TRIPS = 2.0

# A question that was waited for in vain for so long is told.
_TOLD_S = 0.4


async def read_device(job: Job, connection: Connection) -> DeviceState:
    """What the device says of itself. The image list comes first: what follows may stay unanswered for ever."""
    images = connection.group(ImageGroup)
    begin = now()
    state = await image_list(connection)
    patience_s = max(_OPTIONAL_S, _OPTIONAL_TRIPS * (now() - begin))
    params = await _waited_for(job, "buffers", connection.params())
    slots = await _waited_for(job, "slots", connection.optional("slots", images.slots, patience_s))
    ask = connection.group(OsGroup).bootloader
    bootloader = await _waited_for(job, "bootloader", connection.optional("bootloader", ask, patience_s))
    board = None
    policy = job.policy
    recovery = in_recovery(state)  # which has none to tell
    if policy.board is not None or ((policy.package_boards or policy.name_board) and not recovery):
        ask_board = connection.group(OsGroup).board
        board = await _waited_for(job, "board", connection.optional("board", ask_board, patience_s))
    told = Bootloader() if bootloader is None else bootloader
    b0_slot = None
    if job.policy.bootloader:
        ask_slot = connection.group(OsGroup).active_b0_slot
        b0_slot = await _waited_for(job, "bootloader's slot", connection.optional("b0 slot", ask_slot, patience_s))
    reaches, loader = job.device.reaches_bootloader, job.link.loader
    return DeviceState(state, slots, told, params, board, reaches, loader, images.begun(), b0_slot)


async def _waited_for(job: Job, what: str, answer: Awaitable[T | None]) -> T | None:
    """The answer to a question that some devices leave unanswered; a wait in vain is told."""
    begin = now()
    try:
        found = await answer
    except ProtocolError:
        found = None
    if found is None and now() >= begin + _TOLD_S:
        job.note(f"the device does not tell its {what}: {now() - begin:.1f} s without an answer")
    return found
