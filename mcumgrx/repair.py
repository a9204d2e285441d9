"""What to do about a plugin that does not work: another version of it, or of mcumgrx; or to do without.

Which plugin that is and what is wrong with it is known to `registry`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ._version import __version__

SWITCH = "MCUMGRX_DISABLE_PLUGINS"


def repair(name: str, distribution: str, other_version: str | None = None) -> str:
    install = f"try 'pip install --upgrade {distribution}'" if distribution else "reinstall its distribution"
    return f"{other_version or install}, or switch it off with {SWITCH}={name}"


def other_version(
    distribution: str, requires: Iterable[str], error: BaseException | None, *, newer: bool = False
) -> str | None:
    """What to do about a plugin that was written for another version of mcumgrx; None where nothing tells that it was.

    Arguments:
        requires: the requirements of its distribution.
        error: what it raised.
        newer: it has something that only a newer version can know.
    """
    wanted = next((found for text in requires if (found := OURS.match(text))), None)
    bounds = re.sub(r"[\s()]", "", wanted[1]) if wanted else ""
    if bounds and (too_new := _excludes(bounds)):
        kind = "newer" if too_new > 0 else "older"
        upgrade = "mcumgrx" if too_new > 0 or not distribution else distribution
        what = f"it was written for {kind} versions (mcumgrx{bounds}; this is {__version__})"
        return f"{what}: 'pip install --upgrade {upgrade}'"
    # A name of ours that is not there.
    lacks = isinstance(error, (ImportError, AttributeError)) and (error.name or "").partition(".")[0] == "mcumgrx"
    lacks = lacks or (isinstance(error, (ImportError, AttributeError)) and "'mcumgrx." in str(error))
    if lacks or newer:
        what = f"it was written for another version (this is mcumgrx {__version__})"
        return f"{what}: 'pip install --upgrade mcumgrx {distribution}'"
    return None


OURS = re.compile(r"mcumgrx\s*(?:\[[^\]]*\])?\s*(\(?[<>=!~][^;]*)", re.IGNORECASE)
_BOUND = re.compile(r"(>=|>|~=|==|<=|<)v?(\d+(?:\.\d+)*)")


def _excludes(bounds: str) -> int:
    """Whether this version is too old (1) or too new (-1) for these bounds, or fits (0). Of `!=` and the like nothing
    is known; pip is the judge, this only chooses words."""
    ours = _numbers(__version__)
    for text in bounds.split(","):
        found = _BOUND.match(text)
        if found is None:
            continue
        sign, bound = found[1], _numbers(found[2])
        if (sign in (">=", "~=", "==") and ours < bound) or (sign == ">" and ours <= bound):
            return 1
        if (sign in ("<=", "==") and ours[: len(bound)] > bound) or (sign == "<" and ours >= bound):
            return -1
    return 0


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", re.split("[a-z+-]", version)[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
