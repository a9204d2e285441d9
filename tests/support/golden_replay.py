"""Replays recorded exchanges with real servers against the simulated device, over a simulated link in virtual time.

    python -m tests.support.golden_replay [DIRECTORY]

prints how many rows of each file are answered byte for byte. The device is built like the recorded server: its texts,
threads, sizes and groups are configuration, and its images are our own, so their hashes stand in for the recorded ones.
What happened between two rows without being recorded (the middle of uploads, the injection of a bootable image, the
emulator loading its flash anew) is done in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mcumgrx.mcuboot import ImageFlag, parse_image
from mcumgrx.messages.message import encode_body
from mcumgrx.protocol.codec import build_message
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig, OsInfo, RecoveryConfig, SimulatedDevice, TaskInfo
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsServer
from mcumgrx.sim.groups.shell import ShellCommand, ShellConfig, ShellServer
from mcumgrx.sim.groups.stat import StatConfig, StatGroup, StatServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport, runner_of
from mcumgrx.sim.loop import run
from mcumgrx.testing.golden import Burst, Exchange, Raw, Row, read_rows

GOLDEN = Path(__file__).parent.parent / "golden"
PREFIX, SUFFIX = "zephyr-4.4-", ".jsonl"

CUT_UPLOADS = {
    f"{upload} {part}"
    for upload in ("img upload", "recovery img upload", "recovery img upload again")
    for part in ("middle", "last")
}
"""Rows in front of which the recording leaves chunks out."""

RAM = 0x20000000
BUILT = DeviceConfig(bootloader_info=False)
MPS2 = replace(
    BUILT, mode=Mode.RAM_LOAD, policy=BootPolicy(ram_start=RAM, ram_size=0x400000), recovery=RecoveryConfig()
)
UDP = replace(BUILT, buf_size=2048, buf_count=2)
# A pseudo-terminal hands a burst over at once; this server was built with more line buffers for it.
BURSTS = replace(LinkModel.uart(), bytes_per_s=None)
# The second of two datagrams comes while the first is being answered, the third when that is done.
DATAGRAMS = replace(LinkModel.datagram(), gap_s=0.0006)


@dataclass(frozen=True)
class Server:
    """How a recorded server was built and reached, as far as its answers do not tell it themselves."""

    config: DeviceConfig
    model: LinkModel = field(default_factory=LinkModel.uart)
    texts_of: str = ""
    """The file that tells the rest of the configuration, where not this one."""
    ticks: int = 0
    not_reproduced: Mapping[str, str] = field(default_factory=dict)
    """Row → why it is answered differently."""


SERVERS: Mapping[str, Server] = {
    "native_sim.udp": Server(
        UDP,
        DATAGRAMS,
        not_reproduced={"os echo after reset": "the program on the PC ends at a reset; a device comes back"},
    ),
    "native_sim.serial_bigrx": Server(replace(BUILT, line_count=None), BURSTS),
    "native_sim.serial_noparams": Server(replace(BUILT, params=False)),
    "native_sim.shell": Server(BUILT, replace(LinkModel.shell(), bytes_per_s=None), ticks=7),
    "qemu_cortex_m0.serial": Server(replace(BUILT, mode=Mode.SWAP_OFFSET, slot_size=106496)),
    "mps2_an385.serial_recovery": Server(MPS2),
    "mps2_an385.serial_recovery.mcuboot": Server(MPS2, texts_of="mps2_an385.serial_recovery"),
    "native_sim.udp.window": Server(UDP, DATAGRAMS, texts_of="native_sim.udp"),
    "native_sim.serial_bigrx.window": Server(
        replace(BUILT, line_count=None), BURSTS, texts_of="native_sim.serial_bigrx"
    ),
    "mps2_an385.serial_recovery.window": Server(MPS2, texts_of="mps2_an385.serial_recovery"),
}


@dataclass(frozen=True)
class Replayed:
    """One row with what the simulated device answered, in the recording's hashes, and what was recorded."""

    row: Row
    got: tuple[bytes, ...]
    want: tuple[bytes, ...]

    @property
    def same(self) -> bool:
        return self.got == self.want


def rows_of(name: str, directory: Path = GOLDEN) -> list[Row]:
    return read_rows(directory / f"{PREFIX}{name}{SUFFIX}")


def said(rows: list[Row], name: str) -> Any:
    """The recorded body of the answer to a row, None where there is no such row."""
    return next((row.response_body for row in rows if isinstance(row, Exchange) and row.name == name), None)


# -- the device -------------------------------------------------------------------------------------------------------


def device_like(server: Server, rows: list[Row], directory: Path = GOLDEN) -> SimulatedDevice:
    """A device built like the server that gave these answers."""
    kernel, node, release, version, *build, machine, processor, board, os = said(rows, "os info all")["output"].split(
        " "
    )
    tasks = tuple(TaskInfo(name, **values) for name, values in said(rows, "os taskstat")["tasks"].items())
    groups = tuple(said(rows, "enum list")["groups"])
    config = replace(
        server.config,
        info=OsInfo(kernel, node, release, version, " ".join(build), machine, processor, board, os),
        tasks=tasks,
        groups=groups,
    )
    device = SimulatedDevice(config)
    names = said(rows, "stat list")["stat_list"]
    pages = {f"erase_cycles_unit{page}": 0 for page in range(256)}  # more than any answer holds
    statistics = (
        StatGroup("flash_sim_stats", {"bytes_read": 0, "bytes_written": 0, **pages}),
        StatGroup("flash_sim_thresholds", {"max_write_calls": 0, "max_erase_calls": 0, "max_len": 0}),
        StatGroup("smp_svr_stats", {"ticks": server.ticks}),
    )
    # The recording ends where the server's buffer did; here, too, the command itself writes more.
    shown = said(rows_of("native_sim.udp", directory), "shell exec help")["o"]
    help_text = shown.removeprefix("\r\n").replace("\r\n", "\n")
    commands = (
        ShellCommand("kernel version", "", prints(f"Zephyr version {version}")),
        ShellCommand("help", "", prints(f"{help_text}  devmem   : Read/write physical memory\n  help     : Prints")),
    )
    for group in (
        StatServer(StatConfig(tuple(group for group in statistics if group.name in names))),
        SettingsServer(SettingsConfig(handlers=(), backend=False)),
        FsServer(FsConfig(mounts=(FsMount(blocks=4, files={}),))),
        ShellServer(ShellConfig(commands)),
    ):
        if group.group in groups:
            device.add_group(group)
    return device


def prints(text: str) -> Callable[..., None]:
    return lambda terminal, arguments: terminal.print(text)


def recorded_image(first_chunk: bytes) -> bytes:
    """The image that the recording shows only parts of, as its description says it was made."""
    body = first_chunk[:32].ljust(512, b"\0")
    body += b"".join(struct.pack("<I", number * 2654435761 & 0xFFFFFFFF) for number in range(10_000))
    return body + bytes.fromhex("0769280010002000") + hashlib.sha256(body).digest()


# -- the replay -------------------------------------------------------------------------------------------------------


class Replay:
    """Sends the rows of one file and collects what comes back."""

    def __init__(self, name: str, directory: Path = GOLDEN) -> None:
        self.server = SERVERS[name]
        self.rows = rows_of(name, directory)
        texts = rows_of(self.server.texts_of, directory) if self.server.texts_of else self.rows
        self.device = device_like(self.server, texts, directory)
        self.transport = SimulatedTransport(self.device, self.server.model)
        self.framing = self.server.model.framing()
        ram_load = self.server.config.mode is Mode.RAM_LOAD
        flags = ImageFlag.RAM_LOAD if ram_load else ImageFlag(0)
        self.running, self.other = (
            build_image(version, payload_size=20_000, flags=flags, load_address=RAM if ram_load else 0)
            for version in ("0.0.0", "9.8.7.6")
        )
        ours = [parse_image(image).hash for image in (self.running, self.other)]
        shown = said(self.rows, "img state with a bootable image") or said(self.rows, "recovery img state") or {}
        theirs = [entry["hash"] for entry in shown.get("images", ())]
        self.hashes = list(zip(theirs, ours, strict=False))
        self.upload = b""
        # The recorded upload is not signed. Ours are neither; these are the ones that this bootloader has a key for.
        self.device.bootloader.verify = lambda image: image.hash in ours
        self.device.install(self.running)

    def replayed(self) -> list[Replayed]:
        return run(self._main())

    async def _main(self) -> list[Replayed]:
        await self.transport.open(1.0)
        try:
            return [await self._replay(row) for row in self.rows]
        finally:
            await self.transport.close()

    async def _replay(self, row: Row) -> Replayed:
        await self._prepare(row)
        if isinstance(row, Raw):
            return Replayed(row, await self._exchange([row.wire_request] if row.wire_request else []), row.responses)
        if isinstance(row, Burst):
            frames = [frame for request in row.requests for frame in self.framing.encode(request)]
            return Replayed(row, await self._exchange(frames), row.responses)
        request = row.request
        for theirs, ours in self.hashes:
            request = request.replace(theirs, ours)
        replies = await self._exchange(self.framing.encode(request))
        for theirs, ours in self.hashes:
            replies = tuple(reply.replace(ours, theirs) for reply in replies)
        if row.header.group == 0 and row.header.command == 5:
            await asyncio.sleep(60)
        if row.name.endswith("upload first") or row.name.endswith("upload again first"):
            self.upload = recorded_image(row.request_body["data"])
        return Replayed(row, replies, () if row.response is None else (row.response,))

    async def _exchange(self, frames: list[bytes]) -> tuple[bytes, ...]:
        """Write all of them, then wait until the device has nothing more to say."""
        for frame in frames:
            await self.transport.send([frame])
        replies: list[bytes] = []
        while True:
            try:
                async with asyncio.timeout(0.3):
                    replies += [build_message(*found) for found in self.framing.feed(await self.transport.receive())]
            except TimeoutError:
                if not runner_of(self.device).busy:
                    return tuple(replies)

    async def _prepare(self, row: Row) -> None:
        """What happened between the row before and this one without being recorded."""
        if isinstance(row, Exchange) and row.name in CUT_UPLOADS:
            while (at := self._offset()) < row.request_body["off"]:
                chunk = self.upload[at : min(at + 200, row.request_body["off"])]
                payload = encode_body({"off": at, "data": chunk})
                await self._exchange(self.framing.encode(build_message(2, 1, 0, 1, 0, 1, payload)))
        if row.name in ("img state with a bootable image", "os reset into the test image"):
            self.device.install(self.other, slot=1)
        if row.name == "os reset into the test image":
            self.device.bootloader.set_pending()
        if row.name == "recovery os reset":
            # The emulator loads the flash anew at each reset.
            area = self.device.bootloader.primary
            self.device.flash.poke(area.offset, self.running)

    def _offset(self) -> int:
        session = self.device.image.session
        if session is not None:
            return session.offset
        assert self.device.recovery is not None
        return self.device.recovery.upload.offset


# -- the count --------------------------------------------------------------------------------------------------------


def files(directory: Path = GOLDEN) -> list[str]:
    """The recordings in a directory, by the names that `SERVERS` has for them."""
    found = directory.glob(f"{PREFIX}*{SUFFIX}")
    return sorted(path.name.removeprefix(PREFIX).removesuffix(SUFFIX) for path in found)


def table(directory: Path = GOLDEN) -> str:
    """Rows, and rows answered byte for byte, of each file, in Markdown."""
    lines = ["| Recording | Rows | Byte for byte | Otherwise |", "|---|---|---|---|"]
    for name in files(directory):
        rows = Replay(name, directory).replayed()
        different = [f"{one.row.name}: {SERVERS[name].not_reproduced.get(one.row.name, '?')}" for one in rows]
        different = [text for text, one in zip(different, rows, strict=True) if not one.same]
        lines.append(f"| `{name}` | {len(rows)} | {len(rows) - len(different)} | {'; '.join(different)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN))
