"""MCUboot's serial recovery: the small SMP server of the bootloader, which takes an image while no application runs.

It is a server of its own beside the application's, with its own rules: no checks of what is written, errors as plain
`rc`, `rc: 0` in some answers. When a device is in it is `device`'s business.

Sources: MCUboot `boot/boot_serial/src/boot_serial.c`, `boot/zephyr/serial_adapter.c`,
`boot/zephyr/Kconfig.serial_recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import Image, ImageFlag, parse_image
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import HEADER_SIZE, GroupId, Header, Op
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Bootloader, Mode, SwapType
from mcumgrx.sim.config import RecoveryConfig
from mcumgrx.sim.flash import FlashError
from mcumgrx.sim.groups import MISSING, Device, Refused, encode, read_map
from mcumgrx.sim.pairs import SLOTS_PER_IMAGE

if TYPE_CHECKING:
    from mcumgrx.sim.slots import Slot

Body = Mapping[str, Any]
HASH_BYTES = 32


@dataclass(slots=True)
class RecoveryUpload:
    """The upload under way: `image` as the first chunk named it, `erased` how far the flash is ready for it."""

    image: int = 0
    size: int = 0
    offset: int = 0
    erased: int = 0


@dataclass(slots=True)
class RecoveryServer:
    """The server. `handle` takes one message; the device asks it only while it is in recovery.

    Everything it knows is in RAM and gone with the next reset, but for what is in the flash.
    """

    device: Device
    config: RecoveryConfig
    upload: RecoveryUpload = field(default_factory=RecoveryUpload)

    def restarted(self) -> None:
        self.upload = RecoveryUpload()

    # -- messages -----------------------------------------------------------------------------------------------------

    def handle(self, message: bytes) -> tuple[bytes, ...]:
        """The answers to one message; none to what it drops without a word.

        Dropped are messages of another op than read and write, cut headers, and payloads longer than the header says.
        A shorter one is taken.
        """
        if len(message) < HEADER_SIZE:
            return ()
        header = Header.unpack(message)
        payload = message[HEADER_SIZE:]
        if header.op not in (Op.READ, Op.WRITE) or len(payload) > header.length:
            return ()
        try:
            answer = self._handler(header)(payload)
            bodies: tuple[Body, ...] = answer if isinstance(answer, tuple) else (answer,)
        except Refused as refusal:
            bodies = ({"rc": int(refusal.rc)},)
        return tuple(_reply(message, body) for body in bodies)

    def _handler(self, header: Header) -> Callable[[bytes], Body | tuple[Body, ...]]:
        """What carries a command out. Most look at no op: params, console echo, reset and upload take both."""
        config = self.config
        command = header.group, header.command
        if command == (GroupId.IMAGE, 0) and (config.image_list or header.op != Op.READ):
            return self._list if header.op == Op.READ else self._set_state
        handlers: dict[tuple[int, int], tuple[bool, Callable[[bytes], Body | tuple[Body, ...]]]] = {
            (GroupId.OS, 0): (config.echo, self._echo),
            (GroupId.OS, 1): (True, lambda payload: {"rc": 0}),  # console echo: there is nothing to switch off
            (GroupId.OS, 5): (True, self._reset),
            (GroupId.OS, 6): (config.params, self._params),
            (GroupId.IMAGE, 1): (True, self._upload),
            (GroupId.IMAGE, 6): (config.slot_info, lambda payload: self._slot_info(header.op)),
            (GroupId.ZEPHYR_BASIC, 0): (config.storage_erase, self._erase_storage),
        }
        there, handler = handlers.get(command, (False, self._echo))
        if not there:
            raise Refused(SmpError.NOT_SUPPORTED)
        return handler

    # -- group 0 ------------------------------------------------------------------------------------------------------

    def _echo(self, payload: bytes) -> Body:
        return {"r": read_map(payload, {"d": "text"}).get("d", "")}

    def _reset(self, payload: bytes) -> Body:
        self.device.request_reset()
        return {"rc": 0}

    def _params(self, payload: bytes) -> Body:
        return {"buf_size": self.config.buf_size, "buf_count": 1}

    def _erase_storage(self, payload: bytes) -> Body:
        self.device.erase_storage()
        return {"rc": 0}

    # -- images -------------------------------------------------------------------------------------------------------

    @property
    def _slots(self) -> tuple[Slot, ...]:
        return tuple(slot for loader in self.device.bootloaders for slot in loader.slots if slot.size)

    def _loader(self, slot: int) -> Bootloader:
        return self.device.bootloaders[slot // SLOTS_PER_IMAGE]

    def _image(self, slot: int) -> Image | None:
        """The image in a slot if it proves good, which takes its time."""
        bootloader = self._loader(slot)
        offset = 0
        if slot % SLOTS_PER_IMAGE == SECONDARY and bootloader.swap_type() is not SwapType.REVERT:
            offset = bootloader.upload_offset
        area = self._slots[slot]
        if not area.has_magic(offset):
            return None
        data = area.image_bytes(offset)
        self.device.flash.busy_s += self.config.verify_s + self.config.verify_s_per_byte * len(data or b"")
        try:
            image = parse_image(data or b"")
        except ImageError:
            return None
        return image if bootloader.verify(image) else None

    def _list(self, payload: bytes = b"") -> Body:
        images = []
        for slot in range(len(self._slots)):
            image = self._image(slot)
            if image is None:
                continue
            number, side = divmod(slot, SLOTS_PER_IMAGE)
            entry: dict[str, Any] = {"image": number} if len(self.device.bootloaders) > 1 else {}
            if self.config.image_state:
                entry |= dict.fromkeys(self._flags(slot, image), True)
            told = {"hash": image.hash} if self.config.hashes else {}
            entry |= {"slot": side, **told, "version": image.header.version.device_text}
            images.append(entry)
        return {"images": images}

    def _flags(self, slot: int, image: Image) -> list[str]:
        """The flags that are set, in the order of the answer."""
        kind = self._loader(slot).swap_type()
        slot %= SLOTS_PER_IMAGE
        confirmed = slot == (SECONDARY if kind is SwapType.REVERT else PRIMARY)
        flags = {
            "active": slot == PRIMARY and kind in (SwapType.NONE, SwapType.REVERT),
            "bootable": ImageFlag.NON_BOOTABLE not in image.header.flags,
            "confirmed": confirmed,
            "pending": slot == SECONDARY and kind in (SwapType.TEST, SwapType.PERM),
            "permanent": slot == SECONDARY and kind is SwapType.PERM,
        }
        return [name for name, is_set in flags.items() if is_set]

    def _set_state(self, payload: bytes) -> Body:
        """Mark the secondary for the next boot. Which slot has the hash makes no difference (MCUboot's own rule).

        A test that is pending already stays one, and the answer is a success all the same.
        """
        bootloader = self.device.bootloader
        if not self.config.image_state or bootloader.mode in (Mode.DIRECT_XIP, Mode.RAM_LOAD):
            raise Refused(SmpError.NOT_SUPPORTED)
        wanted = read_map(payload, {"confirm": "flag", "hash": "bytes"})
        digest: bytes = wanted.get("hash", b"")
        if digest:
            if len(digest) != HASH_BYTES:
                raise Refused(SmpError.INVALID)
            images = [self._image(slot) for slot in range(len(self._slots))]
            found = [slot for slot, image in enumerate(images) if image is not None and image.hash == digest]
            if not found:
                raise Refused(SmpError.NO_ENTRY)
            bootloader = self._loader(found[0])
        elif len(self.device.bootloaders) > 1:
            raise Refused(SmpError.INVALID)
        rc = bootloader.set_pending(wanted.get("confirm", False))
        if rc:
            raise Refused(rc)
        return self._list()

    def _slot_info(self, op: int) -> tuple[Body, ...]:
        images: dict[int, list[dict[str, int]]] = {}
        for slot, area in enumerate(self._slots):
            image, side = divmod(slot, SLOTS_PER_IMAGE)
            entry = {"slot": side, "size": area.size}
            if self.config.direct_upload:
                entry["upload_image_id"] = slot + 1
            elif side == PRIMARY:
                entry["upload_image_id"] = image
            images.setdefault(image, []).append(entry)
        told: Body = {"images": [{"image": image, "slots": slots} for image, slots in images.items()]}
        # A write is refused, and then answered all the same.
        return (told,) if op == Op.READ else ({"rc": int(SmpError.NOT_SUPPORTED)}, told)

    # -- upload -------------------------------------------------------------------------------------------------------

    def _upload(self, payload: bytes) -> Body:
        chunk = read_map(payload, {"image": "uint", "data": "bytes", "len": "uint", "off": "uint"})
        offset: int = chunk.get("off", MISSING)
        data: bytes | None = chunk.get("data")
        if offset == MISSING or data is None:
            raise Refused(SmpError.INVALID)
        upload = self.upload
        if offset == 0:
            upload.image = chunk.get("image", 0)
        area, start = self._target(upload.image)
        if offset == 0:
            self._begin(area, chunk.get("len", MISSING))
        elif offset != upload.offset:
            return {"rc": 0, "off": upload.offset}
        elif offset + len(data) > upload.size:
            raise Refused(SmpError.INVALID)
        try:
            self._take(area, start, data)
        except FlashError as error:
            raise Refused(SmpError.INVALID) from error
        return {"rc": 0, "off": upload.offset}

    def _target(self, image: int) -> tuple[Slot, int]:
        """The slot that this number stands for, and where an image begins in it."""
        slots = self._slots
        if self.config.direct_upload:
            slot = max(0, image - 1)
        elif len(self.device.bootloaders) > 1:
            slot = image * SLOTS_PER_IMAGE
        else:
            slot = PRIMARY if image == 0 else len(slots)
        if slot >= len(slots):
            raise Refused(SmpError.INVALID)
        return slots[slot], self._loader(slot).upload_offset if slot % SLOTS_PER_IMAGE == SECONDARY else 0

    def _begin(self, area: Slot, size: int) -> None:
        """A first chunk begins anew, whatever was there, even where it is then refused."""
        upload = self.upload
        upload.offset = 0
        if size > area.size:
            raise Refused(SmpError.INVALID)
        upload.erased = 0
        if not self.config.erase_progressively:
            area.erase()
            upload.erased = area.size
        upload.size = size

    def _take(self, area: Slot, start: int, data: bytes) -> None:
        """Write the whole units of a chunk, and of the last one all; what is left out is asked for again."""
        upload = self.upload
        unit = self.device.flash.write_size
        end = upload.offset + len(data)
        taken = len(data) if end >= upload.size else len(data) // unit * unit
        if data:
            self._erase_up_to(area, start + end)
        if start + upload.offset + taken > area.size:
            raise FlashError("the upload does not fit the slot")
        if taken:
            area.write(start + upload.offset, data[:taken])
        upload.offset += taken
        if upload.offset == upload.size and self.config.erase_progressively:
            # The trailer's first sector, so that no old mark is left: only where the image has not reached it.
            sector = (area.size - area.trailer.size) // area.sector_size
            for index in range(sector, area.sectors):
                if index * area.sector_size >= upload.erased:
                    area.erase_sector(index)

    def _erase_up_to(self, area: Slot, end: int) -> None:
        upload = self.upload
        if self.config.erase_progressively and end > area.size:
            raise FlashError("the upload does not fit the slot")
        while upload.erased < end and upload.erased < area.size:
            area.erase_sector(upload.erased // area.sector_size)
            upload.erased += area.sector_size


def _reply(message: bytes, body: Body) -> bytes:
    """The answer: version and reserved bits as they came, everything else as an answer has it."""
    payload = encode(body)
    first = message[0] & ~0x07 | (message[0] & 0x07) + 1
    return bytes([first, 0]) + len(payload).to_bytes(2, "big") + message[4:HEADER_SIZE] + payload
