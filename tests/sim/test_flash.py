"""The simulated flash: NOR rules, time, counts, power cuts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.sim.flash import INSTANT, Flash, FlashError, FlashTiming, Operation, OperationKind, PowerCut

BLANK = b"\xff" * 256


def small() -> Flash:
    return Flash(256, sector_size=64, write_size=4)


def test_new_flash_is_erased() -> None:
    flash = small()
    assert flash.snapshot() == BLANK
    assert flash.is_erased(0, 256)
    assert flash.operations == 0
    assert flash.timing == INSTANT


def test_writes_clear_bits_and_an_erase_sets_them() -> None:
    flash = small()
    flash.write(64, bytes.fromhex("f0f0f0f0"))
    assert flash.writes_over_data == 0
    flash.write(64, bytes.fromhex("3c3c3c3c"))
    assert flash.read(64, 4) == bytes.fromhex("30303030")
    assert flash.writes_over_data == 1
    assert not flash.is_erased(64, 4)
    assert flash.is_erased(68, 60)
    flash.erase(64, 64)
    assert flash.is_erased(0, 256)
    assert (flash.writes, flash.erases, flash.operations) == (2, 1, 3)


def test_writing_what_is_there_already_does_no_harm() -> None:
    flash = small()
    flash.write(0, b"data")
    flash.write(0, b"data")
    assert flash.read(0, 4) == b"data"
    assert flash.writes_over_data == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda flash: flash.write(2, bytes(4)), "write of 4 bytes at 0x2 is not aligned to 4 bytes"),
        (lambda flash: flash.write(0, bytes(3)), "not aligned"),
        (lambda flash: flash.erase(4, 64), "erase of 64 bytes at 0x4 is not aligned to 64 bytes"),
        (lambda flash: flash.erase(0, 32), "not aligned"),
        (lambda flash: flash.write(256, bytes(4)), "outside"),
        (lambda flash: flash.erase(192, 128), "outside"),
        (lambda flash: flash.read(0, 257), "outside"),
        (lambda flash: flash.read(-1, 1), "outside"),
        (lambda flash: flash.read(0, -1), "outside"),
        (lambda flash: flash.is_erased(255, 2), "outside"),
        (lambda flash: flash.poke(255, b"ab"), "outside"),
        (lambda flash: flash.restore(bytes(255)), "does not fit"),
    ],
)
def test_what_the_flash_cannot_do(call: object, message: str) -> None:
    flash = small()
    with pytest.raises(FlashError, match=message):
        call(flash)  # type: ignore[operator]
    assert flash.snapshot() == BLANK
    assert flash.operations == 0


@pytest.mark.parametrize("geometry", [(0, 64, 4), (250, 64, 4), (256, 62, 4), (256, 64, 0)])
def test_flash_that_cannot_be(geometry: tuple[int, int, int]) -> None:
    size, sector, write = geometry
    with pytest.raises(FlashError, match="no flash"):
        Flash(size, sector_size=sector, write_size=write)


def test_time_adds_up_until_taken() -> None:
    timing = FlashTiming(erase_s_per_sector=1.0, write_s_per_byte=0.25, operation_s=10.0)
    flash = Flash(256, sector_size=64, timing=timing)
    flash.erase(0, 128)
    assert flash.busy_s == pytest.approx(22.0)
    flash.write(0, bytes(8))
    assert flash.take_busy_s() == pytest.approx(34.0)
    assert flash.take_busy_s() == 0.0
    flash.read(0, 256)
    assert flash.busy_s == 0.0


def test_each_sector_is_an_operation() -> None:
    flash = small()
    seen: list[Operation] = []
    flash.watch = seen.append
    flash.erase(64, 128)
    flash.write(64, bytes(8))
    flash.write(64, b"")
    assert seen == [
        Operation(1, OperationKind.ERASE, 64, 64),
        Operation(2, OperationKind.ERASE, 128, 64),
        Operation(3, OperationKind.WRITE, 64, 8),
    ]
    assert str(seen[2]) == "operation 3: write of 8 bytes at 0x40"


def test_power_can_fail_before_an_operation() -> None:
    flash = small()
    flash.write(0, bytes(4))
    flash.cut_power(after=1)
    flash.write(4, bytes(4))
    with pytest.raises(PowerCut) as cut:
        flash.write(8, bytes(4))
    assert cut.value.operation == Operation(3, OperationKind.WRITE, 8, 4)
    assert flash.read(0, 12) == bytes(8) + b"\xff" * 4
    flash.write(8, bytes(4))  # power is back
    assert flash.read(8, 4) == bytes(4)


@pytest.mark.parametrize(("length", "written"), [(16, 8), (12, 4), (4, 0)])
def test_torn_writes_leave_whole_units(length: int, written: int) -> None:
    flash = small()
    flash.cut_power(after=0, torn=True)
    with pytest.raises(PowerCut):
        flash.write(0, bytes(length))
    assert flash.read(0, length) == bytes(written) + b"\xff" * (length - written)


def test_torn_erases_leave_half_a_sector() -> None:
    flash = small()
    flash.write(0, bytes(128))
    flash.cut_power(after=1, torn=True)
    with pytest.raises(PowerCut):
        flash.erase(0, 128)
    assert flash.snapshot() == b"\xff" * 96 + bytes(32) + b"\xff" * 128


def test_a_cut_can_be_taken_back() -> None:
    flash = small()
    flash.cut_power(after=0)
    flash.keep_power()
    flash.write(0, bytes(4))


def test_a_snapshot_brings_everything_back() -> None:
    flash = small()
    flash.write(0, b"keep")
    kept = flash.snapshot()
    flash.erase(0, 64)
    flash.poke(1, b"\x00")
    before = flash.operations
    flash.restore(kept)
    assert flash.snapshot() == kept
    assert flash.operations == before


WRITES = st.tuples(st.integers(0, 63), st.binary(min_size=1, max_size=8))
ERASES = st.integers(0, 3)


@given(st.lists(st.one_of(WRITES, ERASES), max_size=30))
def test_like_bits_that_only_an_erase_sets(steps: list[tuple[int, bytes] | int]) -> None:
    """Against the plainest model there is: one byte at a time."""
    flash = small()
    model = bytearray(BLANK)
    for step in steps:
        if isinstance(step, int):
            flash.erase(step * 64, 64)
            model[step * 64 : step * 64 + 64] = b"\xff" * 64
        else:
            unit, data = step
            data = (data * 4)[: min(len(data) * 4, 256 - unit * 4)]
            flash.write(unit * 4, data)
            for index, byte in enumerate(data):
                model[unit * 4 + index] &= byte
    assert flash.snapshot() == model
