"""`mcumgrx.update`: an update of a device that is named or reached in any way."""

from __future__ import annotations

from collections.abc import Mapping

from .address import Address
from .contracts import Device
from .events import Progress, ignore_progress
from .flows import DfuPolicy, OnPlan, Report
from .flows import update as update_device
from .mcuboot import Image
from .pause import Pause
from .session import device as made_device
from .transport import Transport


async def update(
    device: str | Address | Transport | Device,
    image: Image | Mapping[int, Image],
    policy: DfuPolicy = DfuPolicy(),  # noqa: B008 - immutable
    progress: Progress = ignore_progress,
    *,
    on_plan: OnPlan | None = None,
    pause: Pause | None = None,
) -> Report:
    """Bring `image` onto a device; see `mcumgrx.flows.update`.

    The device is an address, a `Transport` of your own that is not open, or one that `mcumgrx.device` has made, which
    is where time-outs, memory and roles are named.
    """
    found = made_device(device) if isinstance(device, str | Address | Transport) else device
    return await update_device(found, image, policy, progress, on_plan=on_plan, pause=pause)
