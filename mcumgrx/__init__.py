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

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .address import Address as Address
    from .blocking import BlockingDevice as BlockingDevice
    from .blocking import open as open
    from .client import Client as Client
    from .contracts import HealthCheck as HealthCheck
    from .contracts import OnTrial as OnTrial
    from .contracts import OutsideCheck as OutsideCheck
    from .errors import ConnectFailed as ConnectFailed
    from .errors import DeviceError as DeviceError
    from .errors import DeviceNotFound as DeviceNotFound
    from .errors import FlowError as FlowError
    from .errors import FramingError as FramingError
    from .errors import ImageError as ImageError
    from .errors import LinkLost as LinkLost
    from .errors import MalformedReply as MalformedReply
    from .errors import McumgrError as McumgrError
    from .errors import MessageTooLarge as MessageTooLarge
    from .errors import PlanRefused as PlanRefused
    from .errors import PluginError as PluginError
    from .errors import ProtocolError as ProtocolError
    from .errors import RequestTimeout as RequestTimeout
    from .errors import TransferStuck as TransferStuck
    from .errors import TransportError as TransportError
    from .errors import UploadMismatch as UploadMismatch
    from .errors import UsageError as UsageError
    from .errors import WrongDevice as WrongDevice
    from .flows import DfuPolicy as DfuPolicy
    from .flows import Ending as Ending
    from .flows import Mode as Mode
    from .flows import OnPlan as OnPlan
    from .flows import Plan as Plan
    from .flows import Report as Report
    from .flows import StepDone as StepDone
    from .flows import Unconfirmed as Unconfirmed
    from .mcuboot import Image as Image
    from .mcuboot import load_image as load_image
    from .memory import Memory as Memory
    from .pause import Pause as Pause
    from .registry import Registry as Registry
    from .registry import Roles as Roles
    from .session import SessionDevice as SessionDevice
    from .session import connect as connect
    from .session import device as device
    from .updating import update as update

# What a newcomer needs first comes first.
_LATE = {
    "session": "connect device SessionDevice",
    "updating": "update",
    "blocking": "BlockingDevice open",
    "mcuboot": "Image load_image",
    "address": "Address",
    "client": "Client",
    "flows": "DfuPolicy Ending Mode OnPlan Plan Report StepDone Unconfirmed",
    "contracts": "HealthCheck OnTrial OutsideCheck",
    "memory": "Memory",
    "pause": "Pause",
    "registry": "Registry Roles",
    "errors": "ConnectFailed DeviceError DeviceNotFound FlowError FramingError ImageError LinkLost MalformedReply "
    "McumgrError MessageTooLarge PlanRefused PluginError ProtocolError RequestTimeout TransferStuck TransportError "
    "UploadMismatch UsageError WrongDevice",
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _LATE.items() for name in names.split()}

if not TYPE_CHECKING:  # for which each `X as X` above says that it is public
    __all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
