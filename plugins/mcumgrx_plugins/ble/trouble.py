"""What bleak raises, in our words. Nothing here decides what to do about it."""

from __future__ import annotations

import os
import sys

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakGATTProtocolError,
)

from mcumgrx.plugin_api import ConnectFailed, DeviceNotFound

PAIRING_HINT = (
    "add the option pair=yes; a device that wants a passkey has to be paired in the system's Bluetooth settings. "
    "If it was paired before and its firmware has forgotten that, remove it there first"
)

# A write command that lacks permission is dropped without a word, even where subscribing was allowed.
SILENCE_HINT = (
    "the link is there, but the device has not answered once. If it wants a link that is paired: "
    f"{PAIRING_HINT}. Or its firmware hangs, or another computer or program occupies its SMP server: reset it"
)

STALE_HINT = (
    "if it was just updated, this computer may remember its old services: remove it in the system's Bluetooth "
    "settings, on Linux with bluetoothctl remove, and connect again"
)

_POWERED_OFF_HINT = "switch Bluetooth on; on Linux: bluetoothctl power on, and rfkill unblock bluetooth if that fails"

_ABSENT = {
    BleakBluetoothNotAvailableReason.NO_BLUETOOTH: (
        "this computer has no Bluetooth adapter",
        "plug one in; in a virtual machine or container, pass it through",
    ),
    BleakBluetoothNotAvailableReason.NO_BLE_CENTRAL_ROLE: (
        "the Bluetooth adapter of this computer cannot do Bluetooth LE",
        "use another adapter, and name it with the option adapter=hci1",
    ),
    BleakBluetoothNotAvailableReason.POWERED_OFF: ("the Bluetooth adapter is switched off", _POWERED_OFF_HINT),
    BleakBluetoothNotAvailableReason.DENIED_BY_USER: (
        "this program may not use Bluetooth",
        "allow it for your terminal in the system's privacy settings",
    ),
}
_BUS_HINT = "start dbus and bluetoothd; in a container, mount /run/dbus/system_bus_socket"
SERVICE_HINT = (
    "install BlueZ and start it: sudo systemctl start bluetooth; 'systemctl status bluetooth' says why it ended"
)

# ATT errors by which a device refuses a link that is not encrypted or not authenticated enough.
_SECURITY_CODES = (0x05, 0x08, 0x0C, 0x0F)

# ATT errors of a handle that is not that of the characteristic any more, and how a D-Bus says that an object is gone.
_STALE_CODES = (0x01, 0x0A)
_OBJECT_GONE = (".UnknownObject", ".UnknownMethod")

# What BlueZ answers while somebody else, or BlueZ itself, is busy with the same device: a program that connects to it
# at the same moment, or asks for its MTU.
_BUSY = (".InProgress", ".Busy")
_PASSING = (
    *("in progress", "busy", "acquired", "connection-canceled", "temporarily unavailable"),
    *("abort-by-local", "caused connection abort"),  # the radio was disturbed: the next attempt often succeeds
)

# D-Bus errors of calls to a service that nobody has the name of: killed, stopped, or failing to start.
_NOBODY = (
    *("ServiceUnknown", "NameHasNoOwner", "NoReply", "TimedOut", "Timeout", "NoServer", "Disconnected"),
    *("NoSuchUnit", "LoadFailed", "UnitMasked"),
)
_NOT_STARTED = ("org.freedesktop.DBus.Error.Spawn.", "org.freedesktop.systemd1.")

# D-Bus errors of BlueZ on pairing; what comes behind the last dot.
_PAIRING_FAILED = (
    "AuthenticationCanceled",
    "AuthenticationFailed",
    "AuthenticationRejected",
    "AuthenticationTimeout",
)


def forgotten(error: BaseException) -> bool:
    """Whether the system no longer knows the device that a scan had found: BlueZ does so after 30 seconds."""
    if isinstance(error, BleakDeviceNotFoundError):
        return True
    # bleak's BlueZ backend says this in a plain BleakError, before it asks BlueZ anything.
    return str(error).startswith("device 'dev_") and str(error).endswith("not found")


def stale(error: BaseException) -> bool:
    """Whether the device no longer has the characteristic that the system had found: its services have changed."""
    if isinstance(error, BleakGATTProtocolError):
        return int(error.code) in _STALE_CODES
    return isinstance(error, BleakDBusError) and error.dbus_error.endswith(_OBJECT_GONE)


def wants_pairing(error: BaseException) -> bool:
    """Whether the device refuses because the link is not secure enough."""
    if isinstance(error, BleakGATTProtocolError):
        return int(error.code) in _SECURITY_CODES
    if isinstance(error, BleakDBusError):
        return error.dbus_error.endswith((".NotPermitted", ".NotAuthorized")) and "acquired" not in str(error)
    return "insufficient" in str(error).lower() or "access is denied" in str(error).lower()


def unlinked(error: BaseException) -> bool:
    """Whether BlueZ says that there is no link, whatever bleak thinks."""
    if not isinstance(error, BleakDBusError):
        return False
    return error.dbus_error.endswith(".NotConnected") or error.dbus_error_details == "Not connected"


def passing(error: BaseException) -> bool:
    """Whether the next attempt may succeed, a moment later."""
    if not isinstance(error, BleakDBusError):
        return False
    text = (error.dbus_error_details or "").lower()
    return error.dbus_error.endswith(_BUSY) or any(words in text for words in _PASSING)


def nobody(error: BaseException) -> bool:
    """Whether it says that there is no Bluetooth service any more, or no D-Bus to reach it by."""
    if isinstance(error, BleakDBusError):
        name = error.dbus_error
        ours = name.startswith("org.freedesktop.") and name.rpartition(".")[2] in _NOBODY
        return ours or name.startswith(_NOT_STARTED)
    if isinstance(error, PermissionError | TimeoutError):
        return False
    # The D-Bus library passes on whatever its socket comes to, after it was closed "Bad file descriptor". What Windows
    # raises an OSError for is of its own kind.
    return sys.platform == "linux" and isinstance(error, EOFError | OSError)


def hopeless(error: BaseException) -> bool:
    """Whether Bluetooth itself does not work here, so that another attempt at the device makes no sense."""
    return _system_trouble(error) is not None


def translated(error: BaseException, what: str, timeout_s: float = 0.0) -> ConnectFailed | DeviceNotFound:
    """The error for `what` ("the device Widget") that could not be reached because of `error`."""
    trouble = _system_trouble(error)
    if trouble is not None:
        said, hint = trouble
        return ConnectFailed(said, hint=hint)
    if forgotten(error):
        return DeviceNotFound(f"{what} is no longer there", hint="is it switched on, near, and advertising?")
    if isinstance(error, BleakDBusError) and error.dbus_error.endswith(_PAIRING_FAILED):
        return ConnectFailed(
            f"{what} could not be paired: {_said(error)}",
            hint="pair it in the system's Bluetooth settings, where a passkey can be entered; "
            "a pairing that only one side remembers has to be removed first",
        )
    if passing(error):
        return ConnectFailed(
            f"{what} could not be connected: {_said(error)}",
            hint="another program on this computer may be using it, or connecting to it: wait until it is done, or "
            "close it",
        )
    if wants_pairing(error):
        return ConnectFailed(f"{what} demands pairing ({_said(error)})", hint=PAIRING_HINT)
    if stale(error):
        return ConnectFailed(
            f"{what} does not have the SMP characteristic where it should be ({_said(error)})",
            hint=STALE_HINT,
        )
    if isinstance(error, TimeoutError):
        return ConnectFailed(
            f"{what} did not connect within {timeout_s:.3g} s",
            hint="is it near, and does it accept connections? A device that another one is connected to does not",
        )
    return ConnectFailed(
        f"{what} could not be connected: {_said(error)}",
        hint="try again; if it stays so, switch Bluetooth off and on",
    )


def _system_trouble(error: BaseException) -> tuple[str, str] | None:
    """What is wrong with Bluetooth on this computer, and what to do about it; None when it is not that."""
    if isinstance(error, BleakBluetoothNotAvailableError):
        return _ABSENT.get(error.reason) or _denied()
    if isinstance(error, PermissionError):
        return _denied()
    if sys.platform == "linux" and isinstance(error, EOFError):
        return "the system's D-Bus, through which Bluetooth is reached, has ended the connection", _BUS_HINT
    # Windows raises OSError for all and everything.
    if sys.platform == "linux" and isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return (
            f"the system's D-Bus, through which Bluetooth is reached, does not answer ({error.strerror or error})",
            _BUS_HINT,
        )
    if isinstance(error, BleakDBusError):
        if nobody(error):
            return "the Bluetooth service of this computer (bluetoothd) does not run", SERVICE_HINT
        name = error.dbus_error.rpartition(".")[2]
        if name == "AccessDenied":
            return _denied()
        if name == "NotReady":
            return "the Bluetooth adapter is switched off", _POWERED_OFF_HINT
    text = str(error)
    if text.startswith("adapter '") and text.endswith("not found"):
        said = f"this computer has no Bluetooth {text.removesuffix(' not found')}"
        return said, "'bluetoothctl list' shows those there are"
    return None


def _denied() -> tuple[str, str]:
    said = "you may not use Bluetooth on this computer"
    if sys.platform != "linux":
        return said, "allow it for your terminal in the system's privacy settings"
    return said, group_advice(*_membership())


def group_advice(there: bool, ours: bool, listed: bool) -> str:
    """What gives the right to use BlueZ, which D-Bus gives to the group bluetooth (Debian) or to everybody.

    Arguments:
        there: whether the system has that group.
        ours: whether this process has its rights.
        listed: whether the user is a member of it, in this session or from the next on.
    """
    if there and not (ours or listed):
        return "join the group bluetooth: sudo usermod -aG bluetooth $USER, then log in again"
    if there and not ours:
        return "you are in the group bluetooth, but this session is older than that: log in again"
    why = "you are in the group bluetooth already" if there else "this system has no group bluetooth to join"
    return (
        f"{why}, so something else forbids it: a container, a sandbox (Flatpak, Snap), a security module, or the "
        "rules for org.bluez in /etc/dbus-1/system.d and /usr/share/dbus-1/system.d"
    )


def _membership() -> tuple[bool, bool, bool]:
    """See `group_advice`."""
    import grp  # not on Windows
    import pwd

    try:
        group = grp.getgrnam("bluetooth")
    except (KeyError, OSError):
        return False, False, False
    try:
        listed = pwd.getpwuid(os.geteuid()).pw_name in group.gr_mem
    except (KeyError, OSError):
        listed = False
    return True, group.gr_gid in (os.getegid(), *os.getgroups()), listed


def _said(error: BaseException) -> str:
    if isinstance(error, BleakDBusError):
        return error.dbus_error_details or error.dbus_error
    return str(error.args[-1]) if error.args else type(error).__name__
