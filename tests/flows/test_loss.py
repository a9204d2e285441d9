"""One packet of an update goes wrong: every packet in turn, in every way, on every kind of link.

What must hold: the update ends in success or in a clear error, never in a hang; success is reported only when the
device runs the new image, confirmed; and the image is transferred once.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import McumgrError
from mcumgrx.flows import DfuPolicy, Ending, update
from mcumgrx.mcuboot import parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import Answer, DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import Operation, OperationKind
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from tests.support.thinned import thinned

pytestmark = pytest.mark.codec

OLD = build_image("1.0.0", payload_size=2000)
NEW = parse_image(build_image("1.1.0", payload_size=3000))
CONFIG = DeviceConfig(slot_size=64 * 1024, buf_size=1024)

LINKS = {
    "ideal": LinkModel.ideal(),
    "ble": LinkModel.ble(),
    "uart": LinkModel.uart(),
    "raw uart": LinkModel.uart(raw=True),
    "usb": replace(LinkModel.uart(1_000_000), drops_on_reset=True, connect_s=0.2),
    "datagram": LinkModel.datagram(),
}

# Longer than any update here can take with one fault: two waits for an opening chunk, and a boot time-out.
DEADLINE_S = 600.0


class Attempt:
    """One update of a fresh device under `faults`, and what became of it."""

    def __init__(self, link: str, faults: Faults) -> None:
        self.faults = faults
        self.ending: Ending | None = None
        self.error: McumgrError | None = None
        self.answering = False
        self.uploads = 0  # how often the application wrote the beginning of slot 1
        device = SimulatedDevice(CONFIG, name="desk")
        device.install(OLD)
        self.device = device
        device.flash.watch = self._watch
        device.handle = self._handle  # type: ignore[method-assign]
        run(self._run(SimulatedTransport(device, LINKS[link], faults=faults)))
        device.settle()

    async def _run(self, transport: SimulatedTransport) -> None:
        session = SessionDevice(Address("sim", "desk"), transport, default_registry())
        try:
            async with asyncio.timeout(DEADLINE_S):
                self.ending = (await update(session, NEW, DfuPolicy())).ending
        except McumgrError as error:
            self.error = error

    def _handle(self, message: bytes, now: float) -> Answer:
        self.answering = True
        try:
            return SimulatedDevice.handle(self.device, message, now)
        finally:
            self.answering = False

    def _watch(self, operation: Operation) -> None:
        # The bootloader, whose swap writes there too, works outside of requests.
        if operation.kind is OperationKind.WRITE and self.answering:
            self.uploads += operation.offset == self.device.bootloader.slots[1].offset

    def check(self, what: str) -> None:
        running = str(self.device.boot_result.version) if self.device.boot_result else "nothing"
        if self.error is None:
            assert self.ending is Ending.CONFIRMED, what
            assert running == "1.1.0", f"{what}: success was reported, but {running} runs"
            self.device.reset(1e6)
            self.device.settle()
            assert self.device.boot_result is not None
            assert str(self.device.boot_result.version) == "1.1.0", f"{what}: not confirmed after all"
        else:
            assert str(self.error), what
            assert running in ("1.0.0", "1.1.0"), what
        assert self.uploads == 1, f"{what}: {self.uploads} uploads"


def count(link: str) -> tuple[int, int]:
    """Requests and answers of an update without faults."""
    undisturbed = Attempt(link, Faults())
    undisturbed.check(f"{link}, undisturbed")
    assert undisturbed.error is None
    return undisturbed.faults.requests, undisturbed.faults.replies


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "fault",
    [
        "drop_requests",
        "drop_replies",
        "duplicate_requests",
        "duplicate_replies",
        "delay_requests",
        "delay_replies",
        "cut_at_request",
        "cut_at_reply",
    ],
)
def test_one_packet_goes_wrong(fault: str, link: str) -> None:
    requests, replies = count(link)
    errors: list[str] = []
    for position in thinned(range(1, (requests if "request" in fault else replies) + 1), fault, link):
        value: object = {position: 7.0} if fault.startswith("delay") else position
        attempt = Attempt(link, Faults(**{fault: value}))  # type: ignore[arg-type]
        attempt.check(f"{fault} {position} on {link}")
        if attempt.error is not None:
            errors.append(f"{position}: {attempt.error}")
    # Nothing that happens once has to end an update at all.
    assert errors == []
