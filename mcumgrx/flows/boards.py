"""Is it the board that the package was built for? A package that names another one is asked about. Pure.

`--expect-board` is the strict question, and refuses; here the names may be written in many ways, so that somebody may
know better.
"""

from __future__ import annotations

from ..mcuboot.boards import is_same_board
from .fit import Fit

__all__ = ["check_package_board"]


def check_package_board(fit: Fit) -> None:
    """Compare the board that the package names for this image, if any, with the device's."""
    meant, told = dict(fit.policy.package_boards).get(fit.number), fit.state.board
    if meant is None:
        return
    if told is None:
        fit.notes.append(f"the device does not tell its board; the package is for {meant}")
    elif not is_same_board(meant, told, fit.number):
        fit.for_good(f"the package is for the board {meant}, and the device says that it is {told}")
