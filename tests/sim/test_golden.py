"""The simulated device answers as real servers did, byte for byte.

The device is built like the recorded server: its texts, threads and sizes are configuration, and its images are our
own, so their hashes stand in for the recorded ones. All rows of the OS and image groups are replayed in order, with
what the recording leaves out (the middle of uploads, the injection of a bootable image) done in between.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.mcuboot import ImageFlag, parse_image
from mcumgrx.protocol.message import encode_body
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig, OsInfo, SimulatedDevice, TaskInfo
from mcumgrx.sim.images import build_image
from mcumgrx.testing.golden import Exchange, Raw, read_rows

GOLDEN = Path(__file__).parent.parent / "golden"

# Groups that the simulated device does not have yet: their rows, and what the enumeration tells of them, are left out.
OTHER_GROUPS = {2, 3, 8, 9, 10, 63}

# Row → why the simulated device answers it differently.
NOT_REPRODUCED = {
    "native_sim.udp": {"os echo after reset": "the program on the PC ends at a reset; a device comes back"},
}

FILES = {
    "qemu_cortex_m0.serial": DeviceConfig(
        mode=Mode.SWAP_OFFSET, slot_size=106496, sector_size=4096, bootloader_info=False
    ),
    "mps2_an385.serial_recovery": DeviceConfig(
        mode=Mode.RAM_LOAD,
        slot_size=524288,
        policy=BootPolicy(ram_start=0x20000000, ram_size=0x400000),
        bootloader_info=False,
    ),
    "native_sim.udp": DeviceConfig(buf_size=2048, buf_count=2, bootloader_info=False),
    "native_sim.serial_noparams": DeviceConfig(params=False, bootloader_info=False),
    "native_sim.serial_bigrx": DeviceConfig(bootloader_info=False),
    "native_sim.shell": DeviceConfig(bootloader_info=False),
}


def rows_of(name: str) -> list[Exchange]:
    rows = read_rows(GOLDEN / f"zephyr-4.4-{name}.jsonl")
    return [row for row in rows if isinstance(row, Exchange) and row.header.group not in OTHER_GROUPS]


def body_of(rows: list[Exchange], name: str) -> Any:
    return next(row.response_body for row in rows if row.name == name)


def configured_like(config: DeviceConfig, rows: list[Exchange]) -> DeviceConfig:
    """The configuration with the texts and threads that the server tells of itself."""
    kernel, node, release, version, *build, machine, processor, board, os = body_of(rows, "os info all")[
        "output"
    ].split(" ")
    info = OsInfo(kernel, node, release, version, " ".join(build), machine, processor, board, os)
    tasks = tuple(TaskInfo(name, **values) for name, values in body_of(rows, "os taskstat")["tasks"].items())
    fields = {field: getattr(config, field) for field in config.__slots__}
    return DeviceConfig(**{**fields, "info": info, "tasks": tasks})


def recorded_image(first_chunk: bytes) -> bytes:
    """The image that the recording shows only parts of, as its description says it was made."""
    body = first_chunk[:32].ljust(512, b"\0")
    body += b"".join(struct.pack("<I", number * 2654435761 & 0xFFFFFFFF) for number in range(10_000))
    return body + bytes.fromhex("0769280010002000") + hashlib.sha256(body).digest()


class Replay:
    """Sends rows to a device and keeps their answers."""

    def __init__(self, device: SimulatedDevice, rows: list[Exchange]) -> None:
        self.device = device
        self.rows = rows
        self.now = 0.0
        ram_load = device.config.mode is Mode.RAM_LOAD
        flags = ImageFlag.RAM_LOAD if ram_load else ImageFlag(0)
        made = [
            build_image(version, payload_size=20_000, flags=flags, load_address=0x20000000 if ram_load else 0)
            for version in ("0.0.0", "9.8.7.6")
        ]
        self.running, self.other = made
        self.ours = [parse_image(image).hash for image in made]
        self.theirs: list[bytes] = []
        if any(row.name == "img state" for row in rows):
            shown = body_of(rows, "img state with a bootable image")["images"]
            self.theirs = [entry["hash"] for entry in shown]
        self.upload: bytes | None = None
        self.offset = 0
        device.install(self.running)

    def answers(self) -> Iterator[tuple[Exchange, bytes | None]]:
        for row in self.rows:
            self.prepare(row)
            request = row.request
            for theirs, ours in zip(self.theirs, self.ours, strict=False):
                request = request.replace(theirs, ours)
            answer = self.send(request)
            if answer is not None:
                for theirs, ours in zip(self.theirs, self.ours, strict=False):
                    answer = answer.replace(ours, theirs)
            yield row, answer
            if row.name.startswith("os reset"):
                self.now += 60.0
            if row.name == "img upload first":
                self.upload = recorded_image(row.request_body["data"])

    def send(self, message: bytes) -> bytes | None:
        self.now += 0.1
        answer = self.device.handle(message, self.now)
        self.now += answer.busy_s
        assert len(answer.replies) <= 1
        return answer.replies[0] if answer.replies else None

    def prepare(self, row: Exchange) -> None:
        """What happened between the row before and this one without being recorded."""
        if row.name in ("img upload middle", "img upload last"):
            assert self.upload is not None
            session = self.device.image.session
            assert session is not None
            while session.offset < row.request_body["off"]:
                at = session.offset
                chunk = self.upload[at : min(at + 200, row.request_body["off"])]
                payload = encode_body({"off": at, "data": chunk})
                self.send(bytes([0x0A, 0, *struct.pack(">HH", len(payload), 1), 0, 1]) + payload)
        if row.name in ("img state with a bootable image", "os reset into the test image"):
            self.device.install(self.other, slot=1)
        if row.name == "os reset into the test image":
            self.device.bootloader.set_pending()


@pytest.mark.parametrize("name", FILES)
def test_answers_are_those_of_the_real_server(name: str) -> None:
    rows = rows_of(name)
    device = SimulatedDevice(configured_like(FILES[name], rows))
    answers = Replay(device, rows).answers()
    different = {row.name: (answer, row.response) for row, answer in answers if answer != row.response}
    expected = NOT_REPRODUCED.get(name, {})
    unexpected = {
        row: f"answered {got.hex() if got else got}, recorded {want.hex() if want else want}"
        for row, (got, want) in different.items()
        if row not in expected
    }
    assert unexpected == {}
    assert set(different) == set(expected), "a row that was given up is answered correctly now"


def test_chunks_in_flight_are_answered_like_the_real_server_does() -> None:
    """Several at once, a gap, what was missing, old ones again: each answer tells the offset that is waited for."""
    rows = [
        row
        for row in read_rows(GOLDEN / "zephyr-4.4-mps2_an385.serial_recovery.window.jsonl")
        if row.name.startswith("img") and not isinstance(row, Raw)
    ]
    assert len(rows) == 5
    device = SimulatedDevice(DeviceConfig())
    device.install(build_image("0.0.0", payload_size=1000))
    for row in rows:
        requests = (row.request,) if isinstance(row, Exchange) else row.requests
        expected = (row.response,) if isinstance(row, Exchange) else row.responses
        assert tuple(reply for request in requests for reply in device.handle(request, 0.0).replies) == expected


def test_the_recordings_are_what_the_replay_takes_them_for() -> None:
    counts = {name: len(rows_of(name)) for name in FILES}
    assert counts["qemu_cortex_m0.serial"] >= 95
    assert sum(counts.values()) >= 330
    for name in ("qemu_cortex_m0.serial", "mps2_an385.serial_recovery"):
        first = next(row for row in rows_of(name) if row.name == "img upload first")
        image = recorded_image(first.request_body["data"])
        assert len(image) == first.request_body["len"]
        assert hashlib.sha256(image).digest() == first.request_body["sha"]
