"""The emulated BlueZ against the real one: the same calls of bleak, the same observations, line by line.

`tests/golden/facts-bluez-5.66.txt` was recorded with bleak 3.1.0, BlueZ 5.66 and Linux 6.1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import cbor2
from bleak import BleakClient, BleakScanner
from bleak.backends.device import BLEDevice
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.ble.discovery import SMP_CHARACTERISTIC

from .bluez import ADAPTER, Daemon, EmulatedBluez, Peripheral, quick

FACTS = (Path(__file__).parents[1] / "golden" / "facts-bluez-5.66.txt").read_text(encoding="utf-8").splitlines()


def echo(text: str) -> bytes:
    return build_message(2, 1, 0, 0, 1, 0, cbor2.dumps({"d": text}))


def echo_of_size(size: int) -> bytes:
    for length in range(size):
        if len(message := echo("x" * length)) == size:
            return message
    raise AssertionError(f"no echo has {size} bytes")


class Witness:
    """Does what the recording did, and writes down what it sees."""

    def __init__(self, bluez: EmulatedBluez, peripheral: Peripheral) -> None:
        self.bluez = bluez
        self.peripheral = peripheral
        self.lines: list[str] = []
        self.framing = StreamFraming()
        self.answers: list[Any] = []
        self.lost = asyncio.Event()

    def note(self, what: str, seen: object) -> None:
        self.lines.append(f"{what}: {seen}")

    async def attempt(self, what: str, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(50):
                await work
        except Exception as error:
            self.note(what, f"{type(error).__name__} {error}")
        else:
            self.note(what, "ok")

    def take(self, _: object, data: bytearray) -> None:
        for *_, payload in self.framing.feed(bytes(data)):
            self.answers.append(cbor2.loads(payload))

    async def until_answers(self, count: int) -> None:
        async with asyncio.timeout(50):
            while len(self.answers) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def client(self, device: BLEDevice) -> BleakClient:
        self.lost = asyncio.Event()
        return BleakClient(device, disconnected_callback=lambda _: self.lost.set())

    async def call(self, bus: MessageBus, path: str, interface: str, member: str, signature: str, *body: Any) -> Any:
        """Body of the answer, or its error as text."""
        reply = await bus.call(
            Message(
                destination="org.bluez",
                path=path,
                interface=f"org.{interface}",
                member=member,
                signature=signature,
                body=list(body),
            )
        )
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            return f"{reply.error_name}: {reply.body[0]}"
        for descriptor in reply.unix_fds:
            self.descriptor = descriptor
        return reply.body

    async def testify(self) -> None:
        device = await BleakScanner.find_device_by_name("smp-rig", timeout=5)
        assert device is not None
        self.note("name", device.name)
        self.note("Device1 properties", sorted(device.details["props"]))
        client = self.client(device)
        await self.first_link(client)
        await self.without_a_link(client)
        await self.smaller_mtu(device)
        await self.losses(device)

    async def first_link(self, client: BleakClient) -> None:
        await self.attempt("connect", client.connect())
        characteristic = client.services.get_characteristic(SMP_CHARACTERISTIC)
        assert characteristic is not None
        self.note("characteristic", sorted(characteristic.obj[1]))
        self.note("flags", characteristic.properties)
        self.note("max_write_without_response_size", characteristic.max_write_without_response_size)
        await self.attempt("start_notify", client.start_notify(SMP_CHARACTERISTIC, self.take))
        await self.attempt("start_notify again", client.start_notify(SMP_CHARACTERISTIC, self.take))
        for size in (20, 244, 245, 512, 513):
            write = client.write_gatt_char(SMP_CHARACTERISTIC, echo_of_size(size), response=False)
            await self.attempt(f"write {size}", write)
        await self.until_answers(2)
        self.note("answers", len(self.answers))
        await self.attempt("acquire MTU", client._backend._acquire_mtu())
        self.note("mtu_size", client.mtu_size)
        bus = client._backend._bus
        path = self.peripheral.characteristic_path
        gatt = "bluez.GattCharacteristic1"
        self.note("AcquireNotify while notifying", await self.call(bus, path, gatt, "AcquireNotify", "a{sv}", {}))
        self.note("AcquireWrite", await self.call(bus, path, gatt, "AcquireWrite", "a{sv}", {}))
        write = client.write_gatt_char(SMP_CHARACTERISTIC, echo("x"), response=False)
        await self.attempt("write while acquired", write)
        os.close(self.descriptor)
        await self.attempt("stop_notify", client.stop_notify(SMP_CHARACTERISTIC))
        await self.attempt("disconnect", client.disconnect())
        self.note("disconnected callback", self.lost.is_set())

    async def without_a_link(self, client: BleakClient) -> None:
        bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        path, gatt = self.peripheral.characteristic_path, "bluez.GattCharacteristic1"
        answer = await self.call(bus, path, gatt, "WriteValue", "aya{sv}", b"x", {})
        self.note("WriteValue, no link", answer)
        self.note("StartNotify, no link", await self.call(bus, path, gatt, "StartNotify", ""))
        self.note("StopNotify, no link", await self.call(bus, path, gatt, "StopNotify", ""))
        self.note("AcquireWrite, no link", await self.call(bus, path, gatt, "AcquireWrite", "a{sv}", {}))
        answer = await self.call(bus, self.peripheral.path, "bluez.Device1", "Disconnect", "")
        self.note("Disconnect, no link", answer)
        answer = await self.call(bus, ADAPTER, "bluez.Adapter1", "StopDiscovery", "")
        self.note("StopDiscovery, none on", answer)
        bus.disconnect()
        await bus.wait_for_disconnect()

    async def smaller_mtu(self, device: BLEDevice) -> None:
        self.peripheral.model = quick(100)
        client = self.client(device)
        await self.attempt("reconnect", client.connect())
        characteristic = client.services.get_characteristic(SMP_CHARACTERISTIC)
        assert characteristic is not None
        stale = characteristic.max_write_without_response_size
        self.note("max_write_without_response_size, MTU now 100", stale)
        path = self.peripheral.characteristic_path
        bus = client._backend._bus
        mtu = await self.call(
            bus, path, "freedesktop.DBus.Properties", "Get", "ss", "org.bluez.GattCharacteristic1", "MTU"
        )
        self.note("MTU by Get", mtu[0].value)
        await self.attempt("acquire MTU", client._backend._acquire_mtu())
        self.note("mtu_size", client.mtu_size)
        write = client.write_gatt_char(SMP_CHARACTERISTIC, echo_of_size(200), response=False)
        await self.attempt("write 200 at MTU 100", write)
        await client.disconnect()

    async def losses(self, device: BLEDevice) -> None:
        client = self.client(device)
        await self.attempt("reconnect", client.connect())
        self.answers.clear()
        await client.start_notify(SMP_CHARACTERISTIC, self.take)
        await self.attempt("ask", client.write_gatt_char(SMP_CHARACTERISTIC, echo("again"), response=False))
        await self.until_answers(1)
        self.note("reply", self.answers[0])
        self.bluez.lose(self.peripheral)
        await self.attempt("disconnected callback", self.lost.wait())
        self.note("is_connected", client.is_connected)
        write = client.write_gatt_char(SMP_CHARACTERISTIC, echo("x"), response=False)
        await self.attempt("write after loss", write)
        await self.attempt("start_notify after loss", client.start_notify(SMP_CHARACTERISTIC, self.take))
        await self.attempt("disconnect after loss", client.disconnect())
        self.bluez.temporary_s = 0.05
        client = self.client(device)
        await self.attempt("reconnect", client.connect())
        self.bluez.lose(self.peripheral)
        await self.attempt("disconnected callback", self.lost.wait())
        self.note("is_connected", client.is_connected)
        await client.disconnect()
        async with asyncio.timeout(50):
            while self.peripheral.announced is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)  # for bleak to hear of it
        client = self.client(device)
        await self.attempt("connect to a forgotten device", client.connect())
        await client.disconnect()


async def test_the_emulation_behaves_as_bluez_was_seen_to(daemon: Daemon) -> None:
    device = SimulatedDevice(DeviceConfig(buf_size=600))
    device.install(build_image("1.0.0"))
    device.settle()
    peripheral = Peripheral(device)
    async with EmulatedBluez(daemon, peripheral) as bluez:
        witness = Witness(bluez, peripheral)
        await witness.testify()
    assert witness.lines == FACTS
    assert len(FACTS) == 46
