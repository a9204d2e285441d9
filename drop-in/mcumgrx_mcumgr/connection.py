"""Which device: `--conntype` and `--connstring` as an address of mcumgrx. Nothing is opened here.

The forms are those of mynewt-newtmgr (`newtmgr/config`). What they say of buffers and of the radio's own address is
read and passed over: mcumgrx asks the device, and leaves the other to the system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from mcumgrx.address import Address
from mcumgrx.errors import UsageError

# The last is for what the others cannot say: `--conntype address --connstring usb:2fe3:0004`.
ADDRESS = "address"

_IN_BRACKETS = re.compile(r"\[([^:\[\]]+)\](.*)")


def address_of(conntype: str, connstring: str, *, hci: int | None = None, name: str = "") -> Address:
    """The address of the device; `hci` and `name` are for Bluetooth LE alone. Raises `UsageError`."""
    if not conntype:
        raise UsageError("No connection type specified", hint=f"--conntype {'|'.join(CONNTYPES)}, or a profile with -c")
    if conntype == "ble":
        return _ble(connstring, hci, name)
    return _read(conntype)(connstring)


def check_conntype(conntype: str) -> None:
    """Raises `UsageError` for one that there is not."""
    _read(conntype)


def _read(conntype: str) -> Callable[[str], Address]:
    if conntype not in CONNTYPES:
        raise UsageError(f"Invalid connection type: {conntype}", hint=f"there are {', '.join(CONNTYPES)}")
    return CONNTYPES[conntype]


def _serial(connstring: str) -> Address:
    """`dev=PORT,baud=N,mtu=N`, or the port alone in the place of `dev=`."""
    found = _pairs(connstring, ("dev", "baud", "mtu"), bare="dev")
    if not found.get("dev"):
        raise UsageError("the connstring names no serial port", hint="--connstring dev=/dev/ttyACM0,baud=115200")
    return Address("serial", found["dev"], {key: found[key] for key in ("baud",) if key in found})


def _ble(connstring: str, hci: int | None = None, name: str = "") -> Address:
    """`peer_name=NAME` or `peer_id=ADDRESS`, and `ctlr_name=hci0`."""
    known = ("ctlr_name", "own_addr_type", "peer_id", "peer_name", "conn_timeout")
    found = _pairs(connstring, known) if connstring.strip() else {}
    target = name or found.get("peer_name") or found.get("peer_id")
    if not target:
        raise UsageError("the connstring names no device", hint="--connstring peer_name=NAME or peer_id=ADDRESS")
    adapter = f"hci{hci}" if hci is not None else found.get("ctlr_name")
    return Address("ble", target, {"adapter": adapter} if adapter else {})


def _udp(connstring: str) -> Address:
    """`HOST:PORT`, `[IPV6]:PORT`; Go takes brackets around an IPv4 address and a name, too."""
    found = _IN_BRACKETS.fullmatch(connstring)
    return Address("udp", connstring if found is None else found[1] + found[2])


CONNTYPES: dict[str, Callable[[str], Address]] = {
    "serial": _serial,
    "ble": _ble,
    "udp": _udp,
    ADDRESS: Address.parse,
}


def _pairs(connstring: str, known: Collection[str], bare: str | None = None) -> dict[str, str]:
    """The values of `KEY=VALUE,…` without the quotes that a shell may have left; `bare` is the key of what has none."""
    found: dict[str, str] = {}
    for part in connstring.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals and bare is not None:
            key, value = bare, key
        elif not equals:
            raise UsageError(f"Invalid connstring; expected comma-separated key=value pairs; no '=' in: {part}")
        if key not in known:
            raise UsageError(f"Invalid connstring; Unrecognized key: {key}", hint=f"there are {', '.join(known)}")
        found[key] = value.strip("'\"")
    return found
