"""The number in `Error: N`: that of SMP version 1, which is what Apache's program asks in and its callers know.

mcumgrx asks in version 2, in which each group has codes of its own. Servers translate them for version 1 by the tables
here (Zephyr `os_mgmt.c`, `img_mgmt.c`, `stat_mgmt.c`, `fs_mgmt.c`, `shell_mgmt.c`, their `…_translate_error_code`).
"""

from __future__ import annotations

from mcumgrx.errors import DeviceError

_UNKNOWN = 1  # whatever has no code of its own

# Group → number of version 1 → codes of the group.
_TABLES: dict[int, dict[int, tuple[int, ...]]] = {
    0: {3: (2,), 5: (3, 4)},
    1: {2: (15,), 3: (14, 19, 20, 21, 22, 24, 25), 5: (3, 4), 6: (9, 27, 28)},
    2: {3: (4,), 5: (2, 3)},
    8: {3: (2, 13), 5: (3, 14)},
    9: {3: (2, 3)},
}


def first_version(error: DeviceError) -> int:
    """The number that the device would have given in version 1."""
    if error.group is None:
        return error.rc
    table = _TABLES.get(error.group, {})
    return next((number for number, codes in table.items() if error.rc in codes), _UNKNOWN)
