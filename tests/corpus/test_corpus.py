"""Image files as builds make them, and broken ones: what `image inspect` shows and what an update plans.

The files are made by imgtool 2.5.0, one for each kind of key, hash, encryption, flag and padding; the broken ones are
such files, changed, and files of other formats. One table tells what is expected of each.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.cli.main import main
from mcumgrx.errors import ImageError, PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Plan, make_plan, update
from mcumgrx.flows.plan import DeviceState
from mcumgrx.mcuboot import Image, load_image
from mcumgrx.protocol.standard import Bootloader, BootloaderMode, ImageState, Slot
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.commands import FileFacts

FILES = Path(__file__).parent / "files"

UPDATE = ("upload", "mark", "reset", "prove", "confirm")


@dataclass(frozen=True)
class Expected:
    """What is expected of one file.

    Attributes:
        shown: texts that `image inspect` shows.
        warned: texts in the warnings, of the file or of the plan.
        refused: the plan is refused with these words; otherwise it is a whole update.
        mode: of the bootloader that it is for.
        trimmed: `--trim` makes it an ordinary update.
    """

    file: str
    shown: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    refused: str | None = None
    mode: BootloaderMode = BootloaderMode.SWAP_MOVE
    trimmed: bool = False


IMAGES = [
    Expected("nokey-sha256.signed.bin", ("(SHA256)", "signature     none"), ("carries no signature",)),
    Expected("p384-sha384.signed.bin", ("(SHA384)", "ECDSA P-384"), ("SHA-384: firmware lists only images",)),
    Expected("ed25519.signed.bin", ("(SHA256)", "Ed25519")),
    Expected("ed25519-sha512.signed.bin", ("(SHA512)", "Ed25519")),
    Expected("ed25519-pure.signed.bin", ("(SHA512)", "Ed25519 (pure)")),
    Expected("p256-fullkey.signed.bin", ("PUBKEY", "key hash"), ()),
    Expected("enc-x25519-aes256.signed.encrypted.bin", ("ENCRYPTED_AES256",), ("the image is encrypted",)),
    Expected("enc-p256-aes128.signed.encrypted.bin", ("ENCRYPTED_AES128",), ("its hash cannot be checked",)),
    Expected("enc-rsa.signed.encrypted.bin", ("ENCRYPTED_AES128",), ("the image is encrypted",)),
    Expected(
        "confirmed.signed.confirmed.bin",
        ("padded        to the end of the slot, marked as confirmed", "alignment 8"),
        ("for good",),
        "padded and confirmed.*no way back",
        trimmed=True,
    ),
    Expected(
        "confirmed-align32.signed.confirmed.bin",
        ("marked as confirmed", "alignment 32"),
        ("for good",),
        "padded and confirmed.*no way back",
        trimmed=True,
    ),
    Expected(
        "padded-test.signed.bin",
        ("marked for a test boot", "alignment 8"),
        ("the device will test it",),
        "padded.*for a test boot",
        trimmed=True,
    ),
    Expected(
        "xip-slot0.signed.bin",
        ("for a slot at address 0xc000",),
        ("linked for a slot at address 0xc000", "only if slot 1"),
        mode=BootloaderMode.DIRECT_XIP_REVERT,
    ),
    Expected(
        "xip-slot1.signed.bin",
        ("for a slot at address 0x84000",),
        ("linked for a slot at address 0x84000", "only if slot 1"),
        mode=BootloaderMode.DIRECT_XIP_REVERT,
    ),
    Expected("xip-slot1.signed.bin", (), (), "0x84000.*no way back", mode=BootloaderMode.OVERWRITE),
    Expected(
        "deps-counter-uuid.signed.bin",
        (
            "security counter  7",
            "image 1 at least 1.2.0",
            "BOOT_RECORD",
            "vendor            0637e301-e05d-505b-8267-486f5677de9b",
            "device class      51f1ce81-dabd-59aa-a721-3b37f5787c7f",
        ),
        ("needs image 1 at version 1.2.0 or later",),
    ),
    Expected("nonbootable.signed.bin", ("NON_BOOTABLE",), ("not bootable",), "not bootable"),
    Expected("ramload.signed.bin", ("into RAM at 0x20010000",), ("runs images from flash",)),
    Expected("ramload.signed.bin", (), (), mode=BootloaderMode.RAM_LOAD),
    Expected("junk-behind.signed.bin", (), ("3 bytes that do not belong to the image follow it",)),
]

BROKEN = {
    "bitflip.signed.bin": "hash .* does not match",
    "big-endian.signed.bin": "big-endian",
    "claims-4gib.signed.bin": "the file is cut.*4,294,96",
    "cut-tlv.signed.bin": "the file is cut",
    "two-hashes.signed.bin": "2 hash TLVs",
    "dfu_multi_image.bin": "several images",
    "esp-idf-app.bin": "an ESP-IDF image",
    "root.suit": "a SUIT envelope",
}


def test_every_file_is_in_the_table() -> None:
    assert {path.name for path in FILES.iterdir()} == {one.file for one in IMAGES} | set(BROKEN)


@pytest.mark.parametrize("expected", IMAGES, ids=lambda one: f"{one.file}-{one.mode.name.lower()}")
def test_images_are_shown(expected: Expected) -> None:
    image = load_image(FILES / expected.file)
    lines = "\n".join(FileFacts.of(image, expected.file).lines())
    assert [text for text in expected.shown if text not in lines] == []
    assert image.key_hash is not None or expected.file.startswith("nokey")


def planned(image: Image, mode: BootloaderMode, *, trim: bool = False) -> Plan:
    """For a device that swaps, or does what the file is for, and lists images by this hash."""
    old = Slot(0, 0, "1.0.0", bytes(len(image.hash)), bootable=True, active=True, confirmed=True)
    state = DeviceState(ImageState((old,), split_status=0), bootloader=Bootloader("MCUboot", mode))
    return make_plan(image, state, DfuPolicy(trim=trim))


@pytest.mark.parametrize("expected", IMAGES, ids=lambda one: f"{one.file}-{one.mode.name.lower()}")
def test_updates_are_planned_or_refused(expected: Expected) -> None:
    image = load_image(FILES / expected.file)
    if expected.refused is not None:
        with pytest.raises(PlanRefused, match=expected.refused) as refusal:
            planned(image, expected.mode)
        assert refusal.value.hint
        assert ("--trim" in refusal.value.hint) is expected.trimmed
        told = list(image.warnings)
    else:
        plan = planned(image, expected.mode)
        told = [*image.warnings, *plan.warnings]
        assert tuple(step.name for step in plan.steps) == UPDATE
    assert [text for text in expected.warned if not any(text in warning for warning in told)] == []
    if expected.trimmed:
        plan = planned(image, expected.mode, trim=True)
        assert tuple(step.name for step in plan.steps) == UPDATE
        assert plan.image is not None
        assert (plan.image.size, plan.image.padded) == (image.content_size, False)


@pytest.mark.parametrize("name", sorted({one.file for one in IMAGES if one.refused is None and not one.trimmed}))
def test_a_dry_run_changes_nothing(name: str) -> None:
    image = load_image(FILES / name)
    config = DeviceConfig(hash_size=len(image.hash), slot_size=64 * 1024)
    device = SimulatedDevice(config, name="desk")
    device.install(build_image("1.0.0", payload_size=4096))
    transport = SimulatedTransport(device)
    before = device.flash.snapshot()

    async def dry(plan: Plan) -> bool:
        await asyncio.sleep(0)
        return False

    async def work() -> Ending:
        session = SessionDevice(Address.parse("sim:desk"), transport, default_registry())
        return (await update(session, image, on_plan=dry)).ending

    assert run(work()) is Ending.NOT_STARTED
    assert device.flash.snapshot() == before


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_broken_is_refused_alike_by_inspect_and_by_an_update(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FILES / name
    with pytest.raises(ImageError, match=BROKEN[name]) as caught:
        load_image(path)
    assert caught.value.hint
    told = []
    for arguments in (["image", "inspect", str(path)], ["dfu", str(path), "-d", "udp:192.0.2.1"]):
        assert main(arguments) == 6
        told.append([line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))])
    assert told[0] == told[1] == [f"error: {caught.value.message}", f"hint: {caught.value.hint}"]


def test_a_file_that_claims_4_gib_takes_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(ImageError):
        load_image(FILES / "claims-4gib.signed.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
