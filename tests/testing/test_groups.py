"""Our own groups keep the contract that authors of others can test theirs against."""

from __future__ import annotations

from datetime import UTC, datetime

from mcumgrx.messages.standard import (
    Bootloader,
    Echo,
    EraseImage,
    ImageState,
    Params,
    ReadBootloader,
    ReadBootloaderMode,
    ReadImageState,
    ReadParams,
    ReadSlotInfo,
    Reset,
    Slot,
    SlotInfo,
    UploadChunk,
    UploadProgress,
    WriteImageState,
)
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.testing.groups import Example, GroupContract
from mcumgrx_plugins.enum import ENUM
from mcumgrx_plugins.enum import messages as enum
from mcumgrx_plugins.fs import FS
from mcumgrx_plugins.fs import messages as fs
from mcumgrx_plugins.image import IMAGE
from mcumgrx_plugins.os import OS
from mcumgrx_plugins.os import messages as os
from mcumgrx_plugins.settings import SETTINGS
from mcumgrx_plugins.settings import messages as settings
from mcumgrx_plugins.shell import SHELL
from mcumgrx_plugins.shell import messages as shell
from mcumgrx_plugins.stat import STAT
from mcumgrx_plugins.stat import messages as stat
from mcumgrx_plugins.zephyr import ZEPHYR
from mcumgrx_plugins.zephyr import messages as zephyr

HASH = bytes(range(32))
NOON = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


class Simulated(GroupContract):
    def device(self) -> SimulatedDevice:
        device = SimulatedDevice(DeviceConfig(timing=INSTANT))
        device.install(build_image("1.0.0", payload_size=1000))
        return device


class TestOs(Simulated):
    plugin = OS
    examples = (
        Example(Echo("hello"), {"d": "hello"}, {"r": "hello"}, "hello"),
        Example(os.ControlConsoleEcho(True), {"echo": 1}, {}),
        Example(
            os.ReadTasks(),
            {},
            {"tasks": {"main": {"prio": -1, "tid": 3, "state": 2, "stksiz": 256, "stkuse": 100, "cswcnt": 5}}},
            os.Tasks(
                (
                    os.Task(
                        "main",
                        prio=-1,
                        tid=3,
                        state=2,
                        stack_size_bytes=1024,
                        stack_used_bytes=400,
                        context_switches=5,
                    ),
                )
            ),
        ),
        Example(
            os.ReadMemoryPools(),
            {},
            {"mpools": {"0": {"blksiz": 1, "nblks": 4096, "nfree": 1000, "min": 900}}},
            os.MemoryPools((os.MemoryPool("0", 1, 4096, 1000, 900),)),
        ),
        Example(os.ReadDatetime(), {}, {"datetime": "2026-05-04T12:00:00"}, os.DeviceTime("2026-05-04T12:00:00", NOON)),
        Example(os.WriteDatetime(NOON), {"datetime": "2026-05-04T12:00:00"}, {}),
        Example(Reset(), {}, {}),
        Example(Reset(force=True, boot_mode=1), {"force": 1, "boot_mode": 1}, {}),
        Example(ReadParams(), {}, {"buf_size": 384, "buf_count": 4}, Params(384, 4)),
        Example(os.ReadInfo(), {}, {"output": "Zephyr"}, "Zephyr"),
        Example(os.ReadInfo("sn"), {"format": "sn"}, {"output": "Zephyr desk"}, "Zephyr desk"),
        Example(ReadBootloader(), {}, {"bootloader": "MCUboot"}, "MCUboot"),
        Example(
            ReadBootloaderMode(),
            {"query": "mode"},
            {"mode": 2, "no-downgrade": True},
            Bootloader(mode=2, no_downgrade=True),
        ),
        Example(os.ReadActiveB0Slot(), {"query": "active_b0_slot"}, {"active": 1}, 1),
        Example(os.QueryBootloader("mode"), {"query": "mode"}, {"mode": 2}, {"mode": 2}),
    )


LISTED: dict[str, object] = {"image": 0, "slot": 1, "version": "1.1.0", "hash": HASH, "bootable": True, "pending": True}
STATE = ImageState((Slot(0, 1, "1.1.0", HASH, bootable=True, pending=True),), 0)


class TestImage(Simulated):
    plugin = IMAGE
    examples = (
        Example(ReadImageState(), {}, {"images": [LISTED], "splitStatus": 0}, STATE),
        Example(WriteImageState(HASH), {"hash": HASH, "confirm": False}, {"images": [LISTED], "splitStatus": 0}, STATE),
        Example(UploadChunk(512, b"data"), {"off": 512, "data": b"data"}, {"off": 516}, UploadProgress(516)),
        Example(
            UploadChunk(0, b"data", length=4, sha=HASH),
            {"len": 4, "off": 0, "sha": HASH, "data": b"data"},
            {"off": 4, "match": True},
            UploadProgress(4, match=True),
        ),
        Example(EraseImage(1), {"slot": 1}, {}),
        Example(
            ReadSlotInfo(),
            {},
            {"images": [{"image": 0, "slots": [{"slot": 0, "size": 4096, "upload_image_id": 0}]}]},
            (SlotInfo(0, 0, 4096, upload_image_id=0),),
        ),
    )


class TestStat(Simulated):
    plugin = STAT
    examples = (
        Example(stat.ListStatistics(), {}, {"stat_list": ["smp"]}, stat.StatisticsList(("smp",))),
        Example(
            stat.ReadStatistics("smp"),
            {"name": "smp"},
            {"name": "smp", "fields": {"frames": 3}},
            stat.Counters("smp", {"frames": 3}),
        ),
    )


class TestSettings(Simulated):
    plugin = SETTINGS
    examples = (
        Example(
            settings.ReadSetting("app/interval", 64),
            {"name": "app/interval", "max_size": 64},
            {"val": b"\x05", "max_size": 32},
            settings.Setting("app/interval", b"\x05", 32),
        ),
        Example(settings.WriteSetting("app/interval", b"\x05"), {"name": "app/interval", "val": b"\x05"}, {}),
        Example(settings.DeleteSetting("app/interval"), {"name": "app/interval"}, {}),
        Example(settings.CommitSettings(), {}, {}),
        Example(settings.LoadSettings(), {}, {}),
        Example(settings.SaveSettings("app"), {"name": "app"}, {}),
    )


class TestFs(Simulated):
    plugin = FS
    examples = (
        Example(
            fs.ReadFile("/lfs1/log", 0),
            {"name": "/lfs1/log", "off": 0},
            {"off": 0, "data": b"text", "len": 900},
            fs.FileChunk(0, b"text", 900),
        ),
        Example(
            fs.WriteFile("/lfs1/log", 0, b"text", 4),
            {"name": "/lfs1/log", "off": 0, "len": 4, "data": b"text"},
            {"off": 4},
            fs.FileProgress(4),
        ),
        Example(fs.ReadStatus("/lfs1/log"), {"name": "/lfs1/log"}, {"len": 900}, fs.FileStatus(900)),
        Example(
            fs.ReadHash("/lfs1/log", "crc32", 4, 8),
            {"name": "/lfs1/log", "type": "crc32", "off": 4, "len": 8},
            {"type": "crc32", "off": 4, "len": 8, "output": 7},
            fs.FileHash("crc32", 4, 8, 7),
        ),
        Example(
            fs.ReadHashTypes(), {}, {"types": {"crc32": {"format": 0, "size": 4}}}, (fs.HashType("crc32", False, 4),)
        ),
        Example(fs.CloseFile(), {}, {}),
    )


class TestShell(Simulated):
    plugin = SHELL
    examples = (
        Example(
            shell.Execute(("kernel", "uptime")),
            {"argv": ["kernel", "uptime"]},
            {"o": "Uptime: 7 ms", "ret": 0},
            shell.ShellOutput("Uptime: 7 ms", 0),
        ),
    )


class TestEnum(Simulated):
    plugin = ENUM
    examples = (
        Example(enum.CountGroups(), {}, {"count": 9}, enum.GroupCount(9)),
        Example(enum.ListGroups(), {}, {"groups": [0, 1]}, enum.GroupList((0, 1))),
        Example(enum.ReadGroupAt(3), {"index": 3}, {"group": 8, "end": True}, enum.GroupAt(8, True)),
        Example(
            enum.ReadGroupDetails((0,)),
            {"groups": [0]},
            {"groups": [{"group": 0, "name": "os mgmt", "handlers": 9}]},
            enum.GroupDetailsList((enum.GroupDetails(0, "os mgmt", 9),)),
        ),
    )


class TestZephyr(Simulated):
    plugin = ZEPHYR
    examples = (Example(zephyr.EraseStorage(), {}, {}),)
