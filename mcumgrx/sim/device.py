"""A simulated device: an SMP server over a flash and a bootloader, driven by the clock that its caller passes in.

Synchronous and without a loop: `handle` takes one request and says what comes back and how long it took; time passes
only through the `now` arguments (seconds of any clock that runs forward), so a device lives in virtual and in real
time alike. Which bytes carry the requests, and what waits while the device is busy, is `link`'s business.

The server's rules are those of Zephyr 4.4, `subsys/mgmt/mcumgr/smp/src/smp.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import HEADER_SIZE, Header, Op, Version
from mcumgrx.protocol.message import SmpError
from mcumgrx.sim.bootloader import PRIMARY, Bootloader, BootPolicy, BootResult, Layout, Mode
from mcumgrx.sim.flash import Flash, FlashTiming, PowerCut
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Refused, encode
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.groups.os import OsServer
from mcumgrx.sim.images import Health, read_application

__all__ = ["Answer", "DeviceConfig", "OsInfo", "Power", "SimulatedDevice", "TaskInfo"]


@dataclass(frozen=True, slots=True)
class OsInfo:
    """What the info command tells, one field per format letter (`s n r v b m p i o`)."""

    kernel: str = "Zephyr"
    node: str = "unknown"
    release: str = "v4.4.0"
    version: str = "4.4.0"
    build: str = "Thu Jan  1 00:00:00 2026"
    machine: str = "simulated"
    processor: str = "simulated"
    board: str = "mcumgrx_sim"
    os: str = "Zephyr"


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One thread in the task statistics; stack sizes in units of 4 bytes, None on builds that do not know them."""

    name: str
    prio: int
    tid: int
    state: int
    stksiz: int | None = None
    stkuse: int | None = None


_TASKS = (
    TaskInfo("mcumgr smp", 3, 0, 128, 512, 210),
    TaskInfo("sysworkq", -1, 1, 2, 256, 64),
    TaskInfo("idle", 15, 2, 0, 80, 21),
    TaskInfo("main", 0, 3, 2, 256, 150),
)


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """How the device and its firmware were built. Sizes in bytes, times in seconds.

    The defaults make a board on the desk: two slots of 512 KB internal flash as in an nRF52840 (erasing a whole slot
    takes 11 s), a bootloader that swaps by moving, and Zephyr's default buffers.

    Attributes:
        buf_size: of each network buffer; no request or answer is longer.
        buf_count: buffers in all; what does not find one is lost.
        params: answers the parameter query, which Zephyr does not by default.
        mode: how the bootloader updates.
        policy: the bootloader's build options.
        boot_s: from the bootloader's jump until the application answers; swapping comes on top.
        reset_delay_s: between the answer to a reset and the reset.
        watchdog_s: after which an application that hangs is reset.
        request_s: the server needs for any request beside the flash.
        original_only: a server before Zephyr 3.4: ignores the version bits and answers as version 1.
        refuses_original: built without version 1.
        canonical: answers with maps and arrays of definite length.
        legacy_rc: successful answers carry `rc: 0`.
        verbose_errors: errors of version 1 carry a text.
        bootloader_info: answers the bootloader query.
        image_check: compares an upload with its `sha` (`CONFIG_IMG_ENABLE_IMAGE_CHECK`).
        erase_progressively: erases sector by sector as the upload arrives, not at its beginning.
        frugal_list: leaves false flags out of the image list.
        unhealthy: versions whose application crashes, whatever the image says itself.
    """

    buf_size: int = 384
    buf_count: int = 4
    params: bool = True
    slot_size: int = 512 * 1024
    sector_size: int = 4096
    write_size: int = 4
    timing: FlashTiming = field(default_factory=FlashTiming)
    mode: Mode = Mode.SWAP_MOVE
    policy: BootPolicy = field(default_factory=BootPolicy)
    boot_s: float = 0.5
    reset_delay_s: float = 0.25
    watchdog_s: float = 2.0
    request_s: float = 0.001
    original_only: bool = False
    refuses_original: bool = False
    canonical: bool = False
    legacy_rc: bool = False
    verbose_errors: bool = True
    bootloader_info: bool = True
    image_check: bool = False
    erase_progressively: bool = False
    frugal_list: bool = False
    unhealthy: frozenset[str] = frozenset()
    info: OsInfo = field(default_factory=OsInfo)
    tasks: tuple[TaskInfo, ...] = _TASKS

    def __post_init__(self) -> None:
        if self.buf_size < 64 or self.buf_count < 2:
            raise UsageError(f"no server works with {self.buf_count} buffers of {self.buf_size} bytes")
        for name in ("boot_s", "reset_delay_s", "request_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is negative")
        if self.watchdog_s <= 0:
            raise UsageError("watchdog_s must be more than 0, or a crashing device would restart for ever at once")


class Power(Enum):
    """What the device is doing."""

    OFF = "off"
    """It has not been looked at yet; the next look finds it running."""
    BOOTING = "booting"
    """The bootloader is at work, or the application has not come up yet."""
    RUNNING = "running"
    HUNG = "hung"
    """The application has crashed; the watchdog will reset the device."""
    DEAD = "dead"
    """The bootloader found no image to run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request led to: the answers, sent `busy_s` seconds after the request was taken up."""

    replies: tuple[bytes, ...] = ()
    busy_s: float = 0.0


class SimulatedDevice:
    """One device. New, its flash is empty: `install` an image before use.

    ::

        device = SimulatedDevice()
        device.install(build_image("1.0.0"))
        answer = device.handle(request, now=0.0)
    """

    def __init__(self, config: DeviceConfig | None = None, *, name: str = "") -> None:
        self.config = config = config if config is not None else DeviceConfig()
        self.name = name
        slot, sector = config.slot_size, config.sector_size
        self.flash = Flash(2 * slot, sector_size=sector, write_size=config.write_size, timing=config.timing)
        layout = Layout.equal_slots(slot, max_sectors=max(128, slot // sector))
        self.bootloader = Bootloader(self.flash, layout, config.mode, policy=config.policy)
        self.power = Power.OFF
        self.boots = 0
        """Resets since the device was made, the first start included."""
        self.boot_result: BootResult | None = None
        """What the bootloader did at the last reset."""
        self.requests = 0
        """Requests taken up so far."""
        self.listeners: list[Callable[[Power], None]] = []
        """Called with each new state."""
        self.runner: object | None = None
        """What keeps the device going in an event loop (`link.Runner`), where something does."""
        self.image = ImageServer(self)
        self._groups: dict[int, GroupServer] = {}
        self.add_group(OsServer())
        self.add_group(self.image)
        self._now = 0.0
        self._deadline: float | None = None
        self._reset_wanted = False

    def __repr__(self) -> str:
        return f"<SimulatedDevice {self.name or 'unnamed'}, {self.power.value}>"

    # -- building -----------------------------------------------------------------------------------------------------

    def add_group(self, server: GroupServer) -> None:
        """Add a command group, or replace the one with that number."""
        self._groups[server.group] = server

    @property
    def groups(self) -> Mapping[int, GroupServer]:
        return self._groups

    def install(self, image: bytes, slot: int = PRIMARY) -> None:
        """Program an image as a debugger does: the whole slot anew, without taking time.

        The device restarts if it was the running slot. Raises `FlashError` where the image does not fit.
        """
        area = self.bootloader.slots[slot]
        offset = self.bootloader.upload_offset if slot != PRIMARY else 0
        self.flash.poke(area.offset, b"\xff" * area.size)
        self.flash.poke(area.offset + offset, image)
        if slot == self.running_slot:
            self._become(Power.OFF, None)

    @property
    def running_slot(self) -> int:
        """The slot whose image runs (that ran last, where none does)."""
        result = self.boot_result
        return PRIMARY if result is None or result.slot is None else result.slot

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When the device changes its state by itself, in the clock of `now`; None for never."""
        return self._deadline

    def advance(self, now: float) -> None:
        """Let everything happen that is due at `now`."""
        if now < self._now and self._deadline is not None:
            self._deadline += now - self._now  # another clock, such as that of a new event loop: time goes on there
        self._now = now
        if self.power is Power.OFF:
            self._start(now)
            self.flash.take_busy_s()
            self._started(now)
        while self._deadline is not None and self._deadline <= now:
            due = self._deadline
            if self.power is Power.BOOTING:
                self._started(due)
            else:
                self._start(due)

    def reset(self, now: float) -> None:
        """Press the reset button: what the device was doing is lost."""
        self.advance(now)
        self._start(now)

    def settle(self) -> None:
        """Let a reset, start or watchdog that is under way come to its end, however long it takes.

        An application that crashes at each start is left hanging.
        """
        self.advance(self._now)
        for _ in range(8):
            if self._deadline is None:
                break
            self.advance(self._deadline)

    @property
    def reset_pending(self) -> bool:
        """A reset has been asked for and answered, and will happen shortly."""
        return self.power is Power.RUNNING and self._deadline is not None

    def resume(self, power: Power, running_slot: int, now: float, *, reset_pending: bool = False) -> None:
        """Go on as the device that had this state, with this flash, long ago: what was under way has ended."""
        self._now = now
        header = self.bootloader.slots[running_slot].header()
        self.boot_result = BootResult(running_slot if header is not None else None, header)
        self._reset_wanted = False
        under_way = power in (Power.BOOTING, Power.HUNG) or reset_pending
        self._become(power, now if under_way else None)
        if under_way:
            self.settle()

    def _start(self, now: float) -> None:
        """The reset itself. `boot_mode` 1 of the reset command would lead into serial recovery from here."""
        self.boots += 1
        self._reset_wanted = False
        for group in self._groups.values():
            group.restarted()
        while True:
            try:
                self.boot_result = self.bootloader.boot()
                break
            except PowerCut:
                continue  # power has come back: the bootloader goes on from what lies in the flash
        self._become(Power.BOOTING, now + self.flash.take_busy_s() + self.config.boot_s)

    def _started(self, now: float) -> None:
        result = self.boot_result
        if result is None or result.slot is None:
            self._become(Power.DEAD, None)
        elif self._crashes(result):
            self._become(Power.HUNG, now + self.config.watchdog_s)
        else:
            self._become(Power.RUNNING, None)

    def _crashes(self, result: BootResult) -> bool:
        assert result.slot is not None
        version = result.version
        if version is not None and {str(version), version.device_text} & self.config.unhealthy:
            return True
        content = self.bootloader.slots[result.slot].content()
        return read_application(content).health is not Health.HEALTHY

    def _become(self, power: Power, deadline: float | None) -> None:
        self.power = power
        self._deadline = deadline
        for listener in list(self.listeners):
            listener(power)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request_reset(self) -> None:
        """For handlers: reset the device `reset_delay_s` after the answer to the present request."""
        self._reset_wanted = True

    def handle(self, message: bytes, now: float) -> Answer:
        """Take up one request, as it came from the link, at `now`.

        A device that is not running, or whose buffers the message does not fit, gives no answer. Several requests in
        one message are answered one by one, as over UDP.
        """
        self.advance(now)
        if self.power is not Power.RUNNING or len(message) > self.config.buf_size:
            return Answer()
        replies: list[bytes] = []
        try:
            while len(message) >= HEADER_SIZE:
                self.requests += 1
                header = Header.unpack(message)
                message = message[HEADER_SIZE:]
                try:
                    if len(message) < header.length:
                        raise Refused(SmpError.CORRUPT)
                    replies.append(self._serve(header, message[: header.length], now))
                except Refused as refusal:
                    replies.append(self._reply(header, {"rc": int(refusal.rc)}))
                    break
                message = message[header.length :]
        except PowerCut:
            self._start(now)
            return Answer()
        busy_s = self.config.request_s + self.flash.take_busy_s()
        if self._reset_wanted and self._deadline is None:
            self._deadline = now + busy_s + self.config.reset_delay_s
        return Answer(tuple(replies), busy_s)

    def _serve(self, header: Header, payload: bytes, now: float) -> bytes:
        config = self.config
        if header.op not in (Op.READ, Op.WRITE):
            raise Refused(SmpError.NOT_SUPPORTED)
        version = Version.V1 if config.original_only else header.version
        if version == Version.V1 and config.refuses_original:
            raise Refused(SmpError.TOO_OLD)
        if version > Version.V2:
            raise Refused(SmpError.TOO_NEW)
        group = self._groups.get(header.group)
        handler = group.handlers.get((Op(header.op), header.command)) if group is not None else None
        if group is None or handler is None:
            raise Refused(SmpError.NOT_SUPPORTED)
        body: Mapping[str, Any]
        try:
            body = handler(Call(self, header.op, version, payload, now))
            if config.legacy_rc:
                body = {"rc": 0, **body}
        except GroupError as error:
            if version == Version.V1:
                body = {"rc": group.legacy_codes.get(error.rc, int(SmpError.UNKNOWN))}
                if error.rsn is not None and config.verbose_errors:
                    body["rsn"] = error.rsn
            else:
                body = {"err": {"group": group.group, "rc": int(error.rc)}, **error.extra}
        reply = self._reply(header, body)
        if len(reply) > config.buf_size:
            raise Refused(SmpError.MESSAGE_SIZE)
        return reply

    def _reply(self, header: Header, body: Mapping[str, Any]) -> bytes:
        op = Op.READ_REPLY if header.op == Op.READ else Op.WRITE_REPLY
        version = Version.V1 if self.config.original_only else min(header.version, Version.V2)
        payload = encode(body, canonical=self.config.canonical)
        return build_message(op, version, 0, header.group, header.sequence, header.command, payload)
