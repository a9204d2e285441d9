"""Boards that a simulated device can be: their slots, their flash and their bootloader, as firmware usually has them.

Slots are those of Zephyr's devicetree (the file stands beside each), units of erasing and writing those of its flash
nodes. A time is typical where the data sheet says it, else the longest that Zephyr's driver waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mcumgrx.errors import UsageError
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.config import DeviceConfig
from mcumgrx.sim.flash import FlashTiming

__all__ = ["BOARDS", "Board", "on_board"]

_KB = 1024


@dataclass(frozen=True, slots=True)
class Board:
    """What firmware for a board has in common. Sizes in bytes.

    Attributes:
        target: Zephyr's name of it, which the device tells as its board.
        slot_size: of each slot. With several images all slots are as large as those of the application.
        write_size: what the flash writes at once, to which MCUboot aligns its trailers.
        timing: of its flash.
        mode: of the bootloader. Zephyr builds MCUboot for swaps using offset, and on STM32 using move, where nothing
            else is asked for (share/sysbuild/images/bootloader/Kconfig, zephyr#93310).
        validate_primary: whether the bootloader checks the image in slot 0 at every start.
        loader_size: of the slot of a firmware loader.
        images: how many it has, as the cores that are updated. One of another core can be confirmed from the first.
    """

    target: str
    slot_size: int
    timing: FlashTiming
    write_size: int = 4
    sector_size: int = 4096
    mode: Mode = Mode.SWAP_OFFSET
    validate_primary: bool = True
    loader_size: int | None = None
    images: int = 1


# nRF52, nRF53, nRF91: 89.7 ms for a page at most (FLASH_PAGE_ERASE_MAX_TIME_US in soc/nordic/*/soc.h), 41 µs for a word
# (sdk-nrf, subsys/emds/Kconfig).
_NVMC = FlashTiming(0.0897, 41e-6 / 4)
# RRAM needs no erasing: Zephyr writes 0xff instead, 42 ms for a page at most (soc/nordic/nrf54l/soc.h); 210 µs for 32
# bytes (sdk-nrf#15448).
_RRAM = FlashTiming(0.042, 210e-6 / 32)
# 25 ms for a page at most (max-erase-time in dts/arm/st/wb/stm32wb.dtsi), 82 µs for a double word (DS11929, tprog).
_STM32WB = FlashTiming(0.025, 82e-6 / 8)
# 45 ms for a sector, 0.4 ms for a page of 256 bytes (W25Q16JV, tSE and tPP), which is on a Raspberry Pi Pico. Modules
# with an ESP32 have NOR flash of several makers, and much the same times.
_SPI_NOR = FlashTiming(0.045, 0.4e-3 / 256)

BOARDS: Mapping[str, Board] = {
    # boards/nordic/nrf52dk/nrf52dk_nrf52832.dts
    "nrf52832": Board("nrf52dk/nrf52832", 0x37000, _NVMC),
    # dts/vendor/nordic/nrf52840_partition.dtsi; 85 ms and 41 µs: nRF52840 product specification, NVMC.
    "nrf52840": Board("nrf52840dk/nrf52840", 0x76000, FlashTiming()),
    # dts/vendor/nordic/nrf5340_cpuapp_partition.dtsi
    "nrf5340": Board("nrf5340dk/nrf5340/cpuapp", 0x70000, _NVMC, images=2),
    # dts/vendor/nordic/nrf91xx_partition.dtsi
    "nrf9160": Board("nrf9160dk/nrf9160", 0x70000, _NVMC),
    # dts/vendor/nordic/nrf54l15_cpuapp_partition.dtsi; lines of 16 bytes: nrf54l_05_10_15.dtsi
    "nrf54l15": Board("nrf54l15dk/nrf54l15/cpuapp", 664 * _KB, _RRAM, write_size=16),
    # sdk-nrf-bm, boards/nordic/bm_nrf54l15dk; nothing is erased before it is written: subsys/mgmt/mcumgr/grp/img_mgmt
    "nrf54l15-bm": Board(
        "bm_nrf54l15dk/nrf54l15/cpuapp/s115_softdevice/mcuboot",
        1316 * _KB,
        replace(_RRAM, erase_s_per_sector=0.0),
        write_size=16,
        mode=Mode.FIRMWARE_LOADER,
        loader_size=64 * _KB,
    ),
    # boards/st/nucleo_wb55rg/nucleo_wb55rg.dts; double words: dts/arm/st/wb/stm32wb.dtsi
    "stm32wb55": Board("nucleo_wb55rg/stm32wb55xx", 400 * _KB, _STM32WB, write_size=8, mode=Mode.SWAP_MOVE),
    # dts/common/espressif/partitions_0x0_default_4M.dtsi. CONFIG_BOOT_UPGRADE_ONLY, and CONFIG_BOOT_VALIDATE_SLOT0=n:
    # MCUboot's boot/zephyr/socs/esp32c3.conf
    "esp32c3": Board("esp32c3_devkitm/esp32c3", 1792 * _KB, _SPI_NOR, mode=Mode.OVERWRITE, validate_primary=False),
    # dts/common/espressif/partitions_0x0_amp_8M.dtsi, and esp32s3_procpu.conf beside the one above
    "esp32s3": Board(
        "esp32s3_devkitc/esp32s3/procpu", 2880 * _KB, _SPI_NOR, mode=Mode.OVERWRITE, validate_primary=False
    ),
    # dts/vendor/raspberrypi/partitions_2M_sysbuild.dtsi; single bytes: dts/arm/raspberrypi/rpi_pico/rp2040.dtsi
    "rp2040": Board("rpi_pico/rp2040", 0xD0000, _SPI_NOR, write_size=1),
}
"""The boards by the names of their chips."""


def on_board(config: DeviceConfig, name: str) -> DeviceConfig:
    """The configuration of the same firmware on the board `name`, a key of `BOARDS`. Raises `UsageError`."""
    board = BOARDS.get(name)
    if board is None:
        raise UsageError(f"the simulator has no board {name!r}", hint=f"known are {', '.join(BOARDS)}")
    return replace(
        config,
        images=board.images,
        confirms_other_images=board.images > 1,
        slot_size=board.slot_size,
        sector_size=board.sector_size,
        write_size=board.write_size,
        timing=board.timing,
        mode=board.mode,
        loader_size=board.loader_size,
        policy=BootPolicy(validate_primary=board.validate_primary),
        info=replace(config.info, board=board.target),
    )
