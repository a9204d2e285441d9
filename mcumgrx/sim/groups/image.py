"""Group 1 of the simulated device: image list, test and confirm, upload, erase, slot information.

Slots are counted over all images here, two for each, as Zephyr does it; answers count them within an image.

Sources: Zephyr `subsys/mgmt/mcumgr/grp/img_mgmt/src/` (`img_mgmt.c`, `img_mgmt_state.c`, `zephyr_img_mgmt.c`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import MAGIC_BYTES, ImageFlag, ImageHeader, TlvType, parse_header, parse_image, parse_tlvs
from mcumgrx.protocol.codes import ImageErrorCode, SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Bootloader, Mode, SwapType
from mcumgrx.sim.flash import FlashError
from mcumgrx.sim.groups import MISSING, Call, Device, GroupError, GroupServer, Refused, Unanswered
from mcumgrx.sim.groups.in_place import next_boot
from mcumgrx.sim.pairs import SLOTS_PER_IMAGE
from mcumgrx.sim.slots import Slot

SHA_BYTES = 32
"""Longest `sha` of an upload: a SHA-256 of the whole file, whatever hash the images have."""
_HASH_TLVS = {32: TlvType.SHA256, 48: TlvType.SHA384, 64: TlvType.SHA512}
HEADER_BYTES = 32
BLOCK_BYTES = 512
"""Uploads are written through a buffer of this size (`CONFIG_IMG_BLOCK_BUF_SIZE`)."""

_ONE_SLOT = frozenset({Mode.SINGLE_SLOT, Mode.SINGLE_SLOT_RAM_LOAD})
_NO_STATE = _ONE_SLOT | {Mode.DIRECT_XIP, Mode.RAM_LOAD, Mode.FIRMWARE_LOADER}
"""Modes in whose builds test and confirm do not exist, unless RAM load can revert."""


@dataclass(slots=True)
class UploadSession:
    """The upload under way: in RAM, one for the whole device, not tied to a connection.

    `offset` counts the bytes taken, of which the last `len(buffer)` are not in the flash yet; `erased` how much of the
    slot has been erased for it.
    """

    slot: int
    size: int
    sha: bytes
    offset: int = 0
    erased: int = 0
    buffer: bytearray = field(default_factory=bytearray)


# What the request asks of which slot, in each state of the next boot → None if done, or the code of the refusal.
# Rows: the swap type the trailers tell. "confirm running" holds with and without its hash.
_OK = None
_PENDING = ImageErrorCode.IMAGE_ALREADY_PENDING
_RUNNING = ImageErrorCode.IMAGE_SETTING_TEST_TO_ACTIVE_DENIED
_SET_STATE: Mapping[SwapType, tuple[ImageErrorCode | None, ...]] = {
    #                test other, confirm other, test running, confirm running
    SwapType.NONE: (_OK, _OK, _RUNNING, _OK),
    SwapType.TEST: (_OK, _PENDING, _RUNNING, _PENDING),
    SwapType.PERM: (_PENDING, _OK, _RUNNING, _PENDING),
    SwapType.REVERT: (_PENDING, _OK, _RUNNING, _OK),
}

# Flags of the running slot and of the other one, by the same swap types.
_FLAGS: Mapping[SwapType, tuple[frozenset[str], frozenset[str]]] = {
    SwapType.NONE: (frozenset({"confirmed", "active"}), frozenset()),
    SwapType.TEST: (frozenset({"confirmed", "active"}), frozenset({"pending"})),
    SwapType.PERM: (frozenset({"confirmed", "active"}), frozenset({"pending", "permanent"})),
    SwapType.REVERT: (frozenset({"active"}), frozenset({"confirmed"})),
}


class ImageServer(GroupServer):
    """The image group."""

    group: ClassVar[int] = GroupId.IMAGE
    name = "img mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        ImageErrorCode.NO_IMAGE: SmpError.NO_ENTRY,
        ImageErrorCode.NO_TLVS: SmpError.NO_ENTRY,
        ImageErrorCode.NO_FREE_SLOT: SmpError.BAD_STATE,
        ImageErrorCode.INVALID_SLOT: SmpError.INVALID,
        ImageErrorCode.NO_FREE_MEMORY: SmpError.NO_MEMORY,
        ImageErrorCode.INVALID_PAGE_OFFSET: SmpError.INVALID,
        ImageErrorCode.INVALID_OFFSET: SmpError.INVALID,
        ImageErrorCode.INVALID_LENGTH: SmpError.INVALID,
        ImageErrorCode.INVALID_IMAGE_HEADER: SmpError.INVALID,
        ImageErrorCode.INVALID_HASH: SmpError.INVALID,
        ImageErrorCode.INVALID_FLASH_ADDRESS: SmpError.INVALID,
        ImageErrorCode.CURRENT_VERSION_IS_NEWER: SmpError.BAD_STATE,
        ImageErrorCode.IMAGE_ALREADY_PENDING: SmpError.BAD_STATE,
    }

    def __init__(self, device: Device) -> None:
        super().__init__(
            {
                (Op.READ, 0): self.state,
                (Op.WRITE, 0): self.set_state,
                (Op.WRITE, 1): self.upload,
                (Op.WRITE, 5): self.erase,
                (Op.READ, 6): self.slot_info,
            }
        )
        self.device = device
        self.session: UploadSession | None = None

    def restarted(self) -> None:
        self.session = None

    # -- slots --------------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(slot for loader in self.device.bootloaders for slot in loader.slots if slot.size)

    @property
    def running(self) -> int:
        return self.device.running_slot

    def _loader(self, slot: int) -> Bootloader:
        """What the bootloader knows of the image that a slot belongs to."""
        return self.device.bootloaders[slot // SLOTS_PER_IMAGE]

    def _runs(self, slot: int) -> bool:
        """Whether it is the slot from which its image runs."""
        return slot in self.device.running_slots

    def _other(self, slot: int) -> int:
        """The other slot of the same image."""
        return slot ^ 1

    def _swap_type(self, slot: int) -> SwapType:
        return self._loader(slot).swap_type()

    def _image_offset(self, slot: int) -> int:
        """Where the server looks for the image in a slot.

        Swap using offset keeps new images one sector further, but the old one, while it can be gone back to, at the
        start. Once that is over, the old image is looked for in the wrong place, and not listed any more.
        """
        if slot % SLOTS_PER_IMAGE == PRIMARY or self._swap_type(slot) is SwapType.REVERT:
            return 0
        return self._loader(slot).upload_offset

    def read_image(self, slot: int) -> tuple[ImageHeader, bytes] | None:
        """Header and hash of the image in a slot, or None where the server would not list it.

        Nothing is computed: an image whose content is wrong is listed as well.
        """
        area = self.slots[slot]
        offset = self._image_offset(slot)
        try:
            data = area.read(offset, area.size - offset)
            header = parse_header(data)
            tlvs, end = parse_tlvs(data, header)
        except ImageError:
            return None
        if offset and offset + end > area.size - MAGIC_BYTES:
            return None  # seen of an image that ends where its slot ends: complete, and yet not listed
        size = self.device.config.hash_size
        hashes = [tlv.value for tlv in tlvs if tlv.type == _HASH_TLVS[size] and not tlv.protected]
        return (header, hashes[0]) if len(hashes) == 1 and len(hashes[0]) == size else None

    def _in_use(self, slot: int) -> bool:
        """Whether a slot may not be written: it runs, or is the way back. A pending one may be in the default build."""
        if self._runs(slot):
            return True
        if self.device.bootloader.mode is Mode.DIRECT_XIP:
            return False
        kind = self._next_boot(slot)
        pending = kind in (SwapType.TEST, SwapType.PERM)
        return kind is SwapType.REVERT or (pending and not self.device.config.erases_pending)

    def _only_in_loader(self) -> None:
        """With a firmware loader the application writes no images. Raises `Refused`."""
        if self.device.bootloader.mode is Mode.FIRMWARE_LOADER and self.running == PRIMARY:
            raise Refused(SmpError.NOT_SUPPORTED)

    # -- state --------------------------------------------------------------------------------------------------------

    def state(self, call: Call) -> dict[str, Any]:
        frugal = call.device.config.frugal_list
        return {"images": list(self._listed(frugal)), **({} if frugal else {"splitStatus": 0})}

    def _listed(self, frugal: bool) -> Iterator[dict[str, Any]]:
        for slot in range(len(self.slots)):
            found = self.read_image(slot)
            if found is None:
                continue
            header, digest = found
            set_flags = set(self._flags(slot))
            if ImageFlag.NON_BOOTABLE not in header.flags and self._is_whole(slot):
                set_flags.add("bootable")
            image, side = divmod(slot, SLOTS_PER_IMAGE)
            entry: dict[str, Any] = {"image": image} if len(self.device.bootloaders) > 1 else {}
            entry |= {"slot": side, "version": header.version.device_text, "hash": digest}
            for flag in ("bootable", "pending", "confirmed", "active", "permanent"):
                if flag in set_flags or not frugal:
                    entry[flag] = flag in set_flags
            yield entry

    def _flags(self, slot: int) -> frozenset[str]:
        running, other = _FLAGS.get(self._next_boot(slot), _FLAGS[SwapType.NONE])
        return running if self._runs(slot) else other

    @property
    def _chosen_by_marks(self) -> bool:
        """The newest image runs that is marked, where it lies or from RAM."""
        return self.device.bootloader.reverts_in_place

    def _is_whole(self, slot: int) -> bool:
        """Whether the images that the manifest in a slot names lie in the slots beside it; where there is none, too."""
        if not self.device.config.manifest or slot >= SLOTS_PER_IMAGE:
            return True
        try:
            named = parse_image(self.slots[slot].image_bytes() or b"").manifest
        except ImageError:
            return False
        found = [self.read_image(one) for one in range(slot + SLOTS_PER_IMAGE, len(self.slots), SLOTS_PER_IMAGE)]
        return named == tuple(None if one is None else one[1] for one in found)

    def _next_boot(self, slot: int) -> SwapType:
        """What the next boot does with the image of a slot, in the words of swaps."""
        if self.device.config.manifest:
            slot %= SLOTS_PER_IMAGE  # the flags of all mirror those of the manifest's image
        loader = self._loader(slot)
        if loader.mode is not Mode.DIRECT_XIP and not self._chosen_by_marks:
            return loader.swap_type()
        first = slot // SLOTS_PER_IMAGE * SLOTS_PER_IMAGE
        found = [self.read_image(one) for one in range(first, first + SLOTS_PER_IMAGE)]
        versions = [None if one is None else one[0].version for one in found]
        return next_boot(loader, self.device.running_slots[slot // SLOTS_PER_IMAGE] - first, versions)

    def set_state(self, call: Call) -> dict[str, Any]:
        mode = self.device.bootloader.mode
        if mode in _NO_STATE and not self._chosen_by_marks:
            raise Refused(SmpError.NOT_SUPPORTED)
        wanted = call.read(hash="bytes", confirm="flag")
        confirm: bool = wanted.get("confirm", False)
        digest: bytes = wanted.get("hash", b"")
        if digest:
            if len(digest) != self.device.config.hash_size:
                raise GroupError(ImageErrorCode.INVALID_HASH)
            slot = self._holding(digest)
        elif confirm:
            slot = self.running
        else:
            raise GroupError(ImageErrorCode.INVALID_HASH)
        if self._chosen_by_marks:
            self._set_next_in_place(slot, confirm)
            return self.state(call)
        if slot >= SLOTS_PER_IMAGE and confirm and self._runs(slot) and not self.device.config.confirms_other_images:
            # Whether another core's image works is not for this application to say.
            raise GroupError(ImageErrorCode.IMAGE_CONFIRMATION_DENIED)
        self._set_next(slot, confirm)
        return self.state(call)

    def _holding(self, digest: bytes) -> int:
        """The first slot with this hash, even where both have it."""
        for slot in range(len(self.slots)):
            found = self.read_image(slot)
            if found is not None and found[1] == digest:
                return slot
        raise GroupError(ImageErrorCode.HASH_NOT_FOUND)

    def _set_next(self, slot: int, confirm: bool) -> None:
        loader, runs = self._loader(slot), self._runs(slot)
        swap_type = loader.swap_type()
        column = (2 if runs else 0) + confirm
        refusal = _SET_STATE.get(swap_type, _SET_STATE[SwapType.NONE])[column]
        if refusal is not None:
            raise GroupError(refusal)
        if not runs and confirm and not self.device.config.confirms_other:
            raise GroupError(ImageErrorCode.IMAGE_CONFIRMATION_DENIED)
        if runs or swap_type is SwapType.NONE:
            wrong = ImageErrorCode.INVALID_IMAGE_VECTOR_TABLE if runs else ImageErrorCode.INVALID_IMAGE_HEADER_MAGIC
            if loader.set_next(slot % SLOTS_PER_IMAGE, active=runs, confirm=confirm):
                raise GroupError(wrong)

    def _set_next_in_place(self, slot: int, confirm: bool) -> None:
        """Nothing but the trailer of the slot counts, whatever its image; what is there already is left as it is."""
        loader, runs = self._loader(slot), self._runs(slot)
        side = slot % SLOTS_PER_IMAGE
        if runs and not confirm:
            raise GroupError(ImageErrorCode.IMAGE_SETTING_TEST_TO_ACTIVE_DENIED)
        if confirm and not runs and not self.device.config.confirms_other:
            raise GroupError(ImageErrorCode.IMAGE_CONFIRMATION_DENIED)
        if loader.set_next(side, active=runs, confirm=confirm):
            raise GroupError(ImageErrorCode.INVALID_IMAGE_HEADER_MAGIC)
        if not confirm and self.device.config.test_sets_preference:
            loader.preferred = side

    # -- upload -------------------------------------------------------------------------------------------------------

    def upload(self, call: Call) -> dict[str, Any]:
        self._only_in_loader()
        chunk = call.read(image="uint", data="bytes", len="uint", off="uint", sha="bytes", upgrade="flag")
        try:
            return self._upload(chunk)
        except GroupError:
            if not self.device.config.session_survives:
                self.session = None  # every one of them: resuming is over
            raise

    def _upload(self, chunk: dict[str, Any]) -> dict[str, Any]:
        offset: int = chunk.get("off", MISSING)
        data: bytes = chunk.get("data", b"")
        if offset == MISSING:
            raise GroupError(ImageErrorCode.INVALID_OFFSET, rsn="header malformed")
        if offset == 0:
            answer = self._begin(chunk, data)
            if answer is not None:
                return answer
        session = self.session
        if session is None:
            return {"off": 0}
        if offset != session.offset:
            return {"off": session.offset}
        if offset and offset + len(data) > session.size:
            raise GroupError(ImageErrorCode.INVALID_IMAGE_DATA_OVERRUN, rsn="data overrun")
        return self._take(session, data)

    def _begin(self, chunk: dict[str, Any], data: bytes) -> dict[str, Any] | None:
        """The first chunk: check it, and make a session for it; an answer if that is all there is to do."""
        size: int = chunk.get("len", MISSING)
        sha: bytes = chunk.get("sha", b"")
        if len(data) < HEADER_BYTES:
            raise GroupError(ImageErrorCode.INVALID_IMAGE_HEADER, rsn="header malformed")
        if size == MISSING:
            raise GroupError(ImageErrorCode.INVALID_LENGTH, rsn="header malformed")
        try:
            header = parse_header(data)
        except ImageError as error:
            raise GroupError(ImageErrorCode.INVALID_IMAGE_HEADER_MAGIC, rsn="magic mismatch") from error
        if len(sha) > SHA_BYTES:
            raise GroupError(ImageErrorCode.INVALID_HASH)
        if sha and self.session is not None and self.session.sha == sha:
            return {"off": self.session.offset}  # resumed: nothing else of this request is looked at
        slot = self._target(chunk.get("image", 0))
        if self.device.config.size_check and size > self.slots[slot].size:
            raise GroupError(ImageErrorCode.INVALID_IMAGE_TOO_LARGE, rsn="img too large")
        if chunk.get("upgrade", False):
            running = self.read_image(self.running)
            if running is None:
                raise GroupError(ImageErrorCode.VERSION_GET_FAILED)
            if running[0].version[:3] >= header.version[:3]:  # the build number does not count by default
                raise GroupError(ImageErrorCode.CURRENT_VERSION_IS_NEWER, rsn="downgrade")
        self.session = UploadSession(slot, size, sha)
        if self._matches(self.session):
            self.session = None
            return {"off": size, "match": True}
        self._prepare(self.session)
        return None

    def _target(self, image: int) -> int:
        """The slot that an upload goes to. Raises `GroupError`."""
        wanted: Sequence[int] = range(len(self.slots))
        if self.device.config.direct_upload and image:
            wanted = [image - 1] if image <= len(self.slots) else []
        elif len(self.device.bootloaders) > 1:
            wanted = [self._other(slot) for slot in self.device.running_slots[image : image + 1]]
        for slot in wanted:
            if not self._in_use(slot):
                return slot
        raise GroupError(ImageErrorCode.NO_FREE_SLOT, rsn="no slot")

    def _prepare(self, session: UploadSession) -> None:
        """Make room: the sectors of the image and of the trailer, unless the whole slot is empty already."""
        area = self.slots[session.slot]
        if self.device.flash.is_erased(area.offset, area.size):
            session.erased = area.size
            return
        try:
            if not self.device.config.erase_progressively:
                self._erase_up_to(session, session.size)
            for sector in range(area.sectors - area.trailer_sectors, area.sectors):
                if sector * area.sector_size >= session.erased:
                    area.erase_sector(sector)
        except FlashError as error:
            raise GroupError(ImageErrorCode.FLASH_ERASE_FAILED, rsn="fa erase fail") from error

    def _erase_up_to(self, session: UploadSession, end: int) -> None:
        area = self.slots[session.slot]
        start = self._upload_offset(session)
        if start and start + end > area.size:
            # The first sector is the bootloader's in a swap using offset: the check of the size does not know that.
            raise FlashError(f"the upload does not fit the {area.name} slot")
        end = min(start + end, area.size)
        while session.erased < end:
            area.erase_sector(session.erased // area.sector_size)
            session.erased += area.sector_size

    def _upload_offset(self, session: UploadSession) -> int:
        return self._loader(session.slot).upload_offset if session.slot % SLOTS_PER_IMAGE == SECONDARY else 0

    def _take(self, session: UploadSession, data: bytes) -> dict[str, Any]:
        end = session.offset + len(data)
        if self.device.config.cuts_chunks and end < session.size:
            data = data[: max(0, len(data) - end % self.device.flash.write_size)]
            end = session.offset + len(data)
        if not self.device.config.size_check and end > self.slots[session.slot].size - self._upload_offset(session):
            raise Unanswered
        session.buffer += data
        session.offset += len(data)
        done = session.offset == session.size
        written = session.offset - len(session.buffer)
        whole = len(session.buffer) if done else len(session.buffer) // BLOCK_BYTES * BLOCK_BYTES
        if whole:
            area = self.slots[session.slot]
            try:
                if self.device.config.erase_progressively:
                    self._erase_up_to(session, written + whole)
                area.write(self._upload_offset(session) + written, bytes(memoryview(session.buffer)[:whole]))
            except FlashError as error:
                raise GroupError(ImageErrorCode.FLASH_WRITE_FAILED, rsn="fa write fail") from error
            del session.buffer[:whole]
        answer: dict[str, Any] = {"off": session.offset}
        if done:
            if self.device.config.image_check:
                answer["match"] = self._matches(session)
            self.session = None
        return answer

    def _matches(self, session: UploadSession) -> bool:
        """Whether the slot holds what was announced, on builds that check it."""
        if not self.device.config.image_check or len(session.sha) != SHA_BYTES:
            return False
        content = self.slots[session.slot].read(self._upload_offset(session), session.size)
        return hashlib.sha256(content).digest() == session.sha

    # -- erase and slots ----------------------------------------------------------------------------------------------

    def erase(self, call: Call) -> dict[str, Any]:
        self._only_in_loader()
        slot: int = call.read(slot="uint").get("slot", self._other(self.running))
        there = slot < len(self.slots)
        if there and self.read_image(slot) is not None and self._in_use(slot):
            raise GroupError(ImageErrorCode.NO_FREE_SLOT)
        if not self.device.config.session_survives:
            self.session = None  # whether the erase succeeds or fails; only "in use" comes before (`img_mgmt_erase`)
        if not there:
            raise GroupError(ImageErrorCode.FLASH_OPEN_FAILED)
        area = self.slots[slot]
        if not self.device.flash.is_erased(area.offset, area.size):
            area.erase()
        return {}

    def slot_info(self, call: Call) -> dict[str, Any]:
        if not self.device.config.slot_info:
            raise Refused(SmpError.NOT_SUPPORTED)
        images: dict[int, list[dict[str, int]]] = {}
        for slot, area in enumerate(self.slots):
            image, side = divmod(slot, SLOTS_PER_IMAGE)
            entry = {"slot": side, "size": area.size}
            if not self._runs(slot):
                entry["upload_image_id"] = slot + 1 if self.device.config.direct_upload else image
            images.setdefault(image, []).append(entry)
        return {"images": [{"image": image, "slots": slots} for image, slots in images.items()]}
