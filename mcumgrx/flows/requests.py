"""Which version a bootloader runs that keeps two images and takes one of them: the newest, or a preferred one.

Direct XIP and RAM load. With boot requests of the nRF Connect SDK (direct XIP) a slot that is preferred outranks the
version. No command tells whether a device takes such requests, or which stand: the list after a mark does
(`img_mgmt_get_next_boot_slot` in the SDK's `img_mgmt_state.c`). So what is not newer is refused where the list shows no
preference for it, unless an older version is wanted expressly and there is a mark to try it with. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image, ImageFlag, Version
from ..messages.standard import Slot
from .device_state import DeviceState, Kind, read_version, shown_version
from .policy import DfuPolicy, Mode

__all__ = ["IN_PLACE", "Choice", "check_memory", "may_follow"]

IN_PLACE = (Kind.NEWEST, Kind.NEWEST_REVERT, Kind.NEWEST_MAYBE_REVERT)
_PREFERENCE = "a boot request of its application (nRF Connect SDK)"


@dataclass
class Choice:
    """Whether the bootloader would take `new` in place of `a`, which runs. `refuse` makes the error of a refusal.

    Attributes:
        notes, warnings: what is to be told.
        tried: only the mark will tell, so that what is uploaded for it is erased where it is not taken.
    """

    new: Version
    a: Slot
    state: DeviceState
    policy: DfuPolicy
    notes: list[str]
    warnings: list[str]
    refuse: Callable[[str, str], PlanRefused]
    tried: bool = False

    def check(self) -> None:
        """Raises `PlanRefused` for what would not run."""
        old = read_version(self.a.version)
        if old is None or self.policy.mode is Mode.UPLOAD_ONLY:
            return
        preferred = self.state.preferred_slot(self.a.image)
        if preferred == self.a.slot:
            raise self._postponed()
        # Of two equal versions the one in slot 0 runs; the build number counts only if MCUboot was built so.
        same = self.new[:3] == old[:3] and self.a.slot == 0
        if self.new[:3] >= old[:3] and not (same and self.new.build <= old.build):
            if same:
                self.warnings.append("only the build number is higher: the bootloader may ignore it")
        elif preferred is not None:
            self.warnings.append(f"{self.new} runs only as long as the device prefers slot {preferred}: {_PREFERENCE}")
        elif self.policy.allow_downgrade and self.state.kind is Kind.NEWEST_REVERT:
            self.tried = True
            self.notes.append(
                f"{self.new} is not newer: it runs where a mark outranks the version (boot requests of the nRF Connect "
                "SDK), which the list shows after it"
            )
        else:
            raise self._not_newer()

    def _not_newer(self) -> PlanRefused:
        hint = "build a file with a higher version"
        if self.state.kind is Kind.NEWEST_REVERT:
            hint += "; or --allow-downgrade, which tries whether a mark outranks the version (nRF Connect SDK)"
        return self.refuse(
            f"{self.new} is not newer than {shown_version(self.a.version)}, and this bootloader runs the newest image "
            "it has",
            hint,
        )

    def _postponed(self) -> PlanRefused:
        b = self.state.images.other(self.a.image)
        waits = "" if b is None else f": {shown_version(b.version)} in slot {b.slot} is newer, and does not run next"
        return self.refuse(
            f"the device prefers slot {self.a.slot}, which runs, and postpones every update{waits}",
            Hint(
                f"it is {_PREFERENCE}, which has to end it. It may hold for one boot only: then ",
                Run("os reset"),
                " ends it",
            ),
        )


def may_follow(state: DeviceState, b: Slot | None, running: Version) -> bool:
    """Whether the next reset may start what lies in the slot that does not run, beside what it shows as pending.

    The list of RAM load without trial boots shows nothing of it.
    """
    version = None if b is None or state.kind is not Kind.NEWEST_MAYBE_REVERT else read_version(b.version)
    return version is not None and version > running


def check_memory(files: Mapping[int, Image]) -> None:
    """Raises `PlanRefused` for images that are to be loaded to the same RAM: MCUboot erases the one with the higher
    number from its slot, be it the only one (recorded in tests/golden/mcuboot-boot-multi)."""
    loaded = {number: image for number, image in files.items() if ImageFlag.RAM_LOAD in image.flags}
    for (one, first), (other, second) in combinations(sorted(loaded.items()), 2):
        start, end = second.load_address, second.load_address + second.content_size
        if start < first.load_address + first.content_size and first.load_address < end:
            raise PlanRefused(
                f"images {one} and {other} are to be loaded to the same memory: {first.version} to "
                f"0x{first.load_address:x} ({first.content_size:,} bytes), {second.version} to 0x{start:x}",
                hint="the bootloader would erase the second one: sign them for different places (imgtool --load-addr)",
            )
