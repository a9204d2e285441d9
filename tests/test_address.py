"""What people type for an address, and what they are told."""

from __future__ import annotations

import pytest

from mcumgrx.address import Address, OptionReader, meant_address
from mcumgrx.errors import UsageError
from mcumgrx.registry import default_registry


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("192.168.1.5", "udp:192.168.1.5"),
        ("192.168.1.5,mtu=500", "udp:192.168.1.5,mtu=500"),
        ("127.0.0.1:1337", "udp:127.0.0.1:1337"),
        ("device.local:1337", "udp:device.local:1337"),
        ("::1", "udp:[::1]"),
        ("fe80::1", "udp:[fe80::1]"),
        ("[::1]:1337", "udp:[::1]:1337"),
        ("udp://192.0.2.7", "udp:192.0.2.7"),
        ("serial:///dev/ttyACM0", "serial:/dev/ttyACM0"),
        ("ttyACM0", "serial:/dev/ttyACM0"),
        ("ttyUSB0,baud=9600", "serial:/dev/ttyUSB0,baud=9600"),
        ("dev/ttyS1", "serial:/dev/ttyS1"),
        ("cu.usbmodem1101", "serial:/dev/cu.usbmodem1101"),
        ("COM3:", "serial:COM3"),
        ("COM", "serial:COM3"),
        ("AA:BB:CC:DD:EE:FF", "ble:AA:BB:CC:DD:EE:FF"),
        ("aa-bb-cc-dd-ee-ff", "ble:AA:BB:CC:DD:EE:FF"),
        ("2fe3:0004", "usb:2fe3:0004"),
        ("abcd:0001", "usb:abcd:0001"),
        ("sim", "sim:"),
        ("My Widget", "ble:My%20Widget"),
    ],
)
def test_half_an_address_is_answered_with_the_whole(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        default_registry().transport(Address.parse(typed))
    assert "is not a device address" in str(caught.value)
    hint = caught.value.hint or ""
    assert meant in hint
    found = next(word.strip(";,") for word in hint.split() if word.strip(";,").startswith(meant))
    assert Address.parse(str(Address.parse(found))) == Address.parse(found)


@pytest.mark.parametrize("typed", ["", ",", "foo:bar", "http://host/app", "a=b"])
def test_where_nothing_tells_nothing_is_guessed(typed: str) -> None:
    assert meant_address(typed) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sim:mode=direct-xip", "sim:,mode=direct-xip"),
        ("sim:mode=direct-xip,erase=1", "sim:,mode=direct-xip,erase=1"),
        ("sim:desk mode=x", "sim:desk,mode=x"),
        ("sim:desk;mode=x", "sim:desk,mode=x"),
        ("sim:desk?mode=x", "sim:desk,mode=x"),
        ("sim:/dev/ttyACM0:mode=x", "sim:/dev/ttyACM0,mode=x"),
    ],
)
def test_a_comma_that_is_missing_is_missed(typed: str, meant: str) -> None:
    options = OptionReader(Address.parse(typed))
    options.text("mode", "")
    options.text("erase", "")
    with pytest.raises(UsageError, match="lacks a comma before mode=") as caught:
        options.finish()
    assert caught.value.hint == f"write {meant}"


def test_an_equals_sign_can_be_part_of_a_name() -> None:
    options = OptionReader(Address.parse("ble:x=1"))
    options.text("pair", "")
    options.finish()
