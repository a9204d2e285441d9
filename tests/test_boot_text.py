"""What a device's own text tells of its start."""

from __future__ import annotations

import pytest

from mcumgrx.boot_text import BootText, Sign

MCUBOOT = """*** Booting MCUboot v2.1.0-72-g8c0e36c88663 ***
*** Using Zephyr OS build v4.0.0 ***
I: Starting bootloader
I: Primary image: magic=unset, swap_type=0x1, copy_done=0x3, image_ok=0x3
I: Boot source: primary slot
I: Image index: 0, Swap type: test
"""
JUMP = "I: Bootloader chainload address offset: 0xc000\nI: Image version: v1.1.0\nI: Jumping to the first image slot\n"
ZEPHYR = "*** Booting Zephyr OS build v4.0.0 ***\n"


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("", Sign.NONE),
        ("[00:12:00.000,000] <inf> app: tick\nuart:~$ ", Sign.NONE),  # it ran all along
        (ZEPHYR, Sign.STARTED),
        (MCUBOOT, Sign.BOOTLOADER),
        (MCUBOOT + JUMP, Sign.JUMPED),
        (MCUBOOT + JUMP + ZEPHYR, Sign.BOOTED),
        (MCUBOOT + ZEPHYR, Sign.BOOTED),
        (ZEPHYR + "I: Starting bootloader\n" + JUMP, Sign.JUMPED),
        (ZEPHYR + ZEPHYR, Sign.BOOTED),
        (ZEPHYR + "uart:~$ ", Sign.BOOTED),
        (ZEPHYR + "\x1b[1;32muart:~$ \x1b[m", Sign.BOOTED),
        (ZEPHYR + "[00:00:00.251,000] \x1b[0m<inf> app: up\x1b[0m\n", Sign.BOOTED),
        (ZEPHYR + "[00:00:00.001,000] <inf> mcuboot: Starting bootloader\n", Sign.BOOTLOADER),
        (ZEPHYR + "hello\n", Sign.STARTED),
        (MCUBOOT + JUMP + ZEPHYR + MCUBOOT, Sign.BOOTLOADER),  # it has crashed, and starts again
        ("*** Booting Zephyr" + "x" * 5000, Sign.NONE),
    ],
)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_signs_of_a_start(text: str, sign: Sign, cut: int) -> None:
    boot = BootText()
    for start in range(0, len(text), cut):
        boot.feed(text[start : start + cut])
    assert boot.sign is sign
    assert boot.started == (sign is not Sign.NONE)
    assert boot.booted == (sign is Sign.BOOTED)
    boot.reset()
    assert boot.sign is Sign.NONE
