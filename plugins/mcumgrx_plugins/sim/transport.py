"""The transport of `sim:` addresses: options, devices by name, and their state files."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from mcumgrx.plugin_api import Address, ImageFlag, OptionReader, UsageError, Version
from mcumgrx.sim.boards import on_board
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, Mode
from mcumgrx.sim.device import FIRMWARE, DeviceConfig, Power, RecoveryConfig, SimulatedDevice
from mcumgrx.sim.files import MAX_SEEK, FsConfig, FsMount
from mcumgrx.sim.flash import FlashError
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.pairs import MAX_IMAGES, SLOTS_PER_IMAGE
from mcumgrx.sim.state import StateFile

log = logging.getLogger("mcumgrx.sim")

# While an upload is under way its progress is saved this often, in seconds; everything else at once.
SAVE_EVERY_S = 1.0

# Speed from which on a link has none: all that is sent at once arrives at once.
NO_LIMIT = 1e9

_MODES = {mode.name.lower().replace("_", "-"): mode for mode in Mode}
_REQUESTS = ("no", "yes", "keep", "test", "test-keep")
_LINKS = ("ideal", "ble", "uart", "raw", "shell", "datagram")
_RAM_MODES = (Mode.RAM_LOAD, Mode.SINGLE_SLOT_RAM_LOAD)
# Where images for them may go. Nobody here runs out of memory.
_RAM_START, _RAM_SIZE = 0x2000_0000, 0x1000_0000
# What two slots take in an image list.
_LIST_BYTES = 256
_LOADER_VERSION = "0.1.0"


@dataclass(slots=True)
class _Desk:
    """A device in a loop, found again under its name by every transport of that loop."""

    device: SimulatedDevice
    config: DeviceConfig
    state: StateFile | None
    users: int = 0
    saved_at: float = float("-inf")
    ready: bool = False


_desks: dict[asyncio.AbstractEventLoop, dict[str, _Desk]] = {}


class SimTransport(SimulatedTransport):
    """A simulated device, made when it is first opened: version 1.0.0 runs, confirmed, and slot 1 is empty.

    `sim:NAME,key=value…`; within one program the same name is the same device, also after a reset. It has every
    command group, with a few files, settings, statistics and shell commands. Options of the device (sizes in bytes,
    times in seconds, switches `yes` or `no`):

    ==============  ===================================================================================
    `state=FILE`    keep the device in this file from one program to the next
    `version`       of the first image (1.0.0)
    `unhealthy`     versions whose application crashes, joined by `+`, whatever the image itself says; a number
                    without a dot belongs to the version before it, as in 1.2.3+4
    `firmware`      whose answers it gives: zephyr-4.4 (default), zephyr-3.4, zephyr-3.2, zephyr-2.7,
                    mynewt; other options come on top
    `board`         slots, flash, bootloader and name of a board: nrf52832, nrf52840, nrf5340 (two images),
                    nrf9160, nrf54l15, nrf54l15-bm (with a firmware loader), stm32wb55, esp32c3, esp32s3,
                    rp2040; other options come on top
    `buf_size`      of a buffer (384; with several images 1024 or more, which their list needs)
    `buf_count`     number of buffers (4)
    `lines`         line buffers of the links `uart` (2); 0 for any number
    `params`        whether it tells its buffers (yes)
    `address`       of slot 0, for images linked to run at one address (0)
    `slot_size`     of each of the two slots (524288)
    `sector_size`   of the flash (4096)
    `write_size`    of the flash (4)
    `erase`         time to erase a whole slot (11)
    `fs_size`       of the file system /lfs1 (262144)
    `big_file`      bytes of a file /big/file.bin that takes no memory, for downloads (0: it is not there)
    `images`        how many images it has, each with two slots (1)
    `mode`          of the bootloader: swap-move (default), swap-offset, swap-scratch, overwrite,
                    direct-xip, direct-xip-revert, ram-load, single-slot, single-slot-ram-load,
                    firmware-loader (which is in slot 1)
    `app_list`      with a firmware loader: whether the application lists its images (no)
    `requests`      whether a slot that the application prefers outranks the version (no, yes, keep: for
                    good and not for one boot); test, test-keep: marking an image for a test prefers it
    `prefers`       the slot that its application prefers from the start (none, 0, 1)
    `manifest`      whether image 0 names the others, which run from the same slot (direct XIP: no)
    `ram_revert`    whether the mode ram-load has trial boots (no)
    `downgrade`     whether the bootloader installs older versions (yes)
    `bootloader`    whether it tells the bootloader's mode (yes)
    `b0`            whether the bootloader has two slots of its own, beneath an immutable one (no)
    `recovery`      whether the bootloader has a serial recovery (no)
    `window`        time for which the bootloader waits for being asked for it, at each reset (0)
    `boot`          time to start (0.5)
    `reset_delay`   between the answer to a reset and the reset (0.25)
    `watchdog`      time until a crashed application is reset (2)
    `smp`           2 (default) or 1: a server of before 2023 that knows no version 2
    ==============  ===================================================================================

    Options of the link:

    ==============  ===================================================================================
    `link`          ideal (default), ble, uart (console framing), shell (the same, in a shell), raw
                    (UART without framing), datagram
    `latency`       one way
    `speed`         bytes per second; 1e9 for no limit
    `loader`        on the link `ble`, what its firmware loader is called, to find it there
    `mtu`           ATT MTU of the link `ble` (247)
    `baud`          of the links `uart`, `shell` and `raw` (115200)
    ==============  ===================================================================================
    """

    # Anybody makes as many as they like, and a real device would be forgotten for each. One that `--id` names is kept.
    memorable = False

    def __init__(self, address: Address) -> None:
        options = OptionReader(address)
        state = options.text("state", "")
        try:
            self._prefers = _preferred(options)
            self._first = Version.parse(options.text("version", "1.0.0"))
            config = _device_config(options)
            model = _link_model(options)
            loader = options.text("loader", "")
            options.finish()
            super().__init__(SimulatedDevice(config, name=address.target), model)
        except FlashError as error:
            raise UsageError(f"{address}: {error}", hint="slots are whole sectors, sectors whole writes") from error
        if loader:
            self.look_for(loader)
        self._name = address.target
        self._state_path = Path(state).expanduser() if state else None
        self._desk: _Desk | None = None

    async def open(self, timeout_s: float) -> None:
        await self.close()
        desk = self._find_desk()
        self._take(desk)
        try:
            await super().open(timeout_s)
        except BaseException:
            self._give_back()
            raise

    async def close(self) -> None:
        await super().close()
        self._give_back()

    # -- devices by name -----------------------------------------------------------------------------------------------

    def _find_desk(self) -> _Desk:
        loop = asyncio.get_running_loop()
        for other in [other for other in _desks if other.is_closed()]:
            del _desks[other]
        desks = _desks.setdefault(loop, {})
        desk = desks.get(self._name)
        if desk is None:
            state = StateFile(self._state_path) if self._state_path is not None else None
            return _Desk(self.device, self.device.config, state)
        kept = desk.state.path if desk.state is not None else None
        # Options that are left out are those of the device that is there.
        if (self._state_path is not None and self._state_path != kept) or (
            self.device.config not in (desk.config, DeviceConfig())
        ):
            raise UsageError(
                f"sim:{self._name} exists already, and was made with other options",
                hint="give the new device another name",
            )
        return desk

    def _take(self, desk: _Desk) -> None:
        loop = asyncio.get_running_loop()
        if desk.users == 0 and desk.state is not None:
            desk.state.lock()
        try:
            device = desk.device
            loaded = False
            if desk.state is not None and desk.users == 0 and (not desk.ready or desk.state.changed()):
                loaded = desk.state.load(device, loop.time())
            if not desk.ready and not loaded:
                self._program(device)
            device.advance(loop.time())
            if desk.state is not None:
                desk.state.save(device)
        except BaseException:
            if desk.users == 0 and desk.state is not None:
                desk.state.unlock()
            raise
        desk.ready = True
        desk.users += 1
        _desks[loop][self._name] = desk
        self.device = desk.device
        self._desk = desk

    def _program(self, device: SimulatedDevice) -> None:
        """What a new device has in its flash."""
        mode = device.config.mode
        for number, loader in enumerate(device.bootloaders):
            if mode in _RAM_MODES:
                address = _RAM_START + number * device.config.slot_size
                image = build_image(self._first, flags=ImageFlag.RAM_LOAD, load_address=address, image=number)
            elif number == 0 and device.config.manifest:
                others = [build_image(self._first, image=other) for other in range(1, device.config.images)]
                image = build_image(self._first, manifest=others)
            else:
                image = build_image(self._first, image=number)
            device.install(image, number * SLOTS_PER_IMAGE)
            if mode is Mode.DIRECT_XIP_REVERT or device.config.policy.ram_load_revert:
                # There an image without a trailer is erased at the first start.
                loader.set_next(PRIMARY, active=True, confirm=True)
            loader.preferred = self._prefers
        if mode is Mode.FIRMWARE_LOADER:
            device.install(build_image(_LOADER_VERSION), SECONDARY)

    def _give_back(self) -> None:
        if self._desk is None:
            return
        desk, self._desk = self._desk, None
        desk.users -= 1
        if desk.state is not None:
            try:
                desk.state.save(desk.device)
            except UsageError as error:
                log.error("%s", error)
            if desk.users == 0:
                desk.state.unlock()

    # -- saving --------------------------------------------------------------------------------------------------------

    def _answered(self, connection: int, message: bytes) -> None:
        # Before the answer leaves: what the client has been told is kept, whatever happens to this process.
        self._save()
        super()._answered(connection, message)

    def _power_changed(self, power: Power) -> None:
        self._save()
        super()._power_changed(power)

    def _save(self) -> None:
        desk = self._desk
        if desk is None or desk.state is None or self._runner is None:
            return
        now = self._runner.loop.time()
        if _uploading(desk.device) and 0 <= now - desk.saved_at < SAVE_EVERY_S:
            return
        desk.saved_at = now
        try:
            desk.state.save(desk.device)
        except UsageError as error:
            self.cut(str(error))


def _uploading(device: SimulatedDevice) -> bool:
    if device.recovery is not None and 0 < device.recovery.upload.offset < device.recovery.upload.size:
        return True
    return device.image.session is not None


def _device_config(options: OptionReader) -> DeviceConfig:
    default = DeviceConfig.like(options.choice("firmware", "zephyr-4.4", tuple(FIRMWARE)))
    if board := options.text("board", ""):
        default = on_board(default, board)
    slot_size = options.integer("slot_size", default.slot_size, minimum=8192, maximum=64 * 1024 * 1024)
    sector_size = options.integer("sector_size", default.sector_size, minimum=16)
    timing = default.timing
    if sector_size and slot_size % sector_size == 0:
        whole_s = timing.erase_s_per_sector * slot_size / sector_size
        per_sector_s = options.number("erase", whole_s, maximum=3600) * sector_size / slot_size
        timing = replace(timing, erase_s_per_sector=per_sector_s)
    images = options.integer("images", default.images, minimum=1, maximum=MAX_IMAGES)
    buf_size = default.buf_size if images == 1 else max(1024, images * _LIST_BYTES)
    unhealthy = options.text("unhealthy", "")
    mode = _MODES[options.choice("mode", default.mode.name.lower().replace("_", "-"), tuple(_MODES))]
    policy = replace(default.policy, downgrade_prevention=not options.flag("downgrade", True))
    if mode in _RAM_MODES:
        policy = replace(policy, ram_start=_RAM_START, ram_size=_RAM_SIZE)
    if options.flag("ram_revert", False):
        if mode is not Mode.RAM_LOAD:
            raise UsageError("ram_revert is for mode=ram-load", hint="direct XIP has the mode direct-xip-revert")
        policy = replace(policy, ram_load_revert=True)
    requests = options.choice("requests", "no", _REQUESTS)
    policy = replace(policy, boot_requests=requests != "no", keeps_preference=requests.endswith("keep"))
    recovery: RecoveryConfig | None = None
    window_s = options.number("window", 0.0, maximum=3600)
    if options.flag("recovery", window_s > 0):
        recovery = RecoveryConfig(window_s=window_s)
    elif window_s:
        raise UsageError("a device without recovery has no window for it", hint="leave out recovery=no, or the window")
    return replace(
        default,
        buf_size=options.integer("buf_size", buf_size, minimum=64, maximum=65536 + 8),
        buf_count=options.integer("buf_count", default.buf_count, minimum=2, maximum=255),
        line_count=options.integer("lines", default.line_count or 0, minimum=0, maximum=255) or None,
        params=options.flag("params", default.params),
        address=options.integer("address", default.address, minimum=0, maximum=0xFFFF_FFFF),
        slot_size=slot_size,
        sector_size=sector_size,
        write_size=options.integer("write_size", default.write_size, minimum=1, maximum=32),
        timing=timing,
        images=images,
        mode=mode,
        application_lists=options.flag("app_list", default.application_lists),
        policy=policy,
        manifest=options.flag("manifest", False),
        test_sets_preference=requests.startswith("test"),
        recovery=recovery,
        b0=options.flag("b0", default.b0),
        boot_s=options.number("boot", default.boot_s),
        reset_delay_s=options.number("reset_delay", default.reset_delay_s),
        watchdog_s=options.number("watchdog", default.watchdog_s, minimum=0.01),
        original_only=options.choice("smp", "1" if default.original_only else "2", ("1", "2")) == "1",
        bootloader_info=options.flag("bootloader", default.bootloader_info),
        fs=_file_systems(options, default),
        unhealthy=frozenset(map(str, _versions(unhealthy))),
    )


def _preferred(options: OptionReader) -> int | None:
    told = options.choice("prefers", "none", ("none", "0", "1"))
    if told == "none":
        return None
    if options.choice("requests", "no", _REQUESTS) == "no":
        raise UsageError("a slot is preferred where the bootloader takes boot requests", hint="add requests=yes")
    return int(told)


def _versions(text: str) -> list[Version]:
    """Versions joined by `+`, which also stands before a build number: that has no dot, a version has one."""
    found: list[str] = []
    for part in filter(None, text.split("+")):
        if found and "." not in part and "+" not in found[-1]:
            found[-1] += f"+{part}"
        else:
            found.append(part)
    return [Version.parse(part) for part in found]


def _file_systems(options: OptionReader, default: DeviceConfig) -> FsConfig:
    mount = default.fs.mounts[0]
    usual = mount.block_size * mount.blocks
    fs_size = options.integer("fs_size", usual, minimum=4 * mount.block_size, maximum=1024 * 1024 * 1024)
    big_size = options.integer("big_file", 0, minimum=0, maximum=MAX_SEEK)
    if big_size and FsServer.group not in default.groups:
        raise UsageError("that firmware has no files, and so no big_file either", hint="leave one of the two out")
    mounts = [replace(mount, blocks=fs_size // mount.block_size)]
    if big_size:
        mounts.append(FsMount.generated("/big", "file.bin", big_size))
    # Zephyr has to be built for files beyond 64 KB, which leaves less room for data.
    offset_bytes = 5 if max(fs_size, big_size) > usual else default.fs.offset_bytes
    return replace(default.fs, mounts=tuple(mounts), offset_bytes=offset_bytes)


def _link_model(options: OptionReader) -> LinkModel:
    kind = options.choice("link", "ideal", _LINKS)
    mtu = options.integer("mtu", 247, minimum=23, maximum=517)
    baud = options.integer("baud", 115200, minimum=300)
    latency_s = options.number("latency", -1.0, minimum=-1.0, maximum=3600)
    speed = options.number("speed", 0.0)
    if kind == "ble":
        model = LinkModel.ble(mtu)
    elif kind in ("uart", "raw"):
        model = LinkModel.uart(baud, raw=kind == "raw")
    elif kind == "shell":
        model = LinkModel.shell(baud)
    else:
        model = LinkModel.datagram() if kind == "datagram" else LinkModel.ideal()
    if latency_s >= 0:
        model = replace(model, latency_s=latency_s)
    if speed:
        model = replace(model, bytes_per_s=speed if speed < NO_LIMIT else None)
    return model
