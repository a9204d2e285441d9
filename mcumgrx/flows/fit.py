"""Does this file fit this device, in the way that is wanted? All that can be known before the first byte is sent.

What can only go wrong is refused, with the way out; what may go wrong is a warning where the old image comes back by
itself, and a refusal where it does not. Sources: MCUboot's `bootutil` (boot validation, trailer, modes), imgtool, and
the server's own checks (Zephyr `img_mgmt`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Dependency, Image, ImageFlag, TlvType, TrailerLayout
from ..mcuboot.variants import linked_at
from ..messages.standard import BootloaderMode, Slot
from .device_state import DeviceState, Kind, read_version, shown_version
from .policy import DfuPolicy, Mode
from .variants import linked_slot, other_variant

__all__ = ["Fit"]

_IN_PLACE = (Kind.NEWEST, Kind.NEWEST_REVERT, Kind.NEWEST_MAYBE_REVERT)

_LEAST_SECTOR = 512
_LEAST_TRAILER = TrailerLayout(write_size=1, max_sectors=1)
_USUAL_TRAILER = TrailerLayout()
_USUAL_SECTOR = 4096
"""Flash pages of 4 KiB are the usual ones; the device tells neither these nor its trailer."""


@dataclass
class Fit:
    """The checks of one file for one device; `notes` and `warnings` are what they found.

    Each method raises `PlanRefused` for what it refuses. `sent` is the image as it would be sent. `files` are those of
    the whole update, by the numbers of their images; `together`: more than one is installed by the same reset.
    `in_place`: the file overwrites the application, which no bootloader takes back.
    """

    image: Image
    state: DeviceState
    policy: DfuPolicy
    slot: int
    files: Mapping[int, Image]
    together: bool
    in_place: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    no_way_back: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kind = self.state.kind
        self.number = self.policy.image
        self.running = self.state.images.active(self.number)
        self.new = str(self.image.version)
        self.sent = self.image.without_padding() if self.policy.trim else self.image

    # What the mode promises.

    @property
    def stays_staged(self) -> bool:
        """Nothing is installed: the file is only put into the device."""
        return self.policy.mode is Mode.UPLOAD_ONLY

    @property
    def way_back(self) -> bool:
        """The old image comes back by itself if the new one does not run."""
        wanted = self.policy.mode in (Mode.TEST_AND_CONFIRM, Mode.TEST_ONLY) and not self.in_place
        confirmed_here = self.number == 0 or (self.together and self.running is not None)
        return wanted and self.kind in (Kind.SWAP, Kind.NEWEST_REVERT) and confirmed_here

    def refuse(self, message: str, hint: str) -> PlanRefused:
        """The error to raise."""
        return PlanRefused(message, slot=self.slot, hint=hint)

    def rule_out(self, message: str, hint: str) -> None:
        """What cannot run: refused, but where nothing is installed anyway."""
        if not self.stays_staged:
            raise self.refuse(message, hint)
        self.warnings.append(message)

    def doubt(self, message: str, hint: str) -> None:
        """What most likely does not run: no harm where it is not installed or the old image comes back."""
        if self.way_back or self.stays_staged:
            self.warnings.append(message)
        else:
            raise self.refuse(f"{message}, and there is no way back", hint)

    def for_good(self, text: str) -> None:
        """Warn of what cannot be undone once it has been done, and be asked about it."""
        self.warnings.append(text)
        self.no_way_back.append(text)

    # The checks.

    def check_kind(self) -> None:
        """What the header says of the image against what the bootloader does."""
        self._check_ram_load()
        self._check_address()
        self._check_encryption()
        self._check_compression()
        self._check_core()
        if not self.image.bootable:
            self.rule_out(
                f"{self.new} is marked as not bootable: the bootloader would never run it",
                "sign it without --non-bootable, or use --mode upload-only",
            )

    def _check_ram_load(self) -> None:
        to_ram = ImageFlag.RAM_LOAD in self.image.flags
        if self.kind is Kind.NEWEST_MAYBE_REVERT:
            if not to_ram:
                self.rule_out(
                    "this bootloader loads images into RAM, and the file does not say where to",
                    "sign it with imgtool --load-addr, as the build for this board does",
                )
        elif to_ram and self.kind is not Kind.SINGLE:
            where = f"the file is made to be loaded into RAM at 0x{self.image.load_address:x}"
            if not self.state.mode_known:
                self.warnings.append(f"{where}: a bootloader that runs images from flash cannot run it")
                return
            self.doubt(
                f"{where}, but this bootloader runs images from flash",
                "build it for this board; imgtool --load-addr is for bootloaders with RAM load",
            )

    def _check_address(self) -> None:
        in_place = self.kind in (Kind.NEWEST, Kind.NEWEST_REVERT)
        told = linked_slot(self.image, self.state) if (in_place or self.in_place) and self.number == 0 else None
        if told is not None and told != self.slot:
            self._wrong_variant(told)
        address = self.image.rom_address
        if address is None:
            return
        linked = f"the file is linked for a slot at address 0x{address:x}"
        if told is not None:
            self.notes.append(f"{linked}, which is slot {told}")
            return
        if in_place:
            self.warnings.append(
                f"{linked}: it runs only if slot {self.slot}, where it goes, begins there, which the device does not "
                "tell; the build makes one file for each slot"
            )
        elif self.kind in (Kind.LOADER, Kind.SINGLE):
            self.warnings.append(f"{linked}: it runs in no other")
        elif not self.state.mode_known:
            self.doubt(
                f"{linked}: it runs in no other",
                "use --mode test-and-confirm: the old image comes back where this one does not run",
            )
        else:
            self.doubt(
                f"{linked}, as for direct XIP; this bootloader runs images in slot 0 alone, and if that is another "
                "address the file cannot run",
                "build it without direct XIP (imgtool without --rom-fixed); if slot 0 is there all the same, use "
                "--mode upload-only and mark it yourself",
            )

    def _wrong_variant(self, told: int) -> None:
        """It would never run, or crash; of slot 1 the address tells nothing certain."""
        runs = ", which runs" if self.running is not None and self.running.slot == told else ""
        at = linked_at(self.image)
        text = f"the file is linked for slot {told}{runs} (0x{at:x}), and it would be sent to slot {self.slot}"
        (self.rule_out if told == 0 else self.doubt)(text, other_variant(self.slot))

    def _check_encryption(self) -> None:
        if self.image.encrypted and self.kind in _IN_PLACE:
            how = "into RAM" if self.kind is Kind.NEWEST_MAYBE_REVERT else "where they are (direct XIP)"
            self.rule_out(
                f"the file is encrypted, but this bootloader runs images {how} and decrypts none",
                "sign it without --encrypt",
            )

    def _check_compression(self) -> None:
        if not self.image.compressed:
            return
        if self.kind in _IN_PLACE:
            self.rule_out(
                "the file is compressed, but this bootloader runs images as they are and unpacks none",
                "sign it without --compression",
            )
            return
        size, first = self.image.unpacked_size, self.state.slot_info(self.number, 0)
        if size is not None and first is not None and first.size is not None:
            whole = self.image.header.header_size + size
            if whole > first.size:
                raise self.refuse(
                    f"the file is compressed, and does not fit once it is unpacked: it has {whole:,} bytes then, "
                    f"slot 0 takes {first.size:,}",
                    Hint("is it built for this board? See ", Run("image slots"), " for the sizes"),
                )
        self.warnings.append(
            "the file is compressed: a bootloader built without MCUBOOT_DECOMPRESS_IMAGES refuses and erases it"
        )

    def _check_core(self) -> None:
        if not self.image.for_network_core or self.number != 0:
            return
        others = sorted(self.state.image_numbers - {0})
        if others:
            raise self.refuse(
                "the file is linked for the network core of an nRF5340, and image 0 is the application",
                f"add --image {others[0]}, if that is its number",
            )
        self.warnings.append("the file is linked for the network core of an nRF5340, not for the application")

    def check_hash_type(self) -> None:
        """Devices list images by one type of hash, and show no others at all."""
        lengths = {len(slot.hash) for slot in self.state.images.slots if slot.hash is not None}
        bits = 8 * len(self.image.hash)
        if lengths and len(self.image.hash) not in lengths:
            wanted = sorted(8 * length for length in lengths)
            theirs = " or ".join(str(number) for number in wanted)
            raise self.refuse(
                f"the file's hash has {bits} bits, but the device works with {theirs} bits", self._other_hash(wanted)
            )
        if self.running is not None and self.running.hash is None:
            if not self.stays_staged:
                raise self.refuse(
                    "the device lists no hash of its running image: it could not be proven which one runs",
                    "use --mode upload-only, and look at the version afterwards",
                )
            self.warnings.append("the device lists no hashes: the upload cannot be checked")

    def _other_hash(self, wanted: list[int]) -> str:
        """How the file gets a hash of a length that the device works with: imgtool couples it to the kind of key."""
        allowed = [number for number in wanted if number in self.image.hash_choices]
        if allowed and (allowed[0] != 384 or self.image.signature_type is not None):
            return f"sign the file with imgtool --sha {allowed[0]}"
        key = self.image.signature_name or "no key"
        only = " or ".join(str(number) for number in self.image.hash_choices)
        kinds = {256: "a P-256, RSA or Ed25519 key", 384: "a P-384 key", 512: "an Ed25519 key and --sha 512"}
        return (
            f"its signature ({key}) goes with {only} bits alone: sign with {kinds.get(wanted[0], 'another key')} where "
            "the bootloader knows one, or build bootloader and firmware for this hash"
        )

    def check_padding(self) -> None:
        """A padded file does by itself what a mark does, whatever mode was asked for."""
        image = self.image
        extra = image.size - image.content_size
        if self.policy.trim:
            if extra:
                self.notes.append(f"the file is sent without its padding of {extra:,} bytes")
            return
        if not image.padded:
            return
        done = "padded and confirmed (imgtool --confirm)" if image.pad_confirmed else "padded (imgtool --pad)"
        trim = f"add --trim to send it without its padding, {image.content_size:,} of {image.size:,} bytes"
        info = self.state.slot_info(self.number, self.slot)
        room = None if info is None or info.size is None else info.size - image.size
        offset = self.state.bootloader.mode == BootloaderMode.SWAP_OFFSET and not self.in_place
        if offset and (room is None or room < _LEAST_SECTOR):
            raise self.refuse(
                f"the file is {done}: swap using offset keeps a sector of the slot free, so that it cannot be taken",
                trim,
            )
        if self.way_back:
            effect = "for good, with no way back" if image.pad_confirmed else "for a test boot, planned or not"
            also = "; --mode confirm-only installs it for good" if image.pad_confirmed else ""
            raise self.refuse(
                f"the file is {done}: in a slot of its size ({image.size:,} bytes) any reset installs it, from its "
                f"upload on, {effect}",
                trim + also,
            )
        if image.pad_confirmed:
            self.for_good(f"the file is {done}: it stays, once installed, and there is no way back")
        else:
            self.warnings.append(f"the file is {done}: from its upload on, any reset installs it")

    def check_size(self) -> None:
        """Whether the slot takes it, with the room that the bootloader needs behind it."""
        info = self.state.slot_info(self.number, self.slot)
        if info is None:
            return
        size = self.sent.size
        limit = min((one for one in (info.max_image_size, info.size) if one), default=None)
        if limit is None:
            return
        if size > limit:
            hint: str = Hint("is it built for this board? See ", Run("image slots"), " for the sizes")
            if self.sent.padded and self.sent.content_size <= limit:
                hint = "the file is padded to the size of a slot: add --trim to send it without its padding"
            raise self.refuse(f"the file does not fit: it has {size:,} bytes, slot {self.slot} takes {limit:,}", hint)
        if info.max_image_size is None and info.size is not None and not self.in_place:
            self._check_trailer(info.size)

    def _check_trailer(self, slot_size: int) -> None:
        """The room for the trailer. How large that is the device does not tell: sectors and write size decide."""
        size, mode = self.sent.content_size, self.state.bootloader.mode
        swaps = mode in (BootloaderMode.SWAP_SCRATCH, BootloaderMode.SWAP_MOVE, BootloaderMode.SWAP_OFFSET)
        least = _LEAST_TRAILER.size if swaps else 0
        if self.kind is Kind.OVERWRITE:
            least = _LEAST_TRAILER.copy_done_offset
        if size > slot_size - least:
            raise self.refuse(
                f"the file fits slot {self.slot} only without the trailer that the bootloader needs behind it: it has "
                f"{size:,} of {slot_size:,} bytes",
                Hint("make the image smaller, or the slot larger; see ", Run("image slots")),
            )
        room = slot_size - _USUAL_TRAILER.size - (0 if mode == BootloaderMode.SWAP_SCRATCH else _USUAL_SECTOR)
        if swaps and slot_size > 16 * _USUAL_SECTOR and size > room:
            self.warnings.append(
                f"the file may be too large to be swapped: it fills {size:,} of the {slot_size:,} bytes of the slot, "
                "and the bootloader needs some of them; it would wait in the slot for ever then"
            )

    def check_others(self) -> None:
        """What the file needs of other images, and what no device tells."""
        needs = [tlv for tlv in self.image.tlvs if tlv.type == TlvType.DEPENDENCY and tlv.protected]
        if len(needs) > len(self.image.dependencies) and len(self.state.image_numbers) > 1:
            self.rule_out(
                "the file needs another image in a way that no bootloader understands (a dependency of a wrong length)",
                "sign it again with imgtool; nothing of any image would be installed",
            )
        for need in self.image.dependencies:
            if need.image == self.number or need.slot:
                continue  # itself; or a slot of its own choice (nRF Connect SDK), which is not what runs
            self._check_need(need)
        counter = self.image.security_counter
        if counter is not None:
            self.notes.append(
                f"its security counter is {counter}: a bootloader with rollback protection refuses it if it has seen "
                "a higher one"
            )

    def _check_need(self, need: Dependency) -> None:
        number = need.image
        needs = f"the file needs image {number} at version {need.minimum} or later"
        beside = self.files.get(number)
        if beside is not None:
            if not need.met_by(beside.version):
                self.rule_out(
                    f"{needs}, but the file for it is {beside.version}",
                    (
                        "an image whose needs are not met is passed over, and so is what needs it"
                        if self.kind in _IN_PLACE
                        else "one image whose needs are not met keeps all from being installed"
                    )
                    + ": take files that fit together",
                )
            return
        shown = [slot for slot in self.state.images.slots if slot.image == number]
        # What will run after the reset counts (MCUboot `boot_verify_dependencies`).
        later = next((slot for slot in shown if slot.pending), None) or next((s for s in shown if s.active), None)
        version = None if later is None else read_version(later.version)
        if later is None or version is None:
            if len(self.state.image_numbers) > 1 and number not in self.state.image_numbers:
                self.rule_out(f"{needs}, and the device has no such image", "build it for this device")
                return
            self.warnings.append(
                f"{needs}, which the device does not list: a bootloader that finds it unmet installs nothing"
            )
        elif not need.met_by(version):
            self.rule_out(
                f"{needs}, but {_what(later)} is {shown_version(later.version)}",
                f"bring the newer image {number} first, with --image {number}; or both at once, as "
                f"{self.number}=FILE {number}=FILE",
            )


def _what(slot: Slot) -> str:
    return "what waits there" if slot.pending else "the one that runs"
