"""Image files as builds make them, and broken ones: what `image inspect` shows and what an update plans.

The files are made by imgtool 2.5.0, one for each kind of key, hash, encryption, flag and padding; the broken ones are
such files, changed, and files of other formats. One table tells what is expected of each.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.cli.main import main
from mcumgrx.errors import ImageError, PlanRefused
from mcumgrx.flows import DeviceState, DfuPolicy, Ending, Plan, make_plan, update
from mcumgrx.mcuboot import Image, load_image, load_package, sample_key
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot
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
    "esp-idf-app.bin": "an ESP-IDF image",
    "root.suit": "a SUIT envelope",
    "bad-checksum.hex": "line 21: the checksum is wrong",
    "overlap.hex": "line 31: it overlaps line 11",
    "zephyr.hex": "an Intel HEX text of unsigned firmware: none of its segments .* begins with an image",
    "dfu_suit.zip": "a SUIT package",
    "dfu_b0_only.zip": "no MCUboot image but one for Nordic's immutable bootloader",
    "same-image-twice.zip": "two files for image 0: app_update.bin and net_core_app_update.bin",
}

HOSTILE = {
    "absolute-backslash.zip": "an unsafe name: /etc/mx.bin",
    "absurd-numbers.zip": "image_index is out of range",
    "bomb-10mb.zip": "says 3,663 bytes for app_update.bin, but it unpacks to 10,489,423",
    "cut.zip": "a ZIP archive that is cut or damaged",
    "deep-json.zip": "manifest.json is not usable: it is no JSON",
    "escape-in-name.zip": r"an unsafe name: \\x1b\[2J\\x1b\]0;pwn\\x07app.bin",
    "lying-size.zip": "cut or damaged: app_update.bin does not have the 3,663 bytes that it says",
}


@dataclass(frozen=True)
class Packed:
    """What is expected of a file that is more than a signed binary.

    Attributes:
        images: number, slot, name and board of each image in it.
        told: texts in its notes and warnings.
        refused: an update takes none of them, with these words; otherwise the only one, or the last by its number.
    """

    file: str
    images: tuple[tuple[int | None, int | None, str | None, str | None], ...]
    told: tuple[str, ...] = ()
    refused: str | None = None


APP, NET = "nrf5340dk_nrf5340_cpuapp", "nrf5340dk_nrf5340_cpunet"
ALONE = ((None, None, None, None),)
CORES = ((0, None, "app_update.bin", APP), (1, None, "net_core_app_update.bin", NET))
VARIANTS = "image 0 has 2 variants; image 1 has 2 variants"
SEVERAL = "of 2 images: image 0 is .*; image 1 is "
B0 = tuple(
    (0, slot, f"signed_by_mcuboot_and_b0_{name}.bin", "nrf52840dk") for slot, name in enumerate(("mcuboot", "s1_image"))
)

PACKED = [
    Packed("segment-02-03-05.signed.hex", ALONE),
    Packed("across-64k.signed.hex", ALONE),
    Packed("dos-lower.signed.hex", ALONE),
    Packed("noise.hex", ALONE, ("what follows the end record (from line 234 on) is not read",)),
    Packed("zephyr.signed.confirmed.hex", ALONE),
    Packed("merged-mcuboot-app-uicr.hex", ALONE, ("8 bytes of UICR", "1,500 bytes at 0xba00, a program without image")),
    Packed("v0-single.zip", ((0, None, "app_update.bin", "nrf52840dk_nrf52840"),)),
    Packed("v1-single-deflated.zip", ((0, None, "app.signed.bin", "nrf52840dk"),)),
    Packed("v0-nrf5340.zip", CORES, refused=SEVERAL),
    Packed("wrong-size.zip", CORES, ("says 3,679 bytes for app_update.bin, which has 3,663",), SEVERAL),
    Packed(
        "v1-xip-qspi.zip",
        tuple(
            (image, slot, f"{'mcuboot_secondary_' * slot}app.{where}.bin", "nrf52840dk")
            for slot in (0, 1)
            for image, where in enumerate(("internal", "external"))
        ),
        refused=VARIANTS,
    ),
    Packed("dfu_mcuboot.zip", B0, ("it updates the bootloader, in two variants",), "would replace MCUboot"),
    Packed("dfu_mcuboot-noslot.zip", B0, ("it updates the bootloader, in two variants",), "would replace MCUboot"),
    Packed("dfu_multi_image.bin", ((0, None, None, None), (1, None, None, None)), refused=SEVERAL),
    Packed("odd-types.zip", ((0, 1, "app.bin", "nrf52840dk"),), ("its manifest is no JSON",)),
    Packed("bom-crlf.zip", ((0, None, "app_update.bin", APP),)),
    Packed(
        "swapped-cores.zip",
        ((0, None, "net_core_app_update.bin", APP), (1, None, "app_update.bin", NET)),
        ("image 0, is linked for 0x01008b01, but its entry is for the application core (0x10200)",),
        "files in the package look exchanged",
    ),
    Packed("no-manifest.zip", ((None, None, "zephyr.signed.bin", None),), ("the archive has no manifest",)),
    Packed("in-folder-macos.zip", ((0, None, "app_update.bin", APP),)),
    Packed("zip64.zip", ((0, None, "app_update.bin", APP),)),
    Packed("cp437-name.zip", ((0, None, "gerät.bin", APP),)),
    Packed("utf8-names.zip", ((0, None, "прошивка-ü.bin", APP),)),
    Packed(
        "../builds/plain", ((None, None, "zephyr.signed.bin", "nrf52840dk/nrf52840"),), ("from zephyr/zephyr.signed",)
    ),
    Packed("../builds/sysbuild", CORES, ("from dfu_application.zip in the build directory",), SEVERAL),
]


def test_every_file_is_in_the_table() -> None:
    packed = {one.file for one in PACKED if not one.file.startswith("..")}
    assert {path.name for path in FILES.iterdir()} == {one.file for one in IMAGES} | packed | set(BROKEN) | set(HOSTILE)


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


@pytest.mark.parametrize("name", sorted(BROKEN | HOSTILE))
def test_what_is_broken_is_refused_alike_by_inspect_and_by_an_update(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = FILES / name
    with pytest.raises(ImageError, match=(BROKEN | HOSTILE)[name]) as caught:
        load_image(path)
    assert caught.value.hint
    told = []
    for arguments in (["image", "inspect", str(path)], ["dfu", str(path), "-d", "udp:192.0.2.1"]):
        assert main(arguments) == 6
        told.append([line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))])
    assert told[0] == told[1] == [f"error: {caught.value.message}", f"hint: {caught.value.hint}"]


@pytest.mark.parametrize("expected", PACKED, ids=lambda one: one.file)
def test_packages_give_their_images(expected: Packed, capsys: pytest.CaptureFixture[str]) -> None:
    path = FILES / expected.file
    package = load_package(path)
    assert tuple((one.index, one.slot, one.name, one.board) for one in package.images) == expected.images
    assert main(["image", "inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("ECDSA_SIG") == len(expected.images)
    for text in expected.told:
        assert text in shown
    if expected.refused is None:
        chosen = package.choose()
        assert (chosen.image, chosen.number) == (package.images[0].image, 0)
        assert load_image(path) == chosen.image
    else:
        with pytest.raises(ImageError, match=expected.refused) as caught:
            load_image(path)
        assert (caught.value.path or "").startswith(str(path))
        assert caught.value.hint


@pytest.mark.parametrize("expected", PACKED, ids=lambda one: one.file)
def test_packages_are_planned_for_or_refused(expected: Packed, capsys: pytest.CaptureFixture[str]) -> None:
    path = FILES / expected.file
    options = ["--trim"] if "confirmed" in expected.file else []
    planned = expected.refused in (None, SEVERAL, VARIANTS)
    count = len({index for index, *_ in expected.images})
    device = f"sim:,images={count}"
    device += ",mode=direct-xip" if expected.refused == VARIANTS else ""
    assert main(["dfu", str(path), "-d", device, "--dry-run", *options]) == (0 if planned else 6)
    told = capsys.readouterr()
    if planned:
        assert told.out.count(". upload 1.2.3+4 (") == count
        assert all(text in told.err for text in expected.told)
    else:
        assert re.search(f"error: .*{expected.refused}", told.err)
        assert "connect:" not in told.err


def test_one_image_of_several_is_sent_where_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FILES / "v0-nrf5340.zip")
    assert main(["dfu", path, "-d", "sim:", "--dry-run", "--image", "0"]) == 0
    told = capsys.readouterr()
    assert "upload 1.2.3+4 (3,663 bytes) to slot 1" in told.out
    assert "warning: image 0 alone is sent, and the package holds image 1 to go with it" in told.err
    assert main(["dfu", path, "-d", "sim:", "--dry-run", "--image", "2"]) == 6
    assert "without an image 2: it holds image 0 is 1.2.3+4" in capsys.readouterr().err


def test_a_build_without_mcuboot_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "inspect", str(FILES / "../builds/unsigned")]) == 6
    assert "is not signed: it was made without MCUboot" in capsys.readouterr().err


LIMITED = """
import resource, sys, time
from mcumgrx.cli.main import main
main(["image", "inspect", sys.argv[2]])  # loads what is loaded once
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
before, begin = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
code = main(["image", "inspect", sys.argv[1]])
after = resource.getrusage(resource.RUSAGE_SELF)
print(code, after.ru_maxrss - before.ru_maxrss, time.process_time() - begin)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in other units")
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_archives_take_little_and_write_nothing(name: str) -> None:
    usual = str(FILES / "v1-single-deflated.zip")
    command = [sys.executable, "-B", "-c", LIMITED, str(FILES / name), usual]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    code, kilobytes, seconds = done.stdout.splitlines()[-1].split()
    assert int(code) == 6
    assert int(kilobytes) < 32 * 1024
    assert float(seconds) < 2
    assert "\x1b" not in done.stdout + done.stderr


KEYS = Path(__file__).parent / "keys"

SIGNED_BY = {
    "p384-sha384.signed.bin": "ecdsa-p384",
    "p256-fullkey.signed.bin": "ecdsa-p256",
    "ed25519.signed.bin": "ed25519",
    "ed25519-sha512.signed.bin": "ed25519",
    "ed25519-pure.signed.bin": "ed25519",
    "v1-xip-qspi.zip": "ecdsa-p256",
    "enc-rsa.signed.encrypted.bin": "rsa-2048",
}


@pytest.mark.parametrize("file", SIGNED_BY)
@pytest.mark.parametrize("key", sorted({*SIGNED_BY.values(), "rsa-3072"}))
def test_signatures_are_those_of_their_keys(file: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cryptography")
    right = SIGNED_BY[file] == key
    assert main(["image", "inspect", str(FILES / file), "--key", str(KEYS / f"{key}.pub.pem")]) == (0 if right else 6)
    assert ("  signed with this key" if right else "NOT signed with this key") in capsys.readouterr().out


def test_a_file_that_claims_4_gib_takes_no_memory() -> None:
    tracemalloc.start()
    with pytest.raises(ImageError):
        load_image(FILES / "claims-4gib.signed.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_sample_keys_of_mcuboot_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imgtool")
    payload, signed = tmp_path / "payload.bin", tmp_path / "app.bin"
    payload.write_bytes(bytes(range(256)) * 8)
    for sha in ("256", "512"):
        sign = [
            "sign",
            "--key",
            str(KEYS / "sample-ed25519.pem"),
            "--sha",
            sha,
            "--header-size",
            "0x200",
            "--pad-header",
        ]
        sign += ["--align", "4", "--slot-size", "0x8000", "--version", "1.0.0", str(payload), str(signed)]
        subprocess.run([sys.executable, "-m", "imgtool.main", *sign], check=True, capture_output=True)
        assert sample_key(load_image(signed)) == "root-ed25519.pem"
        assert main(["image", "inspect", str(signed), "--key", str(KEYS / "sample-ed25519.pem")]) == 0
        shown = capsys.readouterr().out
        assert "MCUboot's sample key root-ed25519.pem: everybody has it" in shown
        assert "signed with this key" in shown


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\n????\n-----END PUBLIC KEY-----\n", b"\0" * 100])
def test_what_is_no_key(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(content)
    assert main(["image", "inspect", str(FILES / "ed25519.signed.bin"), "--key", str(key)]) == 2
    assert "error: the key cannot be read" in capsys.readouterr().err
    for path in (tmp_path, tmp_path / "missing.pem"):
        assert main(["image", "inspect", str(FILES / "ed25519.signed.bin"), "--key", str(path)]) == 2
        told = capsys.readouterr().err
        assert f"error: cannot read the key {path}: " in told
        assert "Errno" not in told
