"""Why a port may not be opened by this user, and what gives the right: told from the port's owner, group and mode."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass

if sys.platform != "win32":
    import grp
    import pwd


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may open a port, and who asks.

    Attributes:
        path: of the port.
        group: its group; None where the number has no name.
        for_group: whether the mode lets the group read and write.
        mode: the permission bits.
        in_group: this process has the group's rights.
        listed: the user is a member of the group, in this session or from the next on.
    """

    path: str
    group: str | None
    for_group: bool
    mode: int
    in_group: bool
    listed: bool


def advice(rights: Rights) -> str:
    """What to do, such that it can help."""
    group = rights.group
    if not rights.for_group:
        return (
            f"its mode ({rights.mode:04o}) lets no group use it: a udev rule can give it one "
            f'(GROUP="…", MODE="0660"); until it is plugged in again, sudo chmod a+rw {rights.path} helps'
        )
    if rights.in_group:
        return "its group is yours already, so something else forbids it: a container, a sandbox or a security module"
    if rights.listed:
        return f"you are in its group {group}, but this session is older than that: log in again"
    if group in (None, "root", "wheel", "sudo"):
        whose = "has no name" if group is None else f"is {group}, which gives far more than a port"
        return f'its group {whose}: a udev rule can give it another one (GROUP="dialout", MODE="0660")'
    return f"join the group that owns it: sudo usermod -aG {group} $USER, then log in again"


def port_advice(path: str) -> str | None:
    """What to do about the port at `path`; None where the system does not tell. May ask for groups on the network."""
    if sys.platform == "win32":
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    group: str | None = None
    members: tuple[str, ...] = ()
    try:
        entry = grp.getgrgid(status.st_gid)
        group, members = entry.gr_name, tuple(entry.gr_mem)
    except (KeyError, OSError):
        pass
    try:
        user: str | None = pwd.getpwuid(os.geteuid()).pw_name
    except (KeyError, OSError):
        user = None
    both = stat.S_IRGRP | stat.S_IWGRP
    in_group = status.st_gid in (os.getegid(), *os.getgroups())
    return advice(
        Rights(path, group, status.st_mode & both == both, stat.S_IMODE(status.st_mode), in_group, user in members)
    )
