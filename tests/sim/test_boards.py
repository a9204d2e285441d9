"""Boards that a simulated device can be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import UsageError
from mcumgrx.sim.boards import BOARDS, on_board
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx_plugins.sim.transport import SimTransport


def config(address: str) -> DeviceConfig:
    return SimTransport(Address.parse(address)).device.config


@pytest.mark.parametrize("name", BOARDS)
def test_an_address_makes_a_device_of_the_board(name: str) -> None:
    board = BOARDS[name]
    made = config(f"sim:,board={name}")
    expected = on_board(DeviceConfig(), name)
    assert replace(made, buf_size=expected.buf_size, timing=expected.timing) == expected
    assert made.timing.erase_s_per_sector == pytest.approx(board.timing.erase_s_per_sector)
    assert made.info.board == board.target
    device = SimulatedDevice(made)
    assert [slot.size for slot in device.bootloader.slots] == [board.slot_size, board.loader_size or board.slot_size]
    assert (device.flash.sector_size, device.flash.write_size) == (board.sector_size, board.write_size)
    assert len(device.bootloaders) == board.images


@pytest.mark.parametrize("name", BOARDS)
def test_every_option_overrules_the_board(name: str) -> None:
    made = config(
        f"sim:,board={name},slot_size=65536,sector_size=2048,write_size=2,erase=3.2,mode=swap-scratch,images=3,"
        "downgrade=no,firmware=zephyr-3.4"
    )
    assert (made.slot_size, made.sector_size, made.write_size) == (65536, 2048, 2)
    assert made.timing.erase_s_per_sector == pytest.approx(0.1)
    assert (made.mode, made.images, made.policy.downgrade_prevention) == (Mode.SWAP_SCRATCH, 3, True)
    assert made.ret_errors
    assert (made.info.release, made.info.board) == ("v3.4.0", BOARDS[name].target)


def test_a_board_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="no board 'nrf52'") as caught:
        config("sim:,board=nrf52")
    assert caught.value.hint == f"known are {', '.join(BOARDS)}"


def test_the_options_of_the_address_name_every_board() -> None:
    told = re.search(r"`board`(.*?); other options", SimTransport.__doc__ or "", re.DOTALL)
    assert told is not None
    assert re.findall(r"\w+\d[\w-]+", told[1]) == list(BOARDS)
