"""Updates from beginning to end: what has to be done to a device, and the doing of it.

::

    from mcumgrx import device, load_image
    from mcumgrx.flows import DfuPolicy, update

    report = await update(device("serial:/dev/ttyACM0"), load_image("app.signed.bin"), DfuPolicy(), print)

Flows know devices by `contracts` alone: no plugin, no session, no client.
"""

from __future__ import annotations

from .device_state import DeviceState
from .dfu import OnPlan, update
from .plan import Plan
from .policy import DfuPolicy, Mode, Unconfirmed
from .report import Ending, Report, StepDone
from .several import make_plan
from .variants import INSTALLER_FIRST

__all__ = [
    "INSTALLER_FIRST",
    "DeviceState",
    "DfuPolicy",
    "Ending",
    "Mode",
    "OnPlan",
    "Plan",
    "Report",
    "StepDone",
    "Unconfirmed",
    "make_plan",
    "update",
]
