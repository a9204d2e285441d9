"""A simulated device: an SMP server over a flash and a bootloader, driven by the clock that its caller passes in.

Synchronous and without a loop: `handle` takes one request and says what comes back and how long it took; time passes
only through the `now` arguments (seconds of any clock that runs forward), so a device lives in virtual and in real
time alike. Which bytes carry the requests, and what waits while the device is busy, is `link`'s business.

The server's rules are those of Zephyr 4.4, `subsys/mgmt/mcumgr/smp/src/smp.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import ImageFlag, parse_image
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import HEADER_SIZE, GroupId, Header, Op, Version
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Bootloader, BootResult, Layout, Mode, SwapType
from mcumgrx.sim.config import ALL_GROUPS, FIRMWARE, DeviceConfig, OsInfo, RecoveryConfig, TaskInfo
from mcumgrx.sim.flash import Flash, FlashError, PowerCut
from mcumgrx.sim.groups import Call, GroupError, GroupServer, HandlerFailed, Refused, Unanswered, encode
from mcumgrx.sim.groups.enumeration import EnumServer
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.groups.os import OsServer
from mcumgrx.sim.groups.recovery import RecoveryServer
from mcumgrx.sim.groups.settings import SettingsServer
from mcumgrx.sim.groups.shell import ShellServer
from mcumgrx.sim.groups.stat import StatServer
from mcumgrx.sim.groups.zephyr import StorageUser, ZephyrServer
from mcumgrx.sim.images import B0_SLOTS, Health, read_application
from mcumgrx.sim.loader import NAME_KEY, hidden_groups, loader_settings, run_installer
from mcumgrx.sim.pairs import SLOTS_PER_IMAGE, boot_images

__all__ = [
    "ALL_GROUPS",
    "FIRMWARE",
    "Answer",
    "DeviceConfig",
    "OsInfo",
    "Power",
    "RecoveryConfig",
    "SimulatedDevice",
    "TaskInfo",
]

_OTHER_GROUPS: Mapping[int, Callable[[DeviceConfig], GroupServer]] = {
    GroupId.STATISTICS: lambda _: StatServer(),
    GroupId.SETTINGS: lambda config: SettingsServer(loader_settings() if config.mode is Mode.FIRMWARE_LOADER else None),
    GroupId.FILE_SYSTEM: lambda config: FsServer(config.fs),
    GroupId.SHELL: lambda _: ShellServer(),
    GroupId.ENUMERATION: lambda _: EnumServer(),
    GroupId.ZEPHYR_BASIC: lambda _: ZephyrServer(),
}
# Plain numbers where every request passes: the members of an enumeration take their time.
_V1, _V2 = int(Version.V1), int(Version.V2)
_REQUESTS: Mapping[int, Op] = {0: Op.READ, 2: Op.WRITE}
RECOVERY_BOOT_MODE = 1
"""In a reset command: stay in the bootloader, or run the firmware loader (Zephyr `BOOT_MODE_TYPE_BOOTLOADER`)."""


class Power(Enum):
    """What the device is doing."""

    OFF = "off"
    """It has not been looked at yet; the next look finds it running."""
    BOOTING = "booting"
    """The bootloader is at work, or the application has not come up yet."""
    RUNNING = "running"
    RECOVERY = "recovery"
    """The bootloader's serial recovery answers; no application runs."""
    HUNG = "hung"
    """The application has crashed; the watchdog will reset the device."""
    DEAD = "dead"
    """The bootloader found no image to run."""


class Answer(NamedTuple):
    """What one request led to: the answers, sent `busy_s` seconds after the request was taken up."""

    replies: tuple[bytes, ...] = ()
    busy_s: float = 0.0


@dataclass(slots=True)
class _Boot:
    """A start, from the reset until something runs.

    Attributes:
        done_at: when the bootloader has done with the flash.
        in_window: it waits whether somebody wants its recovery.
        to_recovery: where it leads to.
        hidden: groups that what it leads to does not serve.
        next_wanted: the next one has been asked for, to come after the answer to that.
        b0_slot, b0_newest: of the two slots of the bootloader itself, the one that runs, and the one to run next.
    """

    done_at: float = 0.0
    in_window: bool = False
    to_recovery: bool = False
    hidden: frozenset[int] = frozenset()
    next_wanted: bool = False
    b0_slot: int = 0
    b0_newest: int = 0


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
        layouts = _layouts(config)
        last = layouts[-1]
        size = last.scratch_offset + last.scratch_size or last.secondary_offset + last.secondary_size
        self.flash: Flash = Flash(
            size, sector_size=config.sector_size, write_size=config.write_size, timing=config.timing
        )
        self.bootloaders = tuple(
            Bootloader(self.flash, layout, config.mode, policy=config.policy, image_number=number)
            for number, layout in enumerate(layouts)
        )
        """What the bootloader knows of each image, by its number."""
        self.power = Power.OFF
        self.boots: int = 0
        """Resets since the device was made, the first start included."""
        self.boot_results: tuple[BootResult, ...] = ()
        """What the bootloader did with each image at the last reset; empty before the first one."""
        self.requests: int = 0
        """Requests taken up so far."""
        self.listeners: list[Callable[[Power], None]] = []
        """Called with each new state."""
        self.runner: object | None = None
        """What keeps the device going in an event loop (`link.Runner`), where something does."""
        self.crashes = 0
        """How often `crash` has been called."""
        self.image = ImageServer(self)
        self.recovery = RecoveryServer(self, config.recovery) if config.recovery is not None else None
        """The bootloader's own server, if it has one."""
        self._groups: dict[int, GroupServer] = {}
        if GroupId.OS in config.groups:
            self.add_group(OsServer(config))
        if GroupId.IMAGE in config.groups:
            self.add_group(self.image)
        for number, server in _OTHER_GROUPS.items():
            if number in config.groups:
                self.add_group(server(config))
        self._now = 0.0
        self._deadline: float | None = None
        self._boot = _Boot()
        self.boot_mode = 0
        """What the last reset command asked the bootloader for (`RECOVERY_BOOT_MODE`), until it has been done."""

    def __repr__(self) -> str:
        return f"<SimulatedDevice {self.name or 'unnamed'}, {self.power.value}>"

    # -- building -----------------------------------------------------------------------------------------------------

    def add_group(self, server: GroupServer) -> None:
        """Add a command group, or replace the one with that number."""
        self._groups[server.group] = server

    @property
    def groups(self) -> Mapping[int, GroupServer]:
        """All command groups; of a device with a firmware loader, its and the application's."""
        return self._groups

    @property
    def served(self) -> Mapping[int, GroupServer]:
        """The command groups of what runs."""
        return {number: server for number, server in self._groups.items() if number not in self._boot.hidden}

    def install(self, image: bytes, slot: int = PRIMARY) -> None:
        """Program an image as a debugger does: the whole slot anew, without taking time.

        Slots are counted over all images, two for each. The device restarts if it was a running slot. Raises
        `FlashError` where the image does not fit.
        """
        number, side = divmod(slot, SLOTS_PER_IMAGE)
        area = self.bootloaders[number].slots[side]
        offset = self.bootloader.upload_offset if side != PRIMARY else 0
        if offset + len(image) > area.size:
            raise FlashError(
                f"an image of {len(image)} bytes does not fit slot {slot} of {area.size} bytes",
                hint="make the slots of the simulated device larger",
            )
        self.flash.poke(area.offset, b"\xff" * area.size)
        self.flash.poke(area.offset + offset, image)
        if slot in self.running_slots:
            self._become(Power.OFF, None)

    @property
    def bootloader(self) -> Bootloader:
        """What it knows of the application."""
        return self.bootloaders[0]

    @property
    def b0_slot(self) -> int:
        """The one of its two slots from which the bootloader itself runs (`DeviceConfig.b0`)."""
        return self._boot.b0_slot

    @property
    def boot_result(self) -> BootResult | None:
        """What the bootloader did with the application at the last reset."""
        return self.boot_results[0] if self.boot_results else None

    @property
    def running_slot(self) -> int:
        """The slot whose application runs (that ran last, where none does)."""
        return self.running_slots[0]

    @property
    def running_slots(self) -> tuple[int, ...]:
        """The slot that runs of each image, counted over all images; the primary one where none does."""
        results = self.boot_results or (None,) * len(self.bootloaders)
        return tuple(
            number * SLOTS_PER_IMAGE + (PRIMARY if result is None or result.slot is None else result.slot)
            for number, result in enumerate(results)
        )

    @property
    def answering(self) -> bool:
        """Whether requests are taken: the application runs, or the bootloader's recovery, or waits for being asked."""
        return self.power in (Power.RUNNING, Power.RECOVERY) or self._boot.in_window

    @property
    def bound_for_recovery(self) -> bool:
        """Whether the device is in the bootloader's recovery, or on its way there."""
        return self.power is Power.RECOVERY or (self.power is Power.BOOTING and self._boot.to_recovery)

    @property
    def in_bootloader(self) -> bool:
        """Whether it is the bootloader that takes requests: over its own serial port, whatever links there are."""
        return self.power is Power.RECOVERY or self._boot.in_window

    @property
    def in_loader(self) -> bool:
        """Whether its firmware loader runs, and not the application."""
        return self.config.mode is Mode.FIRMWARE_LOADER and self.running_slot == SECONDARY

    @property
    def loader_name(self) -> str:
        """What the firmware loader calls itself over Bluetooth LE, when it runs next."""
        settings = self._groups.get(GroupId.SETTINGS)
        given = settings.stored.get(NAME_KEY, b"") if isinstance(settings, SettingsServer) else b""
        return given.decode(errors="replace") or self.config.loader_name

    def erase_storage(self) -> None:
        """The storage partition is erased, by whom it may be."""
        for group in self._groups.values():
            if isinstance(group, StorageUser):
                group.storage_erased()

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When the device changes its state by itself, in the clock of `now`; None for never."""
        return self._deadline

    def advance(self, now: float) -> None:
        """Let everything happen that is due at `now`."""
        if now < self._now and self._deadline is not None:
            self._deadline += now - self._now  # another clock, such as that of a new event loop: time goes on there
            self._boot.done_at += now - self._now
        self._now = now
        if self.power is Power.OFF:
            self._start(now)
            self._boot.done_at = now  # long ago, and with it the wait for recovery
            self._started(now)
        while self._deadline is not None and self._deadline <= now:
            due = self._deadline
            if self._boot.in_window:
                self._boot.in_window = False
                self._become(Power.BOOTING, due + self.config.boot_s)
            elif self.power is Power.BOOTING:
                self._started(due)
            else:
                self._start(due)

    def reset(self, now: float) -> None:
        """Press the reset button: what the device was doing is lost."""
        self.advance(now)
        self._start(now)

    def crash(self, now: float) -> None:
        """The application stops where it is, until the watchdog resets the device."""
        self.advance(now)
        if self.power is Power.RUNNING:
            self.crashes += 1
            self._become(Power.HUNG, now + self.config.watchdog_s)

    def settle(self) -> None:
        """Let a reset, start or watchdog that is under way come to its end, however long it takes.

        An application that crashes at each start is left hanging.
        """
        self.advance(self._now)
        for _ in range(8):
            if self._deadline is None or self._idle:
                break
            self.advance(self._deadline)

    @property
    def reset_pending(self) -> bool:
        """A reset has been asked for and answered, and will happen shortly."""
        return self.power in (Power.RUNNING, Power.RECOVERY) and self._deadline is not None and not self._idle

    @property
    def _idle(self) -> bool:
        """It is in a recovery, and leaves only if nobody asks it for anything."""
        return self.power is Power.RECOVERY and not self._boot.next_wanted

    def _leaves_at(self, now: float) -> float | None:
        """When a recovery leaves by itself that is asked for nothing any more."""
        after_s = 0.0 if self.recovery is None else self.recovery.config.inactivity_s
        return now + after_s if after_s else None

    def resume(self, power: Power, running_slots: Sequence[int], now: float, *, reset_pending: bool = False) -> None:
        """Go on as the device that had this state, with this flash, long ago: what was under way has ended."""
        self._now = now
        results: list[BootResult] = []
        for loader, slot in zip(self.bootloaders, running_slots, strict=True):
            side = slot % SLOTS_PER_IMAGE
            header = loader.slots[side].header()
            results.append(BootResult(side if header is not None else None, header))
        self.boot_results = tuple(results)
        self._boot.next_wanted = False
        under_way = power in (Power.BOOTING, Power.HUNG) or reset_pending
        self._become(power, now if under_way else None)
        if under_way:
            self.settle()

    def _start(self, now: float) -> None:
        """The reset itself: the bootloader does its work, then recovery, the wait for it, or the application begins."""
        self.boots += 1
        self._boot.next_wanted = False
        boot_mode, self.boot_mode = self.boot_mode, 0
        for group in self._groups.values():
            try:
                group.restarted()
            except Exception as error:
                raise HandlerFailed(f"what its group {_named(group)} does at a restart", error) from error
        if self.recovery is not None:
            self.recovery.restarted()
        if self.config.b0:
            self._replace_bootloader()
        while True:
            try:
                self.boot_results = boot_images(self.bootloaders, manifest=self.config.manifest)
                break
            except PowerCut:
                continue  # power has come back: the bootloader goes on from what lies in the flash
        if boot_mode == RECOVERY_BOOT_MODE and self.config.mode is Mode.FIRMWARE_LOADER:
            loader = self._loader()
            self.boot_results = (loader,) if loader is not None else self.boot_results
        self._boot.done_at = now + self.flash.take_busy_s()
        options = self.config.recovery
        asked = boot_mode == RECOVERY_BOOT_MODE and self.config.mode is not Mode.FIRMWARE_LOADER
        stranded = self.boot_results[0].slot is None
        self._boot.in_window = self._boot.to_recovery = False
        if options is not None and ((asked and options.boot_mode) or (stranded and options.no_application)):
            self._boot.to_recovery = True
            self._become(Power.BOOTING, self._boot.done_at + options.start_s)
        elif options is not None and options.window_s > 0:
            # The window is open from the start; what comes while the flash is busy waits in the line buffers.
            self._boot.in_window = True
            self._become(Power.BOOTING, max(self._boot.done_at, now + options.window_s))
        else:
            self._become(Power.BOOTING, self._boot.done_at + self.config.boot_s)

    def _replace_bootloader(self) -> None:
        """What the immutable bootloader and MCUboot do with a bootloader that waits in slot 1 (sdk-mcuboot `loader.c`).

        MCUboot copies the one that is linked for its other slot there, and erases any. The immutable one chooses at
        each start: the newest, which is the one that was copied last.
        """
        boot, area = self._boot, self.bootloader.slots[SECONDARY]
        boot.b0_slot = boot.b0_newest
        if not area.size or self.bootloader.swap_type() not in (SwapType.TEST, SwapType.PERM):
            return
        try:
            image = parse_image(area.image_bytes(self.bootloader.upload_offset) or b"")
        except ImageError:
            return
        slot = next((number for number, where in enumerate(B0_SLOTS) if (image.reset_vector or 0) in where), None)
        if slot is None:
            return
        if slot != boot.b0_slot and self.bootloader.verify(image):
            boot.b0_newest = slot
            if self.config.b0_restarts:
                boot.b0_slot = slot
        area.erase()

    def _loader(self) -> BootResult | None:
        """The firmware loader in slot 1, where it is good: the application has asked for it."""
        area = self.bootloader.slots[SECONDARY]
        try:
            image = parse_image(area.image_bytes() or b"")
        except ImageError:
            return None
        good = image.bootable and self.bootloader.verify(image)
        return BootResult(SECONDARY, image.header, image, notes=("running the firmware loader",)) if good else None

    def _started(self, now: float) -> None:
        result = self.boot_result
        if self._boot.to_recovery:
            self._boot.to_recovery = False
            self._become(Power.RECOVERY, self._leaves_at(now))
        elif result is None or result.slot is None:
            self._become(Power.DEAD, None)
        elif self._installs():
            self._start(now + self.flash.take_busy_s())
        elif self._crashes(result):
            self._become(Power.HUNG, now + self.config.watchdog_s)
        else:
            self._become(Power.RUNNING, None)

    def _installs(self) -> bool:
        """Whether the application is an installer, which has done its work then."""
        if self.config.mode is not Mode.FIRMWARE_LOADER or self.in_loader:
            return False
        settings = self._groups.get(GroupId.SETTINGS)
        if isinstance(settings, SettingsServer) and settings.stored.pop(NAME_KEY, None) is not None:
            settings.changes += 1  # whatever the application is, it forgets the name of the loader
        while True:
            try:
                return run_installer(self.bootloader)
            except PowerCut:
                continue

    def _crashes(self, result: BootResult) -> bool:
        assert result.slot is not None
        version = result.version
        if self._misplaced(result):
            return True
        if version is not None and {str(version), version.device_text} & self.config.unhealthy:
            return True
        content = self.bootloader.slots[result.slot].content()
        return read_application(content).health is not Health.HEALTHY

    def _misplaced(self, result: BootResult) -> bool:
        """Whether the application runs somewhere else than it was linked for: its first jump leads nowhere.

        Only direct XIP looks at the address; a swap or an overwrite starts any image, which then never comes up.
        """
        header, slot = result.header, result.slot
        if header is None or slot is None or ImageFlag.ROM_FIXED not in header.flags:
            return False
        return header.load_address != self.config.address + self.bootloader.slots[slot].offset

    def _become(self, power: Power, deadline: float | None) -> None:
        self.power = power
        self._deadline = deadline
        self._boot.hidden = hidden_groups(self.config, self.running_slot, frozenset(self._groups))
        self._boot.in_window = self._boot.in_window and power is Power.BOOTING
        for listener in list(self.listeners):
            listener(power)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request_reset(self, boot_mode: int = 0) -> None:
        """For handlers: reset the device `reset_delay_s` after the answer to the present request."""
        self._boot.next_wanted = True
        self.boot_mode = boot_mode

    def handle(self, message: bytes, now: float) -> Answer:
        """Take up one request, as it came from the link, at `now`.

        A device that takes no requests, or whose buffers the message does not fit, gives no answer. Several requests
        in one message are answered one by one, as over UDP, but not by the bootloader. Raises `HandlerFailed`.
        """
        self.advance(now)
        if self.in_bootloader:
            return self._recover(message, now)
        if self.power is not Power.RUNNING or len(message) > self.config.buf_size:
            return Answer()
        replies: tuple[bytes, ...] = ()
        try:
            while len(message) >= HEADER_SIZE:
                self.requests += 1
                header = Header.unpack(message)
                message = message[HEADER_SIZE:]
                try:
                    if len(message) < header.length:
                        raise Refused(SmpError.CORRUPT)
                    replies += (self._serve(header, message[: header.length], now),)
                except Refused as refusal:
                    replies += (self._reply(header, {"rc": int(refusal.rc)}),)
                    break
                message = message[header.length :]
        except Unanswered:
            pass
        except PowerCut:
            self._start(now)
            return Answer()
        busy_s = self.config.request_s + self.flash.take_busy_s()
        if self._boot.next_wanted and self._deadline is None:
            self._deadline = now + busy_s + self.config.reset_delay_s
        return Answer(replies, busy_s)

    def no_memory(self, message: bytes) -> tuple[bytes, ...]:
        """The answer to a request for whose answer there is no buffer. It is not executed."""
        return (self._reply(Header.unpack(message), {"rc": int(SmpError.NO_MEMORY)}),) if len(message) >= 8 else ()

    def _recover(self, message: bytes, now: float) -> Answer:
        """Let the bootloader answer. It does one thing at a time: behind a reset command, nothing any more."""
        assert self.recovery is not None
        if self._boot.next_wanted and not self._boot.in_window:
            return Answer()
        try:
            replies = self.recovery.handle(message)
        except PowerCut:
            self._start(now)
            return Answer()
        self.requests += 1
        started = max(now, self._boot.done_at)
        if self._boot.in_window and replies:
            self._boot.in_window = False
            self._become(Power.RECOVERY, None)
        busy_s = started - now + self.config.request_s + self.flash.take_busy_s()
        if self._boot.next_wanted:
            self._deadline = now + busy_s + self.config.reset_delay_s
        elif self._idle:
            self._deadline = self._leaves_at(now + busy_s)
        return Answer(replies, busy_s)

    def _serve(self, header: Header, payload: bytes, now: float) -> bytes:
        config = self.config
        op = _REQUESTS.get(header.op)
        if op is None:
            raise Refused(SmpError.NOT_SUPPORTED)
        version = _V1 if config.original_only else header.version
        if version == _V1 and config.refuses_original:
            raise Refused(SmpError.TOO_OLD)
        if version > _V2:
            raise Refused(SmpError.TOO_NEW)
        group = None if header.group in self._boot.hidden else self._groups.get(header.group)
        handler = group.handlers.get((op, header.command)) if group is not None else None
        if group is None or handler is None:
            raise Refused(config.unknown_command)
        body: Mapping[str, Any]
        try:
            body = handler(Call(self, header.op, version, payload, now))
            if not isinstance(body, Mapping):
                raise TypeError(f"it returned {type(body).__name__} for an answer, which is a map")
            if config.legacy_rc:
                body = {"rc": 0, **body}
        except GroupError as error:
            if version == _V1:
                rc = group.legacy_codes.get(error.rc, int(SmpError.UNKNOWN))
                if rc == SmpError.OK:
                    # Zephyr takes it for a success without an answer, and sends a header that nobody has filled in.
                    raise Unanswered from error
                body = {"rc": rc}
                if error.rsn is not None and config.verbose_errors:
                    body["rsn"] = error.rsn
            else:
                key = "ret" if config.ret_errors else "err"
                body = {key: {"group": group.group, "rc": int(error.rc)}, **error.extra}
        except (Refused, Unanswered, PowerCut):
            raise
        except Exception as error:
            raise HandlerFailed(f"command {header.command} of its group {_named(group)}", error) from error
        try:
            reply = self._reply(header, body)
        except (TypeError, ValueError) as error:
            what = f"the answer to command {header.command} of its group {_named(group)}"
            raise HandlerFailed(what, error) from error
        if len(reply) > config.buf_size:
            raise Refused(SmpError.MESSAGE_SIZE)
        return reply

    def _reply(self, header: Header, body: Mapping[str, Any]) -> bytes:
        op = 1 if header.op == 0 else 3  # `Op.READ_REPLY` to `Op.READ`, `Op.WRITE_REPLY` to anything else
        version = _V1 if self.config.original_only else min(header.version, _V2)
        payload = encode(body, canonical=self.config.canonical)
        return build_message(
            op, version, self.config.reply_flags, header.group, header.sequence, header.command, payload
        )


def _named(group: GroupServer) -> str:
    return f"{group.group} ({group.name})" if group.name else str(group.group)


def _layouts(config: DeviceConfig) -> tuple[Layout, ...]:
    """Two slots of equal size for each image, one after the other, and behind all a scratch area where there is one.

    Modes with a single slot have no second one; that of a firmware loader has a size of its own.
    """
    slot, sector = config.slot_size, config.sector_size
    scratch = 0
    if config.mode is Mode.SWAP_SCRATCH:
        scratch = min(8 * sector, slot // sector * sector)
    # Zephyr counts the sectors (`BOOT_MAX_IMG_SECTORS_AUTO`): a small slot has a small trailer.
    sectors = slot // sector
    layouts = [
        replace(
            Layout.equal_slots(slot, offset=number * SLOTS_PER_IMAGE * slot, max_sectors=sectors),
            base_address=config.address,
        )
        for number in range(config.images)
    ]
    if config.mode in (Mode.SINGLE_SLOT, Mode.SINGLE_SLOT_RAM_LOAD):
        layouts = [replace(layout, secondary_size=0) for layout in layouts]
    if config.mode is Mode.FIRMWARE_LOADER and config.loader_size is not None:
        layouts = [replace(layout, secondary_size=config.loader_size) for layout in layouts]
    if scratch:
        end = config.images * SLOTS_PER_IMAGE * slot
        layouts = [replace(layout, scratch_offset=end, scratch_size=scratch) for layout in layouts]
    return tuple(layouts)
