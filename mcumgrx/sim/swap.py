"""How two images change places, or one replaces the other: MCUboot's ways to install an update.

Each way works from what the flash holds alone. Before anything is moved a trailer notes what is going on, each finished
step is noted as a progress record, and every step leaves its source whole until the next one; so after a power cut
`interrupted` finds the work and `resume` ends it. Whether an image may be installed is decided in `bootloader`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from mcumgrx.mcuboot import parse_header
from mcumgrx.sim.slots import Mark, Slot, SwapType


class Install(ABC):
    """One way of bringing the image of the secondary slot into the primary one."""

    reads_primary: ClassVar[bool] = False
    """Without a header in the primary slot it does not even look at the marks."""

    def __init__(self, primary: Slot, secondary: Slot, image_number: int = 0) -> None:
        self.primary = primary
        self.secondary = secondary
        self.image_number = image_number

    @abstractmethod
    def max_image(self) -> int | None:
        """The largest image, header to last TLV, in bytes; None where these two slots cannot be used together."""

    @abstractmethod
    def interrupted(self) -> SwapType | None:
        """The kind of the installation that a power cut has stopped, or None."""

    def moved(self) -> bool:
        """Whether an interrupted installation has already moved a part of the images."""
        return False

    @abstractmethod
    def resume(self) -> None:
        """Carry an interrupted installation on to its end."""

    @abstractmethod
    def start(self, kind: SwapType) -> bool:
        """Install the image of the secondary slot; False, and nothing done, if the primary slot's content forbids."""

    def image_offset(self, kind: SwapType) -> int:
        """Where in the secondary slot the image for this kind of boot begins."""
        return 0

    def misplaced(self, kind: SwapType) -> bool:
        """Whether the secondary slot holds an image where this kind of boot does not want one."""
        return False

    def blank_secondary(self, kind: SwapType) -> None:
        """Clean up a mark on a secondary slot that holds no bootable image."""
        self.secondary.erase_trailer()


@dataclass(frozen=True, slots=True)
class Step:
    """Copy one sector of a slot to one of a slot, then write progress record `record`."""

    record: int
    source: Slot
    source_sector: int
    target: Slot
    target_sector: int

    def run(self) -> None:
        size = self.target.sector_size
        self.target.erase_sector(self.target_sector)
        self.target.copy_from(self.source, self.source_sector * size, self.target_sector * size, size)


UPGRADES = (SwapType.TEST, SwapType.PERM, SwapType.REVERT)


class SectorSwap(Install):
    """What swap using move and swap using offset have in common: steps of one sector each, noted in the primary."""

    reads_primary = True
    _states: ClassVar[int]
    """Progress records of the sector that is done first."""

    def interrupted(self) -> SwapType | None:
        primary = self.primary
        if primary.magic is not Mark.SET or primary.copy_done is not Mark.UNSET:
            return None
        kind = primary.swap_info & 0x0F
        if kind not in UPGRADES or primary.swap_size > (self.max_image() or 0):
            return None
        # Until the secondary's trailer is erased, that is what counts, and the swap starts again from it.
        if primary.progress() == 0 and self.secondary.magic is not Mark.UNSET:
            return None
        return SwapType(kind)

    def moved(self) -> bool:
        return self.primary.progress() > 0

    def resume(self) -> None:
        primary, secondary = self.primary, self.secondary
        kind = SwapType(primary.swap_info & 0x0F)
        if primary.progress() < self._states:
            # As long as the first sector is not done bootutil begins with the trailers once more (`fixup_revert`).
            if kind is SwapType.REVERT and secondary.magic is Mark.UNSET:
                secondary.erase_trailer()
                self._mark_for_revert()
                self._copy_sizes()
                secondary.write_magic()
            secondary.erase_trailer()
        self._carry_out(kind, self._sizes_on_the_way(kind))

    def start(self, kind: SwapType) -> bool:
        primary, secondary = self.primary, self.secondary
        old, new = primary.image_bytes(), secondary.image_bytes(self.image_offset(kind))
        if old is None or new is None:
            return False
        if kind is SwapType.REVERT:
            # The primary's trailer, which says so until now, is about to be made anew.
            secondary.erase_trailer()
            self._mark_for_revert()
            self._write_sizes(secondary, old, new)
            secondary.write_magic()
        good = secondary.image_ok is Mark.SET
        primary.erase_trailer()
        primary.write_swap_info(kind, self.image_number)
        if good:
            primary.write_image_ok()
        self._write_sizes(primary, old, new)
        primary.write_magic()
        secondary.erase_trailer()
        self._carry_out(kind, (len(old), len(new)))
        return True

    def _write_sizes(self, slot: Slot, primary: bytes, secondary: bytes) -> None:
        slot.write_swap_size(max(len(primary), len(secondary)))

    def _copy_sizes(self) -> None:
        """From the primary's trailer to the secondary's."""
        self.secondary.write_swap_size(self.primary.swap_size)

    @abstractmethod
    def _mark_for_revert(self) -> None:
        """Let the secondary's trailer, erased by now, ask for what the primary's did."""

    @abstractmethod
    def _steps(self, kind: SwapType, sectors: int) -> Iterator[Step]:
        """All steps for images of at most `sectors` sectors, in order; their records are ascending."""

    def _sizes_on_the_way(self, kind: SwapType) -> tuple[int, int] | None:
        """The sizes of both images (primary's first) in the middle of a swap; None where they make no difference."""
        return None

    def _needed(self, step: Step, sizes: tuple[int, int]) -> bool:
        """Whether the step moves anything of the images, whose sizes are given (primary's first)."""
        return True

    def _carry_out(self, kind: SwapType, sizes: tuple[int, int] | None = None) -> None:
        """Do all steps not yet done; without `sizes` none is left out."""
        primary = self.primary
        done = primary.progress()
        for step in self._steps(kind, -(-primary.swap_size // primary.sector_size)):
            if step.record >= done:
                if sizes is None or self._needed(step, sizes):
                    step.run()
                primary.write_progress(step.record)
        self._clean_up(kind)
        if kind is SwapType.REVERT and primary.image_ok is Mark.UNSET:
            primary.write_image_ok()
        primary.write_copy_done()

    def _clean_up(self, kind: SwapType) -> None:
        """What is left to erase once the images have changed places."""


class SwapMove(SectorSwap):
    """Move the primary's image up by one sector, then swap sector by sector. Needs no scratch area."""

    _states = 1

    def max_image(self) -> int | None:
        primary, secondary = self.primary, self.secondary
        if primary.sectors - secondary.sectors not in (0, 1):
            return None
        return primary.sector_size * min(
            primary.sectors - primary.trailer_sectors - 1, secondary.sectors - secondary.trailer_sectors
        )

    def blank_secondary(self, kind: SwapType) -> None:
        self.secondary.erase_trailer()
        if kind is SwapType.REVERT:  # there is nothing to go back to: the running image is kept as if flashed
            self.primary.erase_trailer()

    def _mark_for_revert(self) -> None:
        # As for a permanent upgrade: the same swap, only its kind is then noted as permanent after a power cut.
        self.secondary.write_image_ok()

    def _steps(self, kind: SwapType, sectors: int) -> Iterator[Step]:
        primary, secondary = self.primary, self.secondary
        for sector in range(sectors, 0, -1):
            yield Step(sectors - sector, primary, sector - 1, primary, sector)
        record = primary.trailer.max_sectors
        for sector in range(sectors):
            yield Step(record, secondary, sector, primary, sector)
            yield Step(record + 1, primary, sector + 1, secondary, sector)
            record += 2


class SwapOffset(SectorSwap):
    """Swap sector by sector, the new image lying one sector higher in the secondary than the old one will.

    Upwards for an upgrade, downwards for a revert, so that the free sector moves along.
    """

    _states = 2

    def max_image(self) -> int | None:
        primary, secondary = self.primary, self.secondary
        if secondary.sectors - primary.sectors not in (0, 1):
            return None
        return primary.sector_size * min(
            primary.sectors - primary.trailer_sectors, secondary.sectors - secondary.trailer_sectors - 1
        )

    def image_offset(self, kind: SwapType) -> int:
        # In the second sector if there is one, except that a revert wants the old image, in the first.
        secondary = self.secondary
        if not secondary.has_magic(secondary.sector_size) or (kind is SwapType.REVERT and secondary.has_magic(0)):
            return 0
        return secondary.sector_size

    def misplaced(self, kind: SwapType) -> bool:
        return kind is not SwapType.REVERT and self.secondary.has_magic(0)

    def _write_sizes(self, slot: Slot, primary: bytes, secondary: bytes) -> None:
        slot.write_swap_size(max(len(primary), len(secondary)))
        slot.write_tlv_sizes(_unprotected_tlv_bytes(primary), _unprotected_tlv_bytes(secondary))

    def _copy_sizes(self) -> None:
        super()._copy_sizes()
        self.secondary.write_tlv_sizes(*self.primary.tlv_sizes)

    def _sizes_on_the_way(self, kind: SwapType) -> tuple[int, int] | None:
        primary, secondary = self.primary, self.secondary
        moved, half = divmod(primary.progress(), 2)
        last = -(-primary.swap_size // primary.sector_size) - 1
        # Where the headers lie by now (`boot_read_image_header`): first sectors are moved first, and last by a revert.
        if kind is SwapType.REVERT:
            begun, done = (moved, half) >= (last, 1), moved > last
            old = secondary.header(secondary.sector_size) if begun else primary.header()
            new = primary.header() if done else secondary.header()
        else:
            # With the last sector under way bootutil takes the new image's header for the old one's: where it is much
            # smaller, the end of the old one is lost.
            begun, done = (0, 1) <= (moved, half) < (last, 0), moved > 0
            old = secondary.header() if begun else primary.header()
            new = primary.header() if done else secondary.header(secondary.sector_size)
        if old is None or new is None:
            return None
        tlvs = primary.tlv_sizes
        return old.hashed_size + tlvs[0], new.hashed_size + tlvs[1]

    def _mark_for_revert(self) -> None:
        self.secondary.write_copy_done()
        self.secondary.write_swap_info(SwapType.REVERT, self.image_number)

    def _steps(self, kind: SwapType, sectors: int) -> Iterator[Step]:
        primary, secondary = self.primary, self.secondary
        up = kind is not SwapType.REVERT
        record = 0
        for sector in range(sectors) if up else reversed(range(sectors)):
            yield Step(record, primary, sector, secondary, sector if up else sector + 1)
            yield Step(record + 1, secondary, sector + 1 if up else sector, primary, sector)
            record += 2

    def _needed(self, step: Step, sizes: tuple[int, int]) -> bool:
        # bootutil is generous by one sector.
        to_primary = step.target is self.primary
        sector = step.target_sector if to_primary else step.source_sector
        return sector <= -(-sizes[to_primary] // self.primary.sector_size)

    def _clean_up(self, kind: SwapType) -> None:
        if kind is SwapType.REVERT:  # a header left in the first sector would be taken for a wrong upload
            self.secondary.erase_sector(0)
            self.secondary.erase_trailer()


class SwapScratch(Install):
    """Swap a scratch area's worth at a time, from the top down: secondary → scratch, primary → secondary, and back.

    The scratch area has a small trailer of its own. It holds the record while that of the primary cannot: for as long
    as the primary's trailer is made anew, and during the first chunk if the image reaches into the trailer's sectors.
    """

    _STATES = 3

    def __init__(self, primary: Slot, secondary: Slot, scratch: Slot, image_number: int = 0) -> None:
        super().__init__(primary, secondary, image_number)
        self.scratch = scratch

    def max_image(self) -> int | None:
        primary, secondary = self.primary, self.secondary
        if primary.size != secondary.size:
            return None
        # The last bytes below the trailer share a sector with it, and that sector has to fit the scratch area together
        # with the trailer of the scratch area.
        shared = primary.trailer.size % primary.sector_size or primary.sector_size
        return primary.size - primary.trailer.size - max(0, self.scratch.trailer.size - shared)

    def interrupted(self) -> SwapType | None:
        keeper = self._keeper()
        return SwapType(keeper.swap_info & 0x0F) if keeper is not None else None

    def moved(self) -> bool:
        keeper = self._keeper()
        return keeper is not None and keeper.progress() > 0

    def _keeper(self) -> Slot | None:
        """Whose trailer holds the record of an unfinished swap."""
        for slot in (self.primary, self.scratch):
            if (
                slot.magic is Mark.SET
                and slot.copy_done is Mark.UNSET
                and slot.swap_info & 0x0F in UPGRADES
                and slot.swap_info >> 4 == self.image_number  # one scratch area serves all images
                and slot.swap_size <= (self.max_image() or 0)
                and (slot is self.scratch or slot.progress() or self.secondary.magic is Mark.UNSET)
            ):
                return slot
        return None

    def start(self, kind: SwapType) -> bool:
        # An unreadable image in the primary is swapped out all the same.
        images = self.primary.image_bytes(), self.secondary.image_bytes()
        size = max(len(image) if image is not None else 0 for image in images)
        self._begin(kind, size)
        self._carry_out(kind, size)
        return True

    def resume(self) -> None:
        keeper = self._keeper()
        assert keeper is not None
        kind, size = SwapType(keeper.swap_info & 0x0F), keeper.swap_size
        if keeper is self.scratch and keeper.progress() == 0:
            self._begin(kind, size)
        self._carry_out(kind, size)

    def _begin(self, kind: SwapType, size: int) -> None:
        """Note what is going on: in the scratch area, and in the primary if its trailer may stay where it is."""
        good = self.secondary.image_ok is Mark.SET
        self.scratch.erase()
        self._write_trailer(self.scratch, kind, size, good)
        if not self._reaches_trailer(size):
            self.primary.erase_trailer()
            self._write_trailer(self.primary, kind, size, good)

    def _write_trailer(self, slot: Slot, kind: SwapType, size: int, good: bool) -> None:
        slot.write_swap_info(kind, self.image_number)
        if good:
            slot.write_image_ok()
        slot.write_swap_size(size)
        slot.write_magic()

    def _reaches_trailer(self, size: int) -> bool:
        primary = self.primary
        return size > (primary.sectors - primary.trailer_sectors) * primary.sector_size

    def _carry_out(self, kind: SwapType, size: int) -> None:
        primary = self.primary
        unit = primary.sector_size
        first_in_scratch = self._reaches_trailer(size) and self._keeper() is self.scratch
        done = (self.scratch if first_in_scratch else primary).progress()
        end = -(-size // unit)
        record = 0
        while end:
            start = max(0, end - self.scratch.sectors)
            if done < record + self._STATES:
                in_scratch = record == 0 and self._reaches_trailer(size)
                self._swap_chunk(start, end, record, done, in_scratch, kind, size)
            record += self._STATES
            end = start
        if kind is SwapType.REVERT and primary.image_ok is Mark.UNSET:
            primary.write_image_ok()
        primary.write_copy_done()

    def _swap_chunk(
        self, start: int, end: int, record: int, done: int, in_scratch: bool, kind: SwapType, size: int
    ) -> None:
        """Swap the sectors from `start` to before `end`; of the progress, `done` records are there already."""
        primary, secondary, scratch = self.primary, self.secondary, self.scratch
        keeper = scratch if in_scratch else primary
        offset = start * primary.sector_size
        length = (end - start) * primary.sector_size
        if in_scratch:
            # The trailers of both keep their place; no image reaches further.
            length = min(length, primary.size - primary.trailer.size - offset, scratch.size - scratch.trailer.size)
        if done <= record:
            if not in_scratch:
                scratch.erase()
            scratch.copy_from(secondary, offset, 0, length)
            keeper.write_progress(record)
        if done <= record + 1:
            if record == 0:
                secondary.erase_trailer()
            for sector in range(start, end):
                secondary.erase_sector(sector)
            secondary.copy_from(primary, offset, offset, length)
            keeper.write_progress(record + 1)
        if in_scratch:
            primary.erase_trailer()
        for sector in range(start, end):
            primary.erase_sector(sector)
        primary.copy_from(scratch, 0, offset, length)
        if in_scratch:
            primary.write_progress(record, 2)
            self._write_trailer(primary, kind, size, scratch.image_ok is Mark.SET)
        primary.write_progress(record + 2)


def _unprotected_tlv_bytes(image: bytes) -> int:
    return len(image) - parse_header(image).hashed_size


class Overwrite(Install):
    """Copy the secondary over the primary: no way back. `fast` copies the image only, else the whole slot."""

    def __init__(self, primary: Slot, secondary: Slot, image_number: int = 0, *, fast: bool = True) -> None:
        super().__init__(primary, secondary, image_number)
        self.fast = fast

    def max_image(self) -> int | None:
        size = min(self.primary.size, self.secondary.size)
        return size - self.primary.trailer.swap_info_offset

    def interrupted(self) -> SwapType | None:
        return None  # the mark on the secondary stays until the end, so the copy just starts again

    def resume(self) -> None:
        raise AssertionError("an overwrite is never resumed")

    def start(self, kind: SwapType) -> bool:
        self._copy()
        # Header and trailer go, so that it is not installed again; the rest is left to the next upload.
        self.secondary.erase_sector(0)
        self.secondary.erase_sector(self.secondary.sectors - 1)
        return True

    def blank_secondary(self, kind: SwapType) -> None:
        pass  # such a mark is never cleaned up

    def bootstrap(self, image_offset: int) -> None:
        """Fill an unusable primary with the image at `image_offset` of the secondary, keeping it there too."""
        self._copy(image_offset)
        self.secondary.erase_trailer()

    def _copy(self, offset: int = 0) -> None:
        primary, secondary = self.primary, self.secondary
        if not self.fast:
            primary.erase()
            primary.copy_from(secondary, 0, 0, min(primary.size, secondary.size))
            return
        image = secondary.image_bytes(offset)
        size = len(image) if image is not None else 0
        for sector in range(-(-size // primary.sector_size)):
            primary.erase_sector(sector)
        first = primary.sectors - primary.trailer_sectors
        for sector in range(first, primary.sectors):
            primary.erase_sector(sector)
        if size > first * primary.sector_size:
            length = primary.size - offset
        else:
            # One write unit more where the image ends at one, as bootutil has it.
            unit = primary.flash.write_size
            length = (size // unit + 1) * unit
        primary.copy_from(secondary, offset, 0, length)
        primary.write_magic()
