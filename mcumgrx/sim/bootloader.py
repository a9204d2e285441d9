"""A bootloader like MCUboot over a simulated flash: which image runs, and what happens to the flash before it does.

Synchronous and without a clock. All it knows lies in the flash, so it may be cut off at any operation and called
again. `boot` is a reset; the other public methods are what an application (its SMP server) asks of bootutil. The
behaviour is that of MCUboot's own `bootutil`, replayed in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import Image, ImageFlag, ImageHeader, TrailerLayout, TrailerVariant, Version, parse_image
from mcumgrx.sim.flash import Flash, FlashError
from mcumgrx.sim.slots import Mark, Slot, SwapType
from mcumgrx.sim.swap import UPGRADES, Install, Overwrite, SwapMove, SwapOffset, SwapScratch

__all__ = [
    "PRIMARY",
    "SECONDARY",
    "BootPolicy",
    "BootResult",
    "Bootloader",
    "Layout",
    "Mode",
    "SwapType",
    "accept_hash",
]

PRIMARY = 0
SECONDARY = 1

BOOT_EFLASH = 1
BOOT_EBADIMAGE = 3
BOOT_EBADVECT = 4
"""bootutil's return codes: no such flash, and a trailer whose magic is neither good nor erased, of the secondary (3) or
the primary (4)."""


class Mode(IntEnum):
    """How the bootloader was built, with the numbers of the bootloader information command."""

    SINGLE_SLOT = 0
    SWAP_SCRATCH = 1
    OVERWRITE = 2
    SWAP_MOVE = 3
    DIRECT_XIP = 4
    DIRECT_XIP_REVERT = 5
    RAM_LOAD = 6
    FIRMWARE_LOADER = 7
    SINGLE_SLOT_RAM_LOAD = 8
    SWAP_OFFSET = 9


_DIRECT = frozenset({Mode.DIRECT_XIP, Mode.DIRECT_XIP_REVERT, Mode.RAM_LOAD})
_RAM = frozenset({Mode.RAM_LOAD, Mode.SINGLE_SLOT_RAM_LOAD})
_ONE_SLOT = frozenset({Mode.SINGLE_SLOT, Mode.SINGLE_SLOT_RAM_LOAD, Mode.FIRMWARE_LOADER})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the slots of one image lie in the flash: offsets and sizes in bytes, whole sectors.

    A device with one slot has a `secondary_size` of 0; only swap using scratch has a scratch area.
    """

    primary_offset: int
    primary_size: int
    secondary_offset: int
    secondary_size: int
    scratch_offset: int = 0
    scratch_size: int = 0
    max_sectors: int = 128
    """BOOT_MAX_IMG_SECTORS: how large a trailer leaves room for."""
    base_address: int = 0
    """The address of flash offset 0, for images linked to a fixed address."""

    @classmethod
    def equal_slots(cls, slot_size: int, *, offset: int = 0, max_sectors: int = 128) -> Layout:
        """Two slots of `slot_size` bytes one after the other."""
        return cls(offset, slot_size, offset + slot_size, slot_size, max_sectors=max_sectors)


@dataclass(frozen=True, slots=True)
class BootPolicy:
    """Build options beside the mode, with Zephyr's defaults."""

    validate_primary: bool = True
    """Check the primary at every boot, not only new images; without, any image header there is run."""
    downgrade_prevention: bool = False
    """Refuse an upgrade to an older version."""
    compare_build: bool = False
    """The build number is part of the version when two are compared."""
    bootstrap: bool = False
    """A good image in the secondary may fill an unusable primary without being asked to."""
    overwrite_fast: bool = True
    """Overwrite copies the image only, not the whole slot."""
    ram_load_revert: bool = False
    """RAM load with trial boots, as direct XIP with revert."""
    ram_start: int = 0
    ram_size: int = 0
    """Where an image may be loaded to."""
    boot_requests: bool = False
    """Direct XIP of the nRF Connect SDK: a slot that the application prefers (`Bootloader.preferred`) outranks the
    version (`NRF_MCUBOOT_BOOT_REQUEST`)."""
    keeps_preference: bool = False
    """For good, not for one boot (`NRF_MCUBOOT_BOOT_REQUEST_PREFERENCE_KEEP`)."""


def accept_hash(image: Image) -> bool:
    """The default check of an image whose hash is right: take it, whoever signed it.

    Encrypted and compressed ones are refused: keys, and `MCUBOOT_DECOMPRESS_IMAGES`, are nothing a build has by itself.
    """
    return not image.encrypted and not image.compressed


@dataclass(frozen=True, slots=True)
class BootResult:
    """What a reset led to. `slot` is None if no image could be run."""

    slot: int | None
    header: ImageHeader | None = None
    image: Image | None = field(default=None, repr=False)
    """The image that runs, if it was checked (and so is known to be whole)."""
    load_address: int | None = None
    """Where it runs, if it was loaded to RAM."""
    performed: SwapType = SwapType.NONE
    """The installation done by this boot: TEST, PERM or REVERT."""
    notes: tuple[str, ...] = ()
    """What the bootloader would print, for people."""

    @property
    def booted(self) -> bool:
        return self.slot is not None

    @property
    def version(self) -> Version | None:
        return self.header.version if self.header is not None else None

    @property
    def hash(self) -> bytes | None:
        return self.image.hash if self.image is not None else None


@dataclass(slots=True)
class Plan:
    """What one reset does with one image, from the first look at its trailers to the end."""

    kind: SwapType = SwapType.NONE
    """The installation still to be done: TEST, PERM or REVERT; NONE for nothing."""
    bootstrap: bool = False
    """It fills an unusable primary slot."""
    follows: bool = False
    """It is taken for a part of an installation that began with the images before this one: a new image is about to
    be installed, or a move that power has interrupted was gone on with."""
    performed: SwapType = SwapType.NONE
    """What has been done."""


class Bootloader:
    """A bootloader of `mode` for the image whose slots are `layout`, in `flash`.

    `verify` has the last word on an image whose structure and hash are right, for instance on its signature.
    Raises `FlashError` if the layout does not fit the flash.
    """

    def __init__(
        self,
        flash: Flash,
        layout: Layout,
        mode: Mode = Mode.SWAP_MOVE,
        *,
        policy: BootPolicy | None = None,
        verify: Callable[[Image], bool] = accept_hash,
        image_number: int = 0,
    ) -> None:
        self.flash = flash
        self.layout = layout
        self.mode = mode
        self.policy = policy if policy is not None else BootPolicy()
        self.verify = verify
        self.image_number = image_number
        variant = {
            Mode.SWAP_OFFSET: TrailerVariant.SWAP_OFFSET,
            Mode.SINGLE_SLOT: TrailerVariant.SINGLE,
            Mode.SINGLE_SLOT_RAM_LOAD: TrailerVariant.SINGLE,
            Mode.FIRMWARE_LOADER: TrailerVariant.SINGLE,
        }.get(mode, TrailerVariant.SWAP)
        self.trailer = TrailerLayout.for_write_size(flash.write_size, layout.max_sectors, variant)
        self.primary = self._slot(layout.primary_offset, layout.primary_size, "primary")
        self.secondary = self._slot(layout.secondary_offset, layout.secondary_size, "secondary")
        self.slots = (self.primary, self.secondary)
        self.scratch: Slot | None = None
        self._install = self._way_to_install()
        self._notes: list[str] = []
        self.preferred: int | None = None
        """The slot that the application has asked for, in memory that outlives a reset."""

    def __repr__(self) -> str:
        return f"<Bootloader {self.mode.name} over {self.flash!r}>"

    # --- what a server asks ---

    @property
    def max_image_size(self) -> int | None:
        """The largest image, header to last TLV, in bytes; None if these slots cannot be used in this mode."""
        if self._install is not None:
            return self._install.max_image()
        if self.mode in _ONE_SLOT:
            return self.primary.size - self.trailer.size
        return min(self.primary.size, self.secondary.size) - self.trailer.swap_info_offset

    @property
    def upload_offset(self) -> int:
        """Where in the secondary slot a server has to put a new image."""
        return self.flash.sector_size if self.mode is Mode.SWAP_OFFSET else 0

    def swap_type(self) -> SwapType:
        """What the next boot will do as far as the trailers tell (`boot_swap_type`)."""
        primary, secondary = self.primary, self.secondary
        if secondary.magic is Mark.SET:
            if secondary.image_ok is Mark.UNSET:
                if self.mode is Mode.SWAP_OFFSET and secondary.copy_done is Mark.SET:
                    return SwapType.REVERT
                return SwapType.TEST
            if secondary.image_ok is Mark.SET:
                return SwapType.PERM
        if (primary.magic, primary.image_ok, primary.copy_done) == (Mark.SET, Mark.UNSET, Mark.SET):
            return SwapType.REVERT
        return SwapType.NONE

    def set_pending(self, permanent: bool = False) -> int:
        """Mark the secondary for the next boot (`boot_set_pending`); returns bootutil's return code.

        A mark that stands already is left as it is: a test does not become permanent.
        """
        slot = self.secondary
        if not slot.size:
            return BOOT_EFLASH
        if slot.magic is Mark.BAD:
            return BOOT_EBADIMAGE
        if slot.magic is Mark.UNSET:
            slot.write_magic()
            if permanent:
                slot.write_image_ok()
            slot.write_swap_info(SwapType.PERM if permanent else SwapType.TEST, self.image_number)
        return 0

    def set_confirmed(self) -> int:
        """Mark the running image as good (`boot_set_confirmed`); returns bootutil's return code."""
        slot = self.primary
        if slot.magic is Mark.BAD:
            return BOOT_EBADVECT
        if slot.magic is Mark.SET and slot.image_ok is Mark.UNSET:
            slot.write_image_ok()
        return 0

    def set_next(self, slot: int, *, active: bool, confirm: bool) -> int:
        """Choose a slot (`boot_set_next`): direct XIP and RAM load mark it itself, the others as their two calls do.

        `active` says that its image is the one that runs. Returns bootutil's return code.
        """
        if self.mode not in _DIRECT:
            return self.set_confirmed() if active else self.set_pending(confirm)
        chosen = self.slots[slot]
        if chosen.magic is Mark.BAD:
            return BOOT_EBADIMAGE
        if chosen.magic is Mark.UNSET:
            chosen.write_magic()
        if active or confirm:
            if chosen.copy_done is Mark.UNSET:
                chosen.write_copy_done()
            if chosen.image_ok is Mark.UNSET:
                chosen.write_image_ok()
        return 0

    # --- a reset ---

    def boot(self) -> BootResult:
        """Reset a device with this one image: finish or begin an installation, then choose the image that runs.

        Whatever the flash raises (`PowerCut`) passes through; call again when power is back.
        """
        self.begin()
        if self.mode in _DIRECT:
            return self.choose(set())
        if self.mode in _ONE_SLOT:
            result = self.run()
            if not result.booted and self.mode is Mode.FIRMWARE_LOADER:
                result = self._run(SECONDARY, SwapType.NONE)
            return result
        plan = self.prepare()
        self.carry_out(plan)
        return self.run(plan)

    # The steps of a reset, for `pairs`, which takes them for several images in turns.

    @property
    def chooses(self) -> bool:
        """Whether an image runs where it lies, or from RAM, so that nothing is installed."""
        return self.mode in _DIRECT

    @property
    def reverts_in_place(self) -> bool:
        """As `chooses`, among images that are marked: one that is not confirmed has a single trial."""
        return self.mode is Mode.DIRECT_XIP_REVERT or (self.mode is Mode.RAM_LOAD and self.policy.ram_load_revert)

    def begin(self) -> None:
        """A reset begins: what was noted at the last one is forgotten."""
        self._notes = []

    def end(self) -> None:
        """The reset has ended: so has the slot that was preferred for it (`boot_request_clear`)."""
        if not self.policy.keeps_preference:
            self.preferred = None

    def run(self, plan: Plan | None = None) -> BootResult:
        """Choose the image in the primary slot, once all that `plan` says is done."""
        return self._run(PRIMARY, plan.performed if plan is not None else SwapType.NONE)

    # --- installing ---

    def _way_to_install(self) -> Install | None:
        if self.mode is Mode.SWAP_MOVE:
            return SwapMove(self.primary, self.secondary, self.image_number)
        if self.mode is Mode.OVERWRITE:
            return Overwrite(self.primary, self.secondary, self.image_number, fast=self.policy.overwrite_fast)
        if self.mode is Mode.SWAP_OFFSET:
            return SwapOffset(self.primary, self.secondary, self.image_number)
        if self.mode is Mode.SWAP_SCRATCH:
            layout = self.layout
            # One chunk's worth of progress is all that its trailer holds.
            trailer = TrailerLayout.for_write_size(self.flash.write_size, 1)
            self.scratch = self._slot(layout.scratch_offset, layout.scratch_size, "scratch", trailer)
            return SwapScratch(self.primary, self.secondary, self.scratch, self.image_number)
        return None

    def prepare(self) -> Plan:
        """Finish an interrupted installation, or find out which one the trailers ask for."""
        install = self._install
        if install is None or install.max_image() is None:
            self._note("the slots do not fit together: nothing is installed")
            return Plan()
        kind = install.interrupted()
        if kind is not None:
            self._note(f"going on with an interrupted {kind.name.lower()}")
            follows = kind is not SwapType.REVERT or install.moved()
            install.resume()
            return Plan(performed=kind, follows=follows)
        if install.reads_primary and not self.primary.has_magic():
            blank = self.primary.header_erased()
            if not (self.policy.bootstrap and blank):
                self._note("the primary slot holds no image to swap with")
                return Plan()
        kind = self._checked_swap_type(install)
        if self.policy.bootstrap and kind is not SwapType.REVERT and self._unusable_primary():
            return self._plan_bootstrap(install, kind)
        return Plan(kind, follows=kind is not SwapType.REVERT) if kind in UPGRADES else Plan()

    def carry_out(self, plan: Plan) -> None:
        """Install as planned."""
        install, kind = self._install, plan.kind
        if install is None or kind is SwapType.NONE:
            return
        if plan.bootstrap:
            self._bootstrap(install, kind)
        elif self._late_downgrade(install, kind):
            self._refuse_secondary()
            return
        else:
            self._note(f"{kind.name.lower()}: installing the image of the secondary slot")
            if not install.start(kind):
                self._note("the primary slot holds no image to swap with")
                return
        plan.performed = kind

    def next_image(self, plan: Plan) -> tuple[Slot, int]:
        """Where the image lies that will be in the primary slot once the plan is carried out: slot and offset."""
        if plan.kind is SwapType.NONE or self._install is None:
            return self.primary, 0
        return self.secondary, self._install.image_offset(plan.kind)

    def _checked_swap_type(self, install: Install) -> SwapType:
        """The swap type, after a look at the image it is about; an invalid one is erased."""
        kind = self.swap_type()
        if kind not in UPGRADES:
            return SwapType.NONE
        return self._checked_secondary(install, kind)

    def _checked_secondary(self, install: Install, kind: SwapType) -> SwapType:
        slot = self.secondary
        if install.misplaced(kind):
            self._note("the image in the secondary slot lies in the wrong place and is erased")
            slot.erase()
            return SwapType.FAIL
        offset = install.image_offset(kind)
        header = slot.header(offset)
        if slot.header_erased(offset) or slot.flagged_not_bootable(offset):
            self._note("the secondary slot holds no bootable image")
            install.blank_secondary(kind)
            return SwapType.NONE
        if self._valid(slot, offset) is None or self._early_downgrade(header):
            self._refuse_secondary()
            return SwapType.FAIL
        return kind

    def _refuse_secondary(self) -> None:
        self._note("the image in the secondary slot is refused and erased")
        self.secondary.erase()

    # Overwriting compares the versions together with all else, the swaps when everything else is settled, which makes a
    # difference to other images; and to an empty primary, which the swaps look at all the same.

    def _early_downgrade(self, header: ImageHeader | None) -> bool:
        return self.mode is Mode.OVERWRITE and not self.primary.header_erased() and self._is_downgrade(header)

    def _late_downgrade(self, install: Install, kind: SwapType) -> bool:
        if self.mode is Mode.OVERWRITE or kind is SwapType.REVERT:
            return False
        return self._is_downgrade(self.secondary.header(install.image_offset(kind)))

    def _is_downgrade(self, header: ImageHeader | None) -> bool:
        if not self.policy.downgrade_prevention or header is None:
            return False
        # What lies where the version would be is compared, whether or not there is an image: 255.255.65535 where
        # the flash is erased.
        return self.compared(header.version) < self.compared(self.primary.version_bytes())

    def compared(self, version: Version) -> Version:
        """The part of a version that counts when two are compared."""
        return version if self.policy.compare_build else version._replace(build=0)

    def _unusable_primary(self) -> bool:
        return self.primary.header_erased() or self._valid(self.primary) is None

    def _plan_bootstrap(self, install: Install, kind: SwapType) -> Plan:
        """Fill the primary from the secondary, whether or not somebody asked for it."""
        if kind is SwapType.FAIL:
            return Plan()
        if kind not in UPGRADES:
            kind = self._checked_secondary(install, SwapType.PERM)
        return Plan(kind, bootstrap=True) if kind in UPGRADES else Plan()

    def _bootstrap(self, install: Install, kind: SwapType) -> None:
        self._note("filling the primary slot from the secondary")
        Overwrite(self.primary, self.secondary, self.image_number).bootstrap(install.image_offset(kind))
        if kind is SwapType.PERM:
            self.primary.write_image_ok()
        self.primary.write_copy_done()

    # --- running ---

    def _run(self, slot: int, performed: SwapType) -> BootResult:
        area = self.slots[slot]
        header = area.header()
        image = None
        if header is None:
            self._note(f"no image in the {area.name} slot")
            return self._result(None, performed=performed)
        if self.policy.validate_primary:
            image = self._valid(area)
            if image is None or not image.bootable:
                self._note(f"the image in the {area.name} slot is not valid")
                return self._result(None, performed=performed)
        load = None
        if self.mode in _RAM:
            if not self._loadable(header, area):
                self._note("the image cannot be loaded to RAM")
                return self._result(None, performed=performed)
            load = header.load_address
        return self._result(slot, header, image, load, performed)

    def choose(self, skipped: set[int], taken: Sequence[range] = ()) -> BootResult:
        """Direct XIP and RAM load: the highest version that proves good, erasing those that do not.

        The slots in `skipped` are passed over, and slots that cannot run are added to it; `taken` are the parts of
        RAM where other images lie.
        """
        while (slot := self._newest(skipped)) is not None:
            area = self.slots[slot]
            header = area.header()
            assert header is not None
            if self._tried_before(area):
                self._note(f"the image in the {area.name} slot was not confirmed: erased")
                area.erase()
                continue
            if ImageFlag.NON_BOOTABLE in header.flags:
                skipped.add(slot)
                continue
            image = self._valid(area)
            if image is None or (self.mode in _RAM and not self._loadable(header, area, taken)):
                self._note(f"the image in the {area.name} slot is refused and erased")
                area.erase()
                continue
            load = header.load_address if self.mode in _RAM else None
            return self._result(slot, header, image, load)
        self._note("no image to run")
        return self._result(None)

    def run_beside(self, slot: int, hash: bytes) -> BootResult:
        """The image in this slot, if it is good and the one that is named; it is erased otherwise."""
        area = self.slots[slot]
        image = self._valid(area)
        if image is not None and image.hash == hash and image.bootable and not self._elsewhere(image.header, area):
            return self._result(slot, image.header, image)
        if area.header() is not None:
            self._note(f"the image in the {area.name} slot is not the one that the manifest names, and is erased")
            area.erase()
        return self._result(None)

    def _elsewhere(self, header: ImageHeader, area: Slot) -> bool:
        """Whether it is linked for another slot than it lies in."""
        return ImageFlag.ROM_FIXED in header.flags and header.load_address != self.layout.base_address + area.offset

    def _newest(self, skipped: set[int]) -> int | None:
        """The slot that is preferred, else that with the highest version; the primary if both have the same."""
        best: tuple[Version, int] | None = None
        for number, area in enumerate(self.slots):
            header = area.header()
            if number in skipped or header is None or header.hashed_size > area.size:
                continue
            if self.mode not in _RAM and self._elsewhere(header, area):
                continue
            if self.policy.boot_requests and number == self.preferred:
                return number  # `boot_find_next_slot_hook`
            version = self.compared(header.version)
            if best is None or version > best[0]:
                best = version, number
        return best[1] if best is not None else None

    def _tried_before(self, area: Slot) -> bool:
        """With revert: whether this image has had its one trial; if not, note that it is having it now."""
        if not self.reverts_in_place:
            return False
        if area.magic is not Mark.SET:
            return True
        if area.copy_done is Mark.SET:
            return area.image_ok is not Mark.SET
        area.write_copy_done()
        return False

    def _loadable(self, header: ImageHeader, area: Slot, taken: Sequence[range] = ()) -> bool:
        image = area.image_bytes()
        if image is None or ImageFlag.RAM_LOAD not in header.flags:
            return False
        start, end = header.load_address, header.load_address + len(image)
        ram_end = self.policy.ram_start + self.policy.ram_size
        return (
            self.policy.ram_start <= start
            and end <= ram_end
            and all(end <= other.start or other.stop <= start for other in taken)
        )

    def ram_used(self, result: BootResult) -> range:
        """Where in RAM the image of this result lies."""
        if result.slot is None or result.load_address is None:
            return range(0)
        size = len(self.slots[result.slot].image_bytes() or b"")
        return range(result.load_address, result.load_address + size)

    # --- checking ---

    def _valid(self, slot: Slot, offset: int = 0) -> Image | None:
        """The image at `offset` if it may run, else None."""
        data = slot.image_bytes(offset)
        limit = self.max_image_size
        if limit is None:  # no upgrade is possible, but what was flashed there runs
            limit = slot.size - self.trailer.swap_info_offset
        if data is None or len(data) > limit:
            return None
        try:
            image = parse_image(data)
        except ImageError:
            return None
        return image if self.verify(image) else None

    def _slot(self, offset: int, size: int, name: str, trailer: TrailerLayout | None = None) -> Slot:
        flash = self.flash
        if offset % flash.sector_size or size % flash.sector_size or offset < 0 or offset + size > flash.size:
            raise FlashError(f"the {name} slot, {size} bytes at 0x{offset:x}, does not fit the flash and its sectors")
        return Slot(flash, offset, size, trailer if trailer is not None else self.trailer, name)

    def _note(self, text: str) -> None:
        self._notes.append(text)

    def _result(
        self,
        slot: int | None,
        header: ImageHeader | None = None,
        image: Image | None = None,
        load_address: int | None = None,
        performed: SwapType = SwapType.NONE,
    ) -> BootResult:
        return BootResult(slot, header, image, load_address, performed, tuple(self._notes))
