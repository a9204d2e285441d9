"""`find_message_size`: with how large messages a transfer should begin, found out before the device erases anything.

It is path-MTU probing (RFC 8899) with an echo, where a device tells more than it can put together.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from .client import Client
from .errors import DeviceError, MalformedReply, MessageTooLarge, RequestTimeout
from .messages.standard import Probe
from .protocol.codes import SmpError
from .transfer.sizes import probe_sizes

# How long a probe may take, beside the time on the air.
_PROBE_S = 1.0


async def find_message_size(client: Client, largest: int, least: int, *, harmless: bool = False) -> int:
    """The size of message, up to `largest`, with which a transfer over `client` should begin.

    What one write or line carries needs no proof. Anything larger is tried with an echo of that size, so that what a
    device cannot put together shows before it erases anything, and the next smaller one of `probe_sizes` after that.
    Once found it is known for this connection, and a size that an earlier one saw refused is not tried again
    (`Learned.refuses`).

    `harmless`: a first message that does not arrive is only sent again, smaller. Then it shows by itself whether one of
    its size arrives, where that is likely: the device has taken one before, or the link carries all or nothing of what
    the device says that it has room for.

    Raises `RequestTimeout` when nothing is answered, `MessageTooLarge` when nothing works that is large enough for the
    transfer, `LinkLost`.
    """
    profile, safe = client.profile, client.limits.safe_message
    learned, params = profile.learned, await client.params()
    learned.meets(client.limits.message(None if params is None else params.buf_size))
    if largest <= max(safe, profile.proven_bytes):
        return largest
    if harmless and _likely(client, largest):
        return largest
    if learned.refuses(largest):
        # What lies between is not tried either: each attempt costs a time-out.
        largest = max(safe, least, learned.message_bytes or 0)
        profile.refused_bytes = largest + 1
        if largest <= max(safe, profile.proven_bytes):
            return largest
    found = await _probe(client, probe_sizes(largest, safe, least))
    if found.size is not None:
        _keep(client, found)
        return found.size
    if least > safe and client.last_heard_s is not None:
        raise MessageTooLarge(
            f"a write of {safe} bytes is too small for the first chunk of a transfer, and the device does not put "
            "several together",
            size=least,
            limit=safe,
            hint="raise the link's MTU, or enable reassembly in the device (CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY)",
        )
    if found.silence is not None:
        raise found.silence
    return least


def _likely(client: Client, size: int) -> bool:
    """Whether a message of this size arrives, as far as can be told without trying."""
    profile = client.profile
    if profile.learned.refuses(size) or (profile.refused_bytes is not None and profile.refused_bytes <= size):
        return False
    return (profile.learned.message_bytes or 0) >= size or (client.flow.paced and profile.params is not None)


@dataclass(slots=True)
class _Found:
    """What probing has shown. `size` is what arrives, `refused` the smallest that is too large."""

    size: int | None = None
    refused: int | None = None
    silence: RequestTimeout | None = None


async def _probe(client: Client, sizes: list[int]) -> _Found:
    """Try these sizes, the largest first, until one arrives."""
    found = _Found()
    # What is not answered may lie in the device, which may be busy for once. Where one too many does harm, no more are
    # sent in a row than there is room for, and the last of them is waited for like any other request.
    most = room = client.profile.receive_buffers if client.flow.strict else len(sizes) * 2
    for size in sizes:
        repeats = 1 if room > 2 else 0
        room -= 1 + repeats
        try:
            arrives = await _echoes(client, size, repeats=repeats, patient=room < 1 or size == sizes[-1])
        except RequestTimeout as error:
            found.silence, arrives = error, False
            if found.refused is None and size != sizes[-1]:
                # Was it the size, or does the device answer nothing? If it does, it may have had a bad moment.
                try:
                    await _echoes(client, sizes[-1], patient=True)
                except RequestTimeout as silence:
                    return _Found(silence=silence)
                with suppress(RequestTimeout):
                    arrives = await _echoes(client, size, repeats=0)
                room = most - 1
        if arrives:
            found.size = size
            break
        found.refused = size
    return found


def _keep(client: Client, found: _Found) -> None:
    """For the transfers on this connection, and for the next one. Only what has been answered says anything."""
    assert found.size is not None
    profile, limits, refused = client.profile, client.limits, found.refused
    if refused is not None:
        if limits.write is not None and found.size <= limits.safe_message < refused:
            refused = limits.safe_message + 1  # what takes two writes is not put together, however short the second is
        profile.refused_bytes = profile.learned.refused_bytes = refused
    profile.proves(found.size)
    profile.learned.message_bytes = found.size


async def _echoes(client: Client, size: int, *, repeats: int = 1, patient: bool = False) -> bool:
    """Whether a message of this size comes back; false where the device says that only a part of it has arrived.

    Raises `RequestTimeout` when nothing comes.
    """
    begin = asyncio.get_running_loop().time()
    timeout_s = client.timeout_s if patient else min(_PROBE_S, client.timeout_s)
    try:
        # The answer is as large.
        await client.request(
            Probe(size), timeout_s=timeout_s + client.air_s(size), repeats=None if patient else repeats
        )
    except DeviceError as error:
        # No reassembly, or a datagram that was cut. Any other refusal has read the whole.
        if error.says(SmpError.CORRUPT):
            return False
    except MalformedReply:
        pass  # an answer all the same
    client.profile.round_trip(asyncio.get_running_loop().time() - begin)
    return True
