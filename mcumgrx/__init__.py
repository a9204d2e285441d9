"""mcumgrx: manage Zephyr, MCUboot and Mynewt devices over SMP, the MCUmgr protocol.

::

    import asyncio, mcumgrx
    from mcumgrx.contracts import OsGroup

    async def main():
        async with mcumgrx.connect("sim:") as client:
            print(await client.group(OsGroup).echo("hello"))

    asyncio.run(main())

Public names are resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .address import Address
    from .client import Client
    from .contracts import HealthCheck, OnTrial, OutsideCheck
    from .errors import (
        ConnectFailed,
        DeviceError,
        DeviceNotFound,
        FlowError,
        FramingError,
        ImageError,
        LinkLost,
        MalformedReply,
        McumgrError,
        MessageTooLarge,
        PlanRefused,
        PluginError,
        ProtocolError,
        RequestTimeout,
        TransferStuck,
        TransportError,
        UploadMismatch,
        UsageError,
        WrongDevice,
    )
    from .flows import DfuPolicy, Ending, Mode, OnPlan, Plan, Report, StepDone, Unconfirmed
    from .mcuboot import Image, load_image
    from .memory import Memory
    from .pause import Pause
    from .registry import Registry, Roles
    from .session import SessionDevice, connect, device
    from .updating import update

_LATE = {
    "Address": "address",
    "Client": "client",
    "DfuPolicy": "flows",
    "Ending": "flows",
    "HealthCheck": "contracts",
    "Image": "mcuboot",
    "Memory": "memory",
    "Mode": "flows",
    "OnPlan": "flows",
    "OnTrial": "contracts",
    "OutsideCheck": "contracts",
    "Plan": "flows",
    "Registry": "registry",
    "Report": "flows",
    "Roles": "registry",
    "SessionDevice": "session",
    "StepDone": "flows",
    "Unconfirmed": "flows",
    "Pause": "pause",
    "connect": "session",
    "device": "session",
    "load_image": "mcuboot",
    "update": "updating",
    # The whole tree of exceptions.
    "ConnectFailed": "errors",
    "DeviceError": "errors",
    "DeviceNotFound": "errors",
    "FlowError": "errors",
    "FramingError": "errors",
    "ImageError": "errors",
    "LinkLost": "errors",
    "MalformedReply": "errors",
    "McumgrError": "errors",
    "MessageTooLarge": "errors",
    "PlanRefused": "errors",
    "PluginError": "errors",
    "ProtocolError": "errors",
    "RequestTimeout": "errors",
    "TransferStuck": "errors",
    "TransportError": "errors",
    "UploadMismatch": "errors",
    "UsageError": "errors",
    "WrongDevice": "errors",
}

__all__ = [  # noqa: RUF022 - what a newcomer needs first comes first
    "connect",
    "device",
    "load_image",
    "update",
    "Address",
    "Client",
    "DfuPolicy",
    "Ending",
    "HealthCheck",
    "Image",
    "Memory",
    "Mode",
    "OnPlan",
    "OnTrial",
    "OutsideCheck",
    "Pause",
    "Plan",
    "Registry",
    "Report",
    "Roles",
    "SessionDevice",
    "StepDone",
    "Unconfirmed",
    "ConnectFailed",
    "DeviceError",
    "DeviceNotFound",
    "FlowError",
    "FramingError",
    "ImageError",
    "LinkLost",
    "MalformedReply",
    "McumgrError",
    "MessageTooLarge",
    "PlanRefused",
    "PluginError",
    "ProtocolError",
    "RequestTimeout",
    "TransferStuck",
    "TransportError",
    "UploadMismatch",
    "UsageError",
    "WrongDevice",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
