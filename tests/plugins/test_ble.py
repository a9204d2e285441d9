"""`ble:` without D-Bus: its addresses, its pace, its words for what bleak raises, and systems other than Linux.

The whole way through bleak, D-Bus and BlueZ is in `tests/ble`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
    BleakGATTProtocolErrorCode,
)

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, RequestTimeout, UsageError
from mcumgrx.messages.standard import Echo
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx_plugins.ble import trouble
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC, SMP_SERVICE, discover
from mcumgrx_plugins.ble.pace import Pace
from mcumgrx_plugins.ble.transport import BleTransport, Stack
from mcumgrx_plugins.ble.trouble import group_advice, translated

ADDRESS = "C0:FF:EE:12:34:56"


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ble:", "names no device"),
        ("ble:Widget,pair=perhaps", "is not one of yes, no"),
        ("ble:Widget,service=smp", "is not a UUID"),
        ("ble:Widget,mtu=100", "does not know the option 'mtu'"),
    ],
)
def test_addresses_that_mean_nothing(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BleTransport(Address.parse(text))


def test_addresses() -> None:
    for text in ("ble:Widget", f"ble:{ADDRESS},adapter=hci1,pair=yes", "ble:W%2C1,service=FE01,characteristic=0xfe02"):
        assert text in repr(BleTransport(Address.parse(text)))


# -- errors -----------------------------------------------------------------------------------------------------------

ABSENT = BleakBluetoothNotAvailableReason
BLUEZ, BUS = "org.bluez.Error", "org.freedesktop.DBus.Error"


@pytest.mark.parametrize(
    ("error", "kind", "says", "hint"),
    [
        (BleakBluetoothNotAvailableError("x", ABSENT.NO_BLUETOOTH), ConnectFailed, "no Bluetooth adapter", "plug one"),
        (BleakBluetoothNotAvailableError("x", ABSENT.POWERED_OFF), ConnectFailed, "switched off", "power on"),
        (BleakBluetoothNotAvailableError("x", ABSENT.DENIED_BY_USER), ConnectFailed, "may not use", "privacy"),
        (BleakBluetoothNotAvailableError("x", ABSENT.DENIED_BY_SYSTEM), ConnectFailed, "may not use", "usermod"),
        (BleakBluetoothNotAvailableError("x", ABSENT.NO_BLE_CENTRAL_ROLE), ConnectFailed, "Bluetooth LE", "adapter="),
        (FileNotFoundError(2, "No such file or directory"), ConnectFailed, "D-Bus", "start dbus"),
        (ConnectionRefusedError(111, "Connection refused"), ConnectFailed, "D-Bus", "start dbus"),
        (PermissionError(13, "Permission denied"), ConnectFailed, "may not use", "usermod"),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", ["x"]), ConnectFailed, "may not use", "usermod"),
        (BleakDBusError(f"{BLUEZ}.NotReady", ["Resource Not Ready"]), ConnectFailed, "switched off", "power on"),
        (BleakError("adapter 'hci7' not found"), ConnectFailed, "no Bluetooth adapter 'hci7'", "bluetoothctl list"),
        (BleakError("device 'dev_00' not found"), DeviceNotFound, "no longer there", "advertising"),
        (BleakDeviceNotFoundError("x", "gone"), DeviceNotFound, "no longer there", "advertising"),
        (BleakDBusError(f"{BLUEZ}.AuthenticationFailed", ["No"]), ConnectFailed, "not be paired: No", "passkey"),
        (BleakDBusError(f"{BLUEZ}.NotPermitted", ["Not paired"]), ConnectFailed, "demands pairing", "pair=yes"),
        (
            BleakGATTProtocolError(BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION),
            ConnectFailed,
            "demands pairing",
            "pair=yes",
        ),
        (TimeoutError(), ConnectFailed, "did not connect within 15 s", "near"),
        (BleakDBusError(f"{BLUEZ}.Failed", ["le-connection-x"]), ConnectFailed, "connected: le-connection-x", "try"),
        (EOFError(), ConnectFailed, "D-Bus", "start dbus"),
        (OSError(9, "Bad file descriptor"), ConnectFailed, "D-Bus", "start dbus"),
        (BleakDBusError(f"{BUS}.NameHasNoOwner", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError(f"{BUS}.NoReply", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError(f"{BUS}.TimedOut", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError(f"{BUS}.Spawn.ExecFailed", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError(f"{BUS}.Spawn.ServiceNotFound", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError("org.freedesktop.systemd1.NoSuchUnit", ["x"]), ConnectFailed, "bluetoothd", "systemctl"),
        (BleakDBusError(f"{BLUEZ}.InProgress", ["In Progress"]), ConnectFailed, "In Progress", "another program"),
        (BleakDBusError(f"{BLUEZ}.Failed", ["br-connection-canceled"]), ConnectFailed, "canceled", "another program"),
        (BleakDBusError(f"{BLUEZ}.AuthenticationTimeout", ["No"]), ConnectFailed, "not be paired: No", "passkey"),
    ],
)
def test_errors_of_bleak_in_our_words(
    error: Exception, kind: type, says: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(trouble, "_membership", lambda: (True, False, False))
    translation = translated(error, "the device Widget", timeout_s=15)
    assert type(translation) is kind
    assert says in str(translation)
    assert hint in str(translation.hint)


@pytest.mark.parametrize(
    ("there", "ours", "listed", "hint"),
    [
        (True, False, False, "sudo usermod -aG bluetooth $USER"),
        (True, False, True, "this session is older than that"),
        (True, True, False, "you are in the group bluetooth already, so something else"),
        (True, True, True, "you are in the group bluetooth already, so something else"),
        (False, False, False, "has no group bluetooth to join, so something else"),
    ],
)
def test_only_who_is_not_in_the_group_is_told_to_join_it(there: bool, ours: bool, listed: bool, hint: str) -> None:
    advice = group_advice(there, ours, listed)
    assert hint in advice
    assert ("usermod" in advice) == (there and not ours and not listed)


@pytest.mark.skipif(sys.platform == "win32", reason="groups of Unix")
def test_the_group_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    mine = pwd.getpwuid(os.geteuid()).pw_name
    entry = grp.struct_group(("bluetooth", "x", 987654, [mine]))
    monkeypatch.setattr(grp, "getgrnam", {"bluetooth": entry}.__getitem__)
    assert trouble._membership() == (True, False, True)
    monkeypatch.setattr(os, "getgroups", lambda: [987654])
    assert trouble._membership() == (True, True, True)
    monkeypatch.setattr(grp, "getgrnam", {}.__getitem__)
    assert trouble._membership() == (False, False, False)


# -- pace -------------------------------------------------------------------------------------------------------------


def test_pace_is_learnt_from_answers() -> None:
    pace = Pace()
    pace.sending(0, 1, 10.0)
    assert pace.queued_s(10.0) == pytest.approx(0.05)
    pace.answered(0, 10.4)
    assert pace.queued_s(10.4) == 0
    pace.sending(1, 3, 11.0)
    assert pace.queued_s(11.0) == pytest.approx(1.2)
    assert pace.queued_s(12.0) == pytest.approx(0.2)
    assert pace.queued_s(13.0) == 0


def test_pace_forgets_a_slow_answer() -> None:
    """Erasing takes seconds, in which the link was not busy."""
    pace = Pace()
    for number in range(5):
        pace.sending(number, 2, number)
        pace.answered(number, number + (8.0 if number == 2 else 0.02))
    assert pace.write_s == pytest.approx(0.01)


class Pipeline:
    """A link of one constant speed to a device that answers in order, one request after the other."""

    def __init__(self, write_s: float, answer_s: float = 0.0, writes: int = 4) -> None:
        self.pace = Pace()
        self.write_s, self.answer_s, self.writes = write_s, answer_s, writes
        self.now = self.left_at = self.answered_at = 0.0
        self.number = 0
        self.coming: list[tuple[float, int]] = []

    def send(self, busy_s: float = 0.0) -> None:
        """One more in flight; the device is busy with it for so long beyond the ordinary."""
        self.pace.sending(self.number, self.writes, self.now)
        self.left_at = max(self.now, self.left_at) + self.writes * self.write_s
        self.answered_at = max(self.left_at, self.answered_at) + self.answer_s + busy_s
        self.coming.append((self.answered_at, self.number))
        self.number = (self.number + 1) % 256
        if self.now:  # there have been answers
            assert self.pace.queued_s(self.now) >= 0.999 * (self.left_at - self.now)

    def hear(self) -> None:
        self.now, number = self.coming.pop(0)
        self.pace.answered(number, self.now)

    def run(self, window: int, requests: int, busy: dict[int, float] | None = None) -> list[float]:
        """What was estimated after each answer, in times of the truth."""
        estimates = []
        for count in range(requests):
            while len(self.coming) < window:
                self.send((busy or {}).get(count, 0.0))
            self.hear()
            estimates.append(self.pace.write_s / self.write_s)
        return estimates


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("write_s", [0.001, 0.0075, 0.05, 0.4])
def test_pace_with_several_in_flight(window: int, write_s: float) -> None:
    """The third answer has waited for two others, which is no reason to think the link three times as slow."""
    estimates = Pipeline(write_s).run(window, 500)
    assert min(estimates) >= 0.999
    assert max(estimates) < 2


def test_pace_where_the_device_is_slower_than_the_link() -> None:
    """The estimate is too high then, by no more than the time of an answer, and stays where it is."""
    for window in (1, 3):
        estimates = Pipeline(0.01, answer_s=0.2).run(window, 500)
        assert min(estimates) >= 0.999
        assert max(estimates) <= (4 * 0.01 + 2 * 0.2) / (4 * 0.01)
        assert estimates[-1] == pytest.approx(estimates[20])


@pytest.mark.parametrize("window", [1, 3])
def test_pace_while_the_device_erases_now_and_then(window: int) -> None:
    """All that wait behind an erase have one late answer in common; it counts once."""
    estimates = Pipeline(0.01).run(window, 200, dict.fromkeys(range(20, 200, 20), 8.0))
    assert min(estimates) >= 0.999
    assert max(estimates) < 2


def test_pace_of_a_link_that_becomes_slow() -> None:
    for window in (1, 3):
        link = Pipeline(0.01)
        link.run(window, 50)
        link.write_s = 0.1
        for _ in range(4 * window + 4):
            link.pace.sending(link.number, 4, link.now)
            link.left_at = link.answered_at = max(link.now, link.left_at) + 0.4
            link.coming.append((link.left_at, link.number))
            link.number += 1
            link.hear()
        assert 0.1 <= link.pace.write_s < 0.2


def test_pace_after_a_time_out() -> None:
    """An answer that comes after all must not be counted to the next request, which would seem quick."""
    pace = Pace()
    pace.sending(0, 1, 0.0)
    assert not pace.gave_up()
    pace.sending(1, 2, 0.0)
    assert pace.gave_up()
    pace.sending(2, 2, 9.0)
    pace.answered(1, 9.001)
    pace.answered(0, 9.001)
    assert pace.write_s == 0.05
    pace.answered(2, 9.2)
    pace.answered(2, 9.2)
    assert pace.write_s == pytest.approx(0.1)


def test_pace_when_one_of_several_is_lost() -> None:
    """What was sent before a request that is answered has left, whatever became of it."""
    pace = Pace()
    for number in range(3):
        pace.sending(number, 2, 0.0)
    pace.answered(1, 0.4)
    assert pace.write_s == pytest.approx(0.1)
    assert pace.queued_s(0.4) == pytest.approx(0.2)
    pace.answered(2, 0.6)
    assert pace.queued_s(0.6) == 0


# -- other systems ----------------------------------------------------------------------------------------------------


class Radio:
    """What the stand-in for a system's Bluetooth does."""

    def __init__(self) -> None:
        self.write_bytes: Callable[[], int] = lambda: 100
        self.takes_writes: Callable[[], bool] = lambda: True
        self.peripheral: object | None = None
        self.mute = False
        self.hangs: set[str] = set()
        self.writes: list[bytes] = []
        self.clients: list[OtherClient] = []


radio = Radio()


@pytest.fixture(autouse=True)
def fresh_radio() -> None:
    radio.__init__()  # type: ignore[misc]


class OtherScanner(BaseBleakScanner):
    """Hears one device at once."""

    def __init__(self, detection_callback: Any, service_uuids: Any, scanning_mode: Any, **more: Any) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        from bleak.backends.scanner import AdvertisementData

        advertisement = AdvertisementData("Widget", {}, {}, [SMP_SERVICE], None, -50, ())
        device = self.create_or_update_device(ADDRESS, ADDRESS, "Widget", None, advertisement)
        asyncio.get_running_loop().call_soon(self.call_detection_callbacks, device, advertisement)

    async def stop(self) -> None:
        pass


class OtherClient(BaseBleakClient):
    """Answers echoes, as a system other than Linux would let bleak do."""

    def __init__(self, device: BLEDevice | str, **more: Any) -> None:
        super().__init__(device, disconnected_callback=more["disconnected_callback"], timeout=more["timeout"])
        self.arguments = more
        self._connected = False
        self._peripheral = radio.peripheral
        self._notify: NotifyCallback | None = None
        self._framing = StreamFraming(ops=REQUEST_OPS)
        radio.clients.append(self)

    @property
    def mtu_size(self) -> int:
        return radio.write_bytes() + 3

    @property
    def is_connected(self) -> bool:
        return self._connected

    async def _may_hang(self, what: str) -> None:
        if what in radio.hangs:
            await asyncio.Event().wait()

    async def connect(self, pair: bool, **kwargs: Any) -> None:
        await self._may_hang("connect")
        service = BleakGATTService(None, 1, SMP_SERVICE)
        self.services = BleakGATTServiceCollection()
        self.services.add_service(service)
        self.services.add_characteristic(
            BleakGATTCharacteristic(
                None, 2, SMP_CHARACTERISTIC, ["write-without-response", "notify"], lambda: radio.write_bytes(), service
            )
        )
        self._connected = True

    async def disconnect(self) -> None:
        self.lose()

    def lose(self) -> None:
        if self._connected:
            self._connected = False
            self.services = None
            if self._disconnected_callback is not None:
                self._disconnected_callback()

    async def pair(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    async def unpair(self) -> None:
        raise NotImplementedError

    async def read_gatt_char(self, characteristic: Any, *, use_cached: bool = False, **kwargs: Any) -> bytearray:
        raise NotImplementedError

    async def read_gatt_descriptor(self, descriptor: Any, **kwargs: Any) -> bytearray:
        raise NotImplementedError

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: Any) -> None:
        raise NotImplementedError

    async def start_notify(self, characteristic: Any, callback: NotifyCallback, **kwargs: Any) -> None:
        await self._may_hang("start_notify")
        self._notify = callback

    async def stop_notify(self, characteristic: Any) -> None:
        self._notify = None

    async def write_gatt_char(self, characteristic: Any, data: Any, response: bool) -> None:
        await self._may_hang("write")
        assert len(data) <= radio.write_bytes()
        if not radio.takes_writes():
            return  # as macOS drops it
        radio.writes.append(bytes(data))
        for op, version, flags, group, sequence, command, payload in self._framing.feed(bytes(data)):
            reply = build_message(op | 1, version, flags, group, sequence, command, payload.replace(b"ad", b"ar", 1))
            if self._notify is not None and not radio.mute:
                asyncio.get_running_loop().call_soon(self._notify, bytearray(reply))


def widget() -> BleTransport:
    return BleTransport(Address("ble", "Widget"), stack=Stack(OtherClient, OtherScanner))


async def test_the_mtu_is_asked_for_each_message() -> None:
    """macOS may change it minutes into a connection."""
    async with Client(widget()) as client:
        assert client.limits.write == 100
        radio.write_bytes = lambda: 182
        assert client.limits.write == 182
        radio.write_bytes = lambda: 5000
        assert client.limits.write == 512
        radio.write_bytes = lambda: 0
        assert client.limits.write == 20


async def test_an_mtu_that_is_told_late_is_waited_for() -> None:
    """Windows says 20 at first."""
    asked = 0

    def late() -> int:
        nonlocal asked
        asked += 1
        return 20 if asked < 4 else 244

    radio.write_bytes = late
    async with Client(widget()) as client:
        assert client.limits.write == 244


async def test_services_are_not_taken_from_the_cache_of_windows() -> None:
    async with Client(widget()) as client:
        assert await client.request(Echo("hello")) == "hello"
    assert radio.clients[-1].arguments["winrt"] == {"use_cached_services": False}
    assert radio.clients[-1].arguments["services"] == {SMP_SERVICE}


async def test_no_write_goes_where_it_would_be_dropped() -> None:
    """macOS drops silently what comes while its queue is full."""

    class Peripheral:
        asked = 0

        def canSendWriteWithoutResponse(self) -> bool:
            self.asked += 1
            return self.asked % 3 == 0

    peripheral = radio.peripheral = Peripheral()
    radio.takes_writes = lambda: peripheral.asked % 3 == 0
    async with Client(widget()) as client:
        assert len(await client.request(Echo("x" * 300))) == 300
    assert peripheral.asked == 3 * len(radio.writes)


@pytest.mark.parametrize(
    ("what", "says"), [("connect", "did not connect within 0"), ("start_notify", "did not let its answers be")]
)
async def test_what_hangs_is_given_up(what: str, says: str) -> None:
    radio.hangs = {what}
    with pytest.raises(ConnectFailed, match=says) as caught:
        await Client(widget()).open(0.2 if what == "connect" else 0.6)
    assert ("pair=yes" in str(caught.value.hint)) == (what == "start_notify")


@pytest.mark.parametrize("what", ["start_notify", "write"])
async def test_a_link_that_ends_while_bleak_waits_for_ever(what: str) -> None:
    radio.hangs = {what}
    client = Client(widget())

    async def work() -> None:
        await client.open()
        await client.request(Echo("x"), timeout_s=60)

    task = asyncio.create_task(work())
    async with asyncio.timeout(50):
        while not radio.clients or not radio.clients[-1].is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        radio.clients[-1].lose()
        with pytest.raises(LinkLost if what == "write" else ConnectFailed):
            await task
    await client.close()


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("cancelled", [True, False])
async def test_who_gives_up_a_write_that_hangs(lost: bool, cancelled: bool) -> None:
    """The end of the link makes it a `LinkLost`, but takes no cancellation by others away."""
    transport = widget()
    await transport.open(5)
    radio.hangs = {"write"}
    after = asyncio.Event()

    async def send() -> None:
        try:
            await transport.send([b"\x0a" + bytes(7)])
        except LinkLost:
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)
            after.set()
            raise

    task = asyncio.create_task(send())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if lost:
        radio.clients[-1].lose()
    if cancelled:
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=50 if lost or cancelled else 0.01)
    assert bool(done) == (lost or cancelled)
    await transport.close()
    error = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(error, asyncio.CancelledError if cancelled else LinkLost)
    assert after.is_set() == (not cancelled)


async def test_silence_is_a_time_out() -> None:
    async with Client(widget()) as client:
        radio.mute = True
        with pytest.raises(RequestTimeout):
            await client.request(Echo("x"), timeout_s=0.01, repeats=0)


async def test_scan() -> None:
    (found,) = await discover(0.05, OtherScanner)
    assert (found.address, found.name) == (f"ble:{ADDRESS}", "Widget")
    assert found.smp is True


async def test_where_the_mac_hides_addresses() -> None:
    """Its own number of the device stands in their place, and says nothing about identity."""
    found = BLEDevice("2F0D1E6C-7E5B-4C2B-9A2E-0123456789AB", "Widget", details=(object(), object()))
    transport = BleTransport.of(found)
    assert "ble:2F0D1E6C" in repr(transport)
    assert transport.identity is None


async def test_a_client_of_bleak_with_another_backend() -> None:
    theirs = BleakClient(ADDRESS, backend=OtherClient)
    async with Client(BleTransport.of(theirs)) as client:
        assert await client.request(Echo("hello")) == "hello"
    assert not theirs.is_connected
