"""How a simulated device and its firmware were built, and some known firmware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.files import FsConfig
from mcumgrx.sim.flash import FlashTiming
from mcumgrx.sim.pairs import MAX_IMAGES

_ONE_IMAGE = (Mode.SINGLE_SLOT, Mode.SINGLE_SLOT_RAM_LOAD, Mode.FIRMWARE_LOADER)
_IN_PLACE = (Mode.DIRECT_XIP, Mode.DIRECT_XIP_REVERT)
ALL_GROUPS: tuple[int, ...] = (
    GroupId.OS,
    GroupId.IMAGE,
    GroupId.STATISTICS,
    GroupId.SETTINGS,
    GroupId.FILE_SYSTEM,
    GroupId.SHELL,
    GroupId.ENUMERATION,
    GroupId.ZEPHYR_BASIC,
)
"""The command groups that the simulator knows."""


@dataclass(frozen=True, slots=True)
class RecoveryConfig:
    """How the bootloader's serial recovery was built. Sizes in bytes, times in seconds.

    The defaults are MCUboot's, except that it tells its buffers, as the recorded server does.

    Attributes:
        buf_size: of the one buffer for messages (`BOOT_SERIAL_MAX_RECEIVE_SIZE`).
        line_count: buffers for lines of console framing. While a command is carried out nothing is taken from them.
        params: answers the parameter query (`BOOT_MGMT_MCUMGR_PARAMS`).
        echo: answers the echo (`BOOT_MGMT_ECHO`).
        image_list: answers the image list, as every known one does.
        hashes: the image list has hashes (`BOOT_SERIAL_IMG_GRP_HASH`).
        image_state: flags in the image list, and test and confirm (`BOOT_SERIAL_IMG_GRP_IMAGE_STATE`).
        slot_info: tells sizes and upload numbers of the slots (`BOOT_SERIAL_IMG_GRP_SLOT_INFO`).
        direct_upload: the number in an upload names a slot: 0 and 1 the primary, 2 the secondary
            (`MCUBOOT_SERIAL_DIRECT_IMAGE_UPLOAD`).
        erase_progressively: erases as the upload arrives, not the whole slot at its first chunk.
        storage_erase: erases the storage partition on demand (`BOOT_MGMT_CUSTOM_STORAGE_ERASE`).
        no_application: entered where no image can be run (`BOOT_SERIAL_NO_APPLICATION`).
        boot_mode: entered when a reset asks for it (`BOOT_SERIAL_BOOT_MODE`).
        window_s: after each reset it waits this long for a message, which it then stays for
            (`BOOT_SERIAL_WAIT_FOR_DFU_TIMEOUT`); 0 does not wait.
        inactivity_s: it leaves, by a reset, when nothing has been asked for so long (mcuboot PR#2830); 0 never leaves.
        start_s: until the first message is taken, beside what the bootloader does to the flash.
        verify_s, verify_s_per_byte: for checking an image and its signature, which listing does with each.
    """

    buf_size: int = 1024
    line_count: int = 8
    params: bool = True
    echo: bool = False
    image_list: bool = True
    hashes: bool = True
    image_state: bool = False
    slot_info: bool = False
    direct_upload: bool = False
    erase_progressively: bool = False
    storage_erase: bool = False
    no_application: bool = True
    boot_mode: bool = True
    window_s: float = 0.0
    inactivity_s: float = 0.0
    start_s: float = 0.1
    verify_s: float = 0.3
    verify_s_per_byte: float = 2e-6

    def __post_init__(self) -> None:
        if self.buf_size < 64 or self.line_count < 1:
            raise UsageError(f"no recovery works with {self.line_count} lines and a buffer of {self.buf_size} bytes")
        for name in ("window_s", "inactivity_s", "start_s", "verify_s", "verify_s_per_byte"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is negative")


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

    Firmware that is older than Zephyr 4.4, or was built otherwise, is a matter of single attributes; those of some
    known ones are in `FIRMWARE`, and `DeviceConfig.like` takes them from there.

    Attributes:
        groups: the command groups of the application, each with its defaults; `add_group` replaces them.
        images: how many images it has, each with two slots; the first is the application that answers.
        buf_size: of each network buffer; no request or answer is longer.
        buf_count: buffers in all; what becomes of a message that finds none depends on the link.
        line_count: buffers for lines of a UART or shell with console framing, which a burst overruns
            (`CONFIG_UART_MCUMGR_RX_BUF_COUNT`); None for as many as it takes.
        line_size: of each (`CONFIG_UART_MCUMGR_RX_BUF_SIZE`). Longer lines are lost whole.
        line_s: until the server has emptied one.
        params: answers the parameter query, which Zephyr does not by default.
        address: of the first slot, for images that are linked to run at one address.
        mode: how the bootloader updates.
        loader_name: what a firmware loader calls itself over Bluetooth LE, where nobody has given it a name.
        loader_size: of its slot; None for that of the application's.
        application_lists: with a firmware loader, whether the application lists its images; it never writes them.
        policy: the bootloader's build options.
        recovery: the bootloader's serial recovery; None for a bootloader without it.
        boot_s: from the bootloader's jump until the application answers; swapping comes on top.
        reset_delay_s: between the answer to a reset and the reset.
        watchdog_s: after which an application that hangs is reset.
        request_s: the server needs for any request beside the flash.
        original_only: a server before Zephyr 3.4: ignores the version bits and answers as version 1.
        refuses_original: built without version 1.
        canonical: answers with maps and arrays of definite length.
        legacy_rc: successful answers carry `rc: 0` (Zephyr's `CONFIG_MCUMGR_SMP_LEGACY_RC_BEHAVIOUR`, and Mynewt).
        b0: the bootloader has two slots of its own, and an immutable one beneath it (nRF Connect SDK).
        b0_restarts: it restarts when it has replaced itself, so that the new one runs at once.
        unknown_command: the code with which it refuses what it does not know; Mynewt's is `NO_ENTRY`.
        console_echo: takes the setting of its console's echo, as Mynewt does, and does nothing.
        reply_flags: in the header of every answer; Mynewt sends 1.
        ret_errors: errors of version 2 stand under `ret`, as in Zephyr 3.4, which called it `err` later.
        verbose_errors: errors of version 1 carry a text.
        os_info: answers the information query, which came with Zephyr 3.4.
        bootloader_info: answers the bootloader query, which came with Zephyr 3.5.
        slot_info: answers the slot information query, which came with Zephyr 4.0.
        image_check: compares an upload with its `sha` (`CONFIG_IMG_ENABLE_IMAGE_CHECK`).
        size_check: refuses an upload that is larger than the slot. Before Zephyr 3.5 it died silently at the end of
            the slot.
        session_survives: errors and erasing do not end the upload session, as before Zephyr 3.3: what is resumed
            then is not what the flash holds.
        cuts_chunks: takes only whole write units of a chunk, unless it is the last, as before Zephyr 3.0.
        direct_upload: `image` n in an upload is slot n - 1, 0 the default (`CONFIG_MCUMGR_GRP_IMG_DIRECT_UPLOAD`).
        erases_pending: a slot that is marked for the next boot can be erased and written to
            (`CONFIG_MCUMGR_GRP_IMG_ALLOW_ERASE_PENDING`).
        confirms_other: an image that does not run can be made permanent
            (`CONFIG_MCUMGR_GRP_IMG_ALLOW_CONFIRM_NON_ACTIVE_SLOT`).
        confirms_other_images: the slot that runs of an image other than the first can be confirmed by its hash
            (`CONFIG_MCUMGR_GRP_IMG_ALLOW_CONFIRM_NON_ACTIVE_IMAGE_ANY`).
        test_sets_preference: marking an image for a test also makes its slot the preferred one
            (`NCS_MCUBOOT_BOOT_REQUEST_TEST_SETS_BOOT_PREFERENCE`; needs `BootPolicy.boot_requests`).
        manifest: image 0 names the hashes of all others, which run from the same slot as it does; only it is marked,
            and its flags are those of all (`NCS_MCUBOOT_MANIFEST_UPDATES`; direct XIP).
        hash_size: of the hashes that are listed and asked for: 32, or 48 or 64 for SHA-384 and SHA-512. A request
            with a hash of another size is refused.
        erase_progressively: erases sector by sector as the upload arrives, not at its beginning.
        frugal_list: leaves false flags and `splitStatus` out of the image list.
        unhealthy: versions whose application crashes, whatever the image says itself.
        fs: the file systems, and how their group was built.
    """

    groups: tuple[int, ...] = ALL_GROUPS
    images: int = 1
    buf_size: int = 384
    buf_count: int = 4
    line_count: int | None = 2
    line_size: int = 128
    line_s: float = 0.0005
    params: bool = True
    address: int = 0
    slot_size: int = 512 * 1024
    sector_size: int = 4096
    write_size: int = 4
    timing: FlashTiming = field(default_factory=FlashTiming)
    mode: Mode = Mode.SWAP_MOVE
    loader_name: str = "nRF_BM_MCUmgr"
    loader_size: int | None = None
    application_lists: bool = False
    policy: BootPolicy = field(default_factory=BootPolicy)
    recovery: RecoveryConfig | None = None
    boot_s: float = 0.5
    reset_delay_s: float = 0.25
    watchdog_s: float = 2.0
    request_s: float = 0.001
    original_only: bool = False
    refuses_original: bool = False
    canonical: bool = False
    legacy_rc: bool = False
    b0: bool = False
    b0_restarts: bool = True
    unknown_command: SmpError = SmpError.NOT_SUPPORTED
    console_echo: bool = False
    reply_flags: int = 0
    ret_errors: bool = False
    verbose_errors: bool = True
    os_info: bool = True
    bootloader_info: bool = True
    slot_info: bool = True
    image_check: bool = False
    size_check: bool = True
    session_survives: bool = False
    cuts_chunks: bool = False
    direct_upload: bool = False
    erases_pending: bool = True
    confirms_other: bool = True
    confirms_other_images: bool = False
    test_sets_preference: bool = False
    manifest: bool = False
    hash_size: int = 32
    erase_progressively: bool = False
    frugal_list: bool = False
    unhealthy: frozenset[str] = frozenset()
    fs: FsConfig = field(default_factory=FsConfig)
    info: OsInfo = field(default_factory=OsInfo)
    tasks: tuple[TaskInfo, ...] = _TASKS

    def __post_init__(self) -> None:
        if self.buf_size < 64 or self.buf_count < 2:
            raise UsageError(f"no server works with {self.buf_count} buffers of {self.buf_size} bytes")
        if (self.line_count is not None and self.line_count < 1) or self.line_size < 8:
            raise UsageError(f"no console works with {self.line_count} lines of {self.line_size} bytes")
        if not 1 <= self.images <= MAX_IMAGES:
            raise UsageError(f"no device has {self.images} images: from 1 to {MAX_IMAGES} are possible")
        if self.images > 1 and self.mode in _ONE_IMAGE:
            name = Mode(self.mode).name.lower().replace("_", "-")
            raise UsageError(f"a bootloader of the mode {name} has a single image")
        if (self.policy.boot_requests or self.test_sets_preference) and self.mode not in _IN_PLACE:
            raise UsageError("boot requests choose a slot where images run in place: direct-xip, direct-xip-revert")
        if self.manifest and (self.mode not in _IN_PLACE or self.images < 2):
            raise UsageError("a manifest is for several images that run in place: direct-xip, direct-xip-revert")
        if self.test_sets_preference and not self.policy.boot_requests:
            raise UsageError("a test sets no preference where the bootloader takes no boot requests")
        if self.hash_size not in (32, 48, 64):
            raise UsageError(f"no image has a hash of {self.hash_size} bytes")
        unknown = set(self.groups) - set(ALL_GROUPS)
        if unknown:
            raise UsageError(f"the simulator has no group {', '.join(map(str, sorted(unknown)))}")
        for name in ("boot_s", "reset_delay_s", "request_s", "line_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is negative")
        if self.watchdog_s <= 0:
            raise UsageError("watchdog_s must be more than 0, or a crashing device would restart for ever at once")

    @classmethod
    def like(cls, firmware: str, **changes: Any) -> Self:
        """The configuration of a known firmware, a key of `FIRMWARE`, with changes. Raises `UsageError`."""
        if firmware not in FIRMWARE:
            raise UsageError(f"there is no firmware {firmware}", hint=f"known are {', '.join(FIRMWARE)}")
        return cls(**{**FIRMWARE[firmware], **changes})


_BASIC_GROUPS = (GroupId.OS, GroupId.IMAGE, GroupId.STATISTICS)
_ZEPHYR_34: Mapping[str, Any] = {
    "groups": (*_BASIC_GROUPS, GroupId.FILE_SYSTEM, GroupId.SHELL, GroupId.ZEPHYR_BASIC),
    "ret_errors": True,
    "size_check": False,
    "bootloader_info": False,
    "slot_info": False,
    "info": OsInfo(release="v3.4.0", version="3.4.0"),
}
_ZEPHYR_32: Mapping[str, Any] = {
    **_ZEPHYR_34,
    "ret_errors": False,
    "original_only": True,
    "legacy_rc": True,
    "session_survives": True,
    "os_info": False,
    "info": OsInfo(release="v3.2.0", version="3.2.0"),
}
FIRMWARE: Mapping[str, Mapping[str, Any]] = {
    "zephyr-4.4": {},
    "zephyr-3.4": _ZEPHYR_34,
    "zephyr-3.2": _ZEPHYR_32,
    "zephyr-2.7": {
        **_ZEPHYR_32,
        "cuts_chunks": True,
        "params": False,
        "info": OsInfo(release="v2.7.0", version="2.7.0"),
    },
    "mynewt": {
        "groups": _BASIC_GROUPS,
        "original_only": True,
        "legacy_rc": True,
        "reply_flags": 1,
        "unknown_command": SmpError.NO_ENTRY,
        "console_echo": True,
        "erases_pending": False,
        "params": False,
        "os_info": False,
        "bootloader_info": False,
        "slot_info": False,
        "size_check": False,
        "session_survives": True,
        "verbose_errors": False,
    },
}
"""Firmware that answers otherwise than Zephyr 4.4, as fields of `DeviceConfig`: what each answers that a client must
get over, not all that sets it apart."""
