"""The addresses of a host on the network, for transports."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from .errors import DeviceNotFound, system_says
from .threads import in_thread


async def resolve(host: str, port: int, kind: socket.SocketKind, timeout_s: float) -> list[tuple[Any, ...]]:
    """The addresses of `host` in the system's order, each as `socket.getaddrinfo` has it.

    Raises `DeviceNotFound` where no host is called so, or nobody says within `timeout_s` seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await in_thread(socket.getaddrinfo, host, port, type=kind)
    except TimeoutError as error:
        raise DeviceNotFound(
            f"the name {host!r} was not resolved in {timeout_s:.3g} s",
            hint="check the name service, or give an IP address",
        ) from error
    except (OSError, UnicodeError) as error:  # UnicodeError: no name can be like that
        raise DeviceNotFound(
            f"no host is known as {host!r} ({system_says(error)})", hint="check the name, or give an IP address"
        ) from error
