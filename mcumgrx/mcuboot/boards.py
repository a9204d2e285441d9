"""Names of boards, as builds of all years write them and devices tell them: when two can be one board's.

Old builds write `nrf5340dk_nrf5340_cpuapp`, newer ones `nrf5340dk` or `nrf5340dk/nrf5340/cpuapp`, perhaps with a
revision (`nrf9160dk@0.14.0`); devices tell any of these, with qualifiers since Zephyr 4.3.
"""

from __future__ import annotations

__all__ = ["is_same_board"]


def is_same_board(file: str, device: str, number: int = 0) -> bool:
    """Whether what a file is for and what a device tells can be one board's.

    An image for another core, with another `number`, has the qualifiers of that core. An unknown revision is no other.
    """
    ours, theirs = (_without_revision(name).split("/") for name in (file, device))
    if len(ours) > 1 and len(theirs) > 1 and number == 0:
        return ours == theirs
    a, b = ours[0], theirs[0]
    return a == b or a.startswith(f"{b}_") or b.startswith(f"{a}_")


def _without_revision(name: str) -> str:
    base, _, qualifiers = name.lower().partition("/")
    base = base.partition("@")[0]
    return f"{base}/{qualifiers}" if qualifiers else base
