"""What MCUboot's own bootutil did, recorded in tests/golden, and the bench that does it again."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.mcuboot import Image, TlvType
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Bootloader, BootPolicy, BootResult, Layout, Mode
from mcumgrx.sim.flash import Flash, Operation, OperationKind
from mcumgrx.sim.slots import Mark, Slot

__all__ = [
    "GOLDEN",
    "Bench",
    "Replay",
    "Vectors",
    "blank_flash",
    "check_recording",
    "cut_states",
    "recordings",
    "scratch_address",
    "vectors",
]

GOLDEN = Path(__file__).parent.parent / "golden" / "mcuboot-boot"

MODES = {
    "direct XIP": Mode.DIRECT_XIP,
    "direct XIP with revert": Mode.DIRECT_XIP_REVERT,
    "overwrite only": Mode.OVERWRITE,
    "RAM load": Mode.RAM_LOAD,
    "RAM load with revert": Mode.RAM_LOAD,
    "single slot": Mode.SINGLE_SLOT,
    "swap using move": Mode.SWAP_MOVE,
    "swap using offset": Mode.SWAP_OFFSET,
    "swap using scratch": Mode.SWAP_SCRATCH,
}

MARKS = {Mark.SET: "set", Mark.UNSET: "unset", Mark.BAD: "bad"}


class Vectors:
    """One recorded file."""

    def __init__(self, name: str, folder: Path = GOLDEN) -> None:
        self.name = name
        self.data: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.mode = MODES[self.data["mode"]]
        self.images = {
            key: zlib.decompress(base64.b64decode(value["zlib_b64"])) for key, value in self.data["images"].items()
        }
        options = self.data["options"]
        self.policy = BootPolicy(
            validate_primary=options["validate_primary_slot"],
            downgrade_prevention="downgrade_prevention" in options,
            compare_build="version_compare" in options,
            bootstrap=options.get("bootstrap", False),
            overwrite_fast=options.get("overwrite_only_fast", True),
            ram_load_revert=self.data["mode"] == "RAM load with revert",
            ram_start=options.get("ram_start", 0),
            ram_size=options.get("ram_size", 0),
        )

    @functools.cached_property
    def verify(self) -> Callable[[Image], bool]:
        return _signature_check(self.data["public_key"])

    def scenarios(self, layout: str) -> Iterator[dict[str, Any]]:
        for scenario in self.data["scenarios"]:
            if scenario["layout"] == layout:
                yield scenario


@functools.cache
def vectors(name: str, folder: Path = GOLDEN) -> Vectors:
    return Vectors(name, folder)


def recordings(folder: Path) -> list[Any]:
    """Name and layout of each recording, as parameters of a test."""
    return [
        pytest.param(path.stem, layout, id=f"{path.stem}-{layout}")
        for path in sorted(folder.glob("*.json"))
        for layout in vectors(path.stem, folder).data["layouts"]
    ]


Replay = Callable[[Vectors, dict[str, Any]], Iterator[str]]


def check_recording(recorded: Vectors, layout: str, steps: Replay, cuts: Replay) -> None:
    """Replay all scenarios of this layout."""
    found = {
        scenario["name"]: list((cuts if "cut" in scenario else steps)(recorded, scenario))
        for scenario in recorded.scenarios(layout)
    }
    differences = [text for texts in found.values() for text in texts]
    print(f"{recorded.name}, {layout}: {sum(not texts for texts in found.values())} of {len(found)} as recorded")
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences)


def _signature_check(pem: str) -> Callable[[Image], bool]:
    """ECDSA P-256 with the recorded key: what the bootloader of the recordings had built in."""
    pytest.importorskip("cryptography", reason="signatures are checked with cryptography (comes with imgtool)")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = serialization.load_pem_public_key(pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key_hash = hashlib.sha256(der).digest()

    @functools.cache
    def signed(digest: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except InvalidSignature:
            return False
        return True

    def verify(image: Image) -> bool:
        signature = image.tlv_value(TlvType.ECDSA_SIG)
        return image.key_hash == key_hash and signature is not None and signed(image.hash, signature)

    return verify


def cut_states(flash: Flash, boot: Callable[[], object], *, torn: bool) -> list[bytes]:
    """What the flash holds when the power fails before each operation of `boot` in turn (`torn`: half done).

    From one run, as each cut would have come this far in the same way.
    """
    operations: list[Operation] = []
    states: list[bytes] = []

    def note(operation: Operation) -> None:
        operations.append(operation)
        states.append(flash.snapshot())

    watch, flash.watch = flash.watch, note
    boot()
    flash.watch = watch
    if torn:
        after = [*states[1:], flash.snapshot()]
        for number, operation in enumerate(operations):
            middle = operation.offset + operation.length // 2 // flash.write_size * flash.write_size
            before = states[number]
            states[number] = before[: operation.offset] + after[number][operation.offset : middle] + before[middle:]
    return states


def scratch_address(layout: dict[str, Any], pairs: list[dict[str, Any]]) -> int:
    """Behind all slots."""
    return max(pair[f"{slot}_address"] + pair[f"{slot}_size"] for pair in pairs for slot in ("primary", "secondary"))


def blank_flash(layout: dict[str, Any], scratch: int) -> Flash:
    sector: int = layout["sector_size"]
    size = -(-(scratch + layout.get("scratch_size", 0)) // sector) * sector
    return Flash(size, sector_size=sector, write_size=layout["write_size"])


class Bench:
    """A blank device of one layout, and the recorded steps done to it."""

    def __init__(
        self,
        vectors: Vectors,
        layout_name: str,
        *,
        layout: dict[str, Any] | None = None,
        flash: Flash | None = None,
        number: int = 0,
    ) -> None:
        self.vectors = vectors
        self.layout_name = layout_name
        layout = vectors.data["layouts"][layout_name] if layout is None else layout
        self.layout = layout
        scratch = scratch_address(layout, [layout])
        self.flash = flash if flash is not None else blank_flash(layout, scratch)
        self.boot_loader = Bootloader(
            self.flash,
            Layout(
                layout["primary_address"],
                layout["primary_size"],
                layout["secondary_address"],
                layout["secondary_size"],
                layout.get("scratch_address", scratch) if "scratch_size" in layout else 0,
                layout.get("scratch_size", 0),
                max_sectors=layout["max_img_sectors"],
            ),
            vectors.mode,
            policy=vectors.policy,
            verify=vectors.verify,
            image_number=number,
        )
        self.slots = {"primary": self.boot_loader.primary, "secondary": self.boot_loader.secondary}
        self.areas = [("P", self.slots["primary"]), ("S", self.slots["secondary"])]
        if self.boot_loader.scratch is not None:
            self.areas.append(("X", self.boot_loader.scratch))
        self.trace: list[str] = []
        self.flash.watch = self._watch

    def _watch(self, operation: Operation) -> None:
        kind = "E" if operation.kind is OperationKind.ERASE else "W"
        for letter, slot in self.areas:
            if slot.offset <= operation.offset < slot.offset + slot.size:
                self.trace.append(f"{kind}{letter}{operation.offset - slot.offset}+{operation.length}")

    def step(self, step: dict[str, Any]) -> int | BootResult | None:
        slot = self.slots.get(step.get("slot", ""))
        what = step["do"]
        if what == "boot":
            return self.boot_loader.boot()
        if what == "pending":
            return self.boot_loader.set_pending(step["permanent"])
        if what == "confirm":
            return self.boot_loader.set_confirmed()
        if what == "set_next":
            number = PRIMARY if step["slot"] == "primary" else SECONDARY
            return self.boot_loader.set_next(number, active=step["active"], confirm=step["confirm"])
        assert slot is not None
        if what == "load":
            self.flash.poke(slot.offset, b"\xff" * slot.size)
            self.flash.poke(slot.offset + step.get("offset", 0), self.vectors.images[step["image"]])
        elif what == "erase":
            self.flash.poke(slot.offset, b"\xff" * slot.size)
        elif what == "poke":
            self.flash.poke(slot.offset + step["offset"], bytes.fromhex(step["hex"]))
        elif what == "fill":
            self.flash.poke(slot.offset + step["offset"], bytes([step["value"]]) * step["length"])
        else:
            raise AssertionError(f"unknown step {what}")
        return None

    def image_at(self, slot: Slot, offset: int) -> str | None:
        """The name of the recorded image that lies here; the longest if one begins like another."""
        content = slot.content()[offset:]
        found = [
            (len(data), name)
            for name, data in self.vectors.images.items()
            # Others may begin with the bare header, too, and then be damaged.
            if "_pad" not in name and content.startswith(data + b"\xff" * 32 if len(data) == 32 else data)
        ]
        return max(found)[1] if found else None

    def differences(self, expect: dict[str, Any], result: int | BootResult | None) -> Iterator[str]:
        """Everything in which the device is not as recorded."""
        kind = self.boot_loader.swap_type().name.lower()
        if kind != expect["swap_type"]:
            yield f"swap type {kind}, not {expect['swap_type']}"
        if "rc" in expect and result != expect["rc"]:
            yield f"rc {result}, not {expect['rc']}"
        if "boots" in expect:
            assert isinstance(result, BootResult)
            ran = self.boots(result)
            if ran != expect["boots"]:
                yield f"boots {ran}, not {expect['boots']} ({', '.join(result.notes)})"
        for name, slot in self.slots.items():
            state = self.vectors.data["states"][expect[name]]
            for text in self.state_differences(slot, state):
                yield f"{name}: {text}"
        if "scratch" in expect and self.boot_loader.scratch is not None:
            state = self.vectors.data["states"][expect["scratch"]]
            scratch = self.boot_loader.scratch
            blank = self.flash.is_erased(scratch.offset, scratch.size)
            if blank != state["blank"]:
                yield f"scratch: blank {blank}, not {state['blank']}"
            magic = "good" if scratch.magic is Mark.SET else MARKS[scratch.magic]
            if magic != state["magic"]:
                yield f"scratch: magic {magic}, not {state['magic']}"

    def boots(self, result: BootResult) -> dict[str, Any] | None:
        if result.slot is None:
            return None
        slot = self.boot_loader.slots[result.slot]
        ran: dict[str, Any] = {"slot": slot.name, "version": str(result.version), "image": self.image_at(slot, 0)}
        if result.load_address is not None:
            ran["load"] = result.load_address
        return ran

    def state_differences(self, slot: Slot, state: dict[str, Any]) -> Iterator[str]:
        found: dict[str, Any] = {}
        found["image"] = self.image_at(slot, state.get("at", 0))
        found["magic"] = "good" if slot.magic is Mark.SET else MARKS[slot.magic]
        found["image_ok"] = MARKS[slot.image_ok]
        found["copy_done"] = MARKS[slot.copy_done]
        found["swap_info"] = slot.swap_info
        expected = {
            "image": state["image"],
            "magic": state.get("magic", "unset"),
            "image_ok": state.get("image_ok", "unset"),
            "copy_done": state.get("copy_done", "unset"),
            "swap_info": state.get("swap_info", 255),
        }
        if "sectors" in state:
            length = self.layout["tail_length"]
            found["tail"] = slot.read(slot.size - length, length).hex()
            expected["tail"] = state.get("tail", "ff" * length)
            size = slot.sector_size
            found["sectors"] = "".join(
                "." if self.flash.is_erased(slot.offset + index * size, size) else "x" for index in range(slot.sectors)
            )
            expected["sectors"] = state["sectors"]
            found["status_used"] = slot.progress() > 0
            expected["status_used"] = state.get("status_used", False)
        for key, value in expected.items():
            if found[key] != value:
                yield f"{key} {found[key]}, not {value}"
