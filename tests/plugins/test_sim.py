"""`sim:` addresses: options, devices by name, and state files between programs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.errors import DeviceNotFound, LinkLost, UsageError
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import (
    Echo,
    ImageState,
    ReadBootloaderMode,
    ReadImageState,
    ReadParams,
    Reset,
    UploadChunk,
    WriteImageState,
)
from mcumgrx.protocol.codec import build_message
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import FIRMWARE, DeviceConfig, Power, RecoveryConfig, SimulatedDevice
from mcumgrx.sim.files import FsMount, GeneratedFile
from mcumgrx.sim.images import build_image
from mcumgrx.sim.loop import run
from mcumgrx.sim.state import StateFile
from mcumgrx_plugins.sim import mcumgrx_transports
from mcumgrx_plugins.sim.transport import SimTransport

NEW = parse_image(build_image("1.1.0", payload_size=3_000))
SMALL = "slot_size=65536"


def transport(address: str) -> SimTransport:
    return SimTransport(Address.parse(address))


def opened(address: str) -> Client:
    return Client(transport(address))


async def upload(client: Client, end: int | None = None) -> int:
    """Upload `NEW`, or its first `end` bytes; returns the device's first answer."""
    first: int | None = None
    offset = 0
    while offset < (NEW.size if end is None else end):
        chunk = UploadChunk(offset, NEW.data[offset : offset + 200])
        if offset == 0:
            chunk = UploadChunk(0, chunk.data, length=NEW.size, sha=NEW.file_sha256)
        offset = (await client.request(chunk)).offset
        first = offset if first is None else first
    assert first is not None
    return first


def images(address: str) -> ImageState:
    """The image list, asked by a program of its own."""

    async def ask() -> ImageState:
        async with opened(address) as client:
            return await client.request(ReadImageState())

    return run(ask())


def running(address: str) -> str:
    slot = images(address).active()
    assert slot is not None
    return slot.version


# -- options ----------------------------------------------------------------------------------------------------------


def test_the_plugin_supplies_one_transport() -> None:
    (plugin,) = mcumgrx_transports()
    assert plugin.scheme == "sim"
    assert Address.parse(plugin.example).scheme == "sim"
    module, _, name = plugin.load.partition(":")
    assert (module, name) == (SimTransport.__module__, SimTransport.__name__)


def test_every_option_is_taken_and_described() -> None:
    options = {
        "state": "x.json",
        "version": "2.3.4",
        "unhealthy": "1.1.0+1.2.0",
        "buf_size": "1024",
        "buf_count": "7",
        "firmware": "mynewt",
        "lines": "8",
        "recovery": "yes",
        "window": "0.5",
        "params": "no",
        "slot_size": "0x10000",
        "sector_size": "2048",
        "write_size": "8",
        "fs_size": "0x80000",
        "big_file": "0",
        "erase": "3.2",
        "mode": "overwrite",
        "downgrade": "no",
        "bootloader": "no",
        "boot": "1.5",
        "reset_delay": "0",
        "watchdog": "9",
        "smp": "1",
        "link": "ble",
        "latency": "0.5",
        "speed": "1000",
        "mtu": "100",
        "baud": "9600",
    }
    for option in options:
        assert f"`{option}" in (SimTransport.__doc__ or ""), option
    found = transport("sim:," + ",".join(f"{key}={value}" for key, value in options.items()))
    config = found.device.config
    assert (config.buf_size, config.buf_count, config.params, config.original_only) == (1024, 7, False, True)
    assert (config.slot_size, config.sector_size, config.write_size, config.mode) == (65536, 2048, 8, Mode.OVERWRITE)
    assert config.fs.mounts == (FsMount(blocks=128),)
    assert config.timing.erase_s_per_sector == pytest.approx(3.2 / 32)
    assert config.policy.downgrade_prevention
    assert config.unhealthy == {"1.1.0", "1.2.0"}
    assert (config.line_count, config.recovery) == (8, RecoveryConfig(window_s=0.5))
    assert (config.reply_flags, config.legacy_rc) == (1, True)
    assert (config.boot_s, config.reset_delay_s, config.watchdog_s) == (1.5, 0.0, 9.0)
    assert (found.model.latency_s, found.model.bytes_per_s, found.model.write_bytes) == (0.5, 1000.0, 97)


def test_the_defaults_are_those_of_the_device() -> None:
    assert transport("sim:").device.config == DeviceConfig()


@pytest.mark.parametrize(
    "options",
    [
        "colour=red",
        "slot_size=10000",
        "slot_size=1",
        "sector_size=0",
        "sector_size=100",
        "write_size=3",
        "write_size=0",
        "write_size=64",
        "buf_size=1",
        "buf_count=1",
        "mode=upside-down",
        "link=string",
        "mtu=5",
        "baud=1",
        "latency=-5",
        "speed=-1",
        "erase=nan",
        "watchdog=0",
        "version=one",
        "unhealthy=one",
        "params=maybe",
        "smp=3",
        "firmware=zephyr-1.0",
        "lines=-1",
        "recovery=no,window=1",
        "fs_size=4096",
        "big_file=-1",
        "big_file=2147483648",
        "firmware=mynewt,big_file=1000",
    ],
)
def test_options_that_make_no_sense(options: str) -> None:
    with pytest.raises(UsageError):
        transport(f"sim:,{options}")


@pytest.mark.parametrize("mode", ["swap-move", "swap-offset", "swap-scratch", "overwrite", "direct-xip-revert"])
def test_every_mode_can_be_updated(mode: str) -> None:
    async def main() -> tuple[str, int]:
        address = f"sim:desk,{SMALL},mode={mode}"
        async with opened(address) as client:
            await upload(client)
            await client.request(WriteImageState(NEW.hash))
            await client.request(Reset())
            await client.wait_lost()
        async with opened(address) as client:
            slot = (await client.request(ReadImageState())).active()
            assert slot is not None
            return slot.version, (await client.request(ReadBootloaderMode())).mode

    version, number = run(main())
    assert version == "1.1.0"
    assert Mode(number).name.lower().replace("_", "-") == mode


@pytest.mark.parametrize("link", ["ideal", "ble", "uart", "raw", "shell", "datagram"])
def test_every_kind_of_link(link: str) -> None:
    async def main() -> str:
        async with opened(f"sim:,link={link}") as client:
            return await client.request(Echo("x" * 100))

    assert run(main()) == "x" * 100


def test_an_old_server() -> None:
    async def main() -> str:
        async with opened("sim:,smp=1,params=no,bootloader=no") as client:
            assert await client.params() is None
            return await client.request(Echo("hello"))

    assert run(main()) == "hello"


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_every_firmware_can_be_asked(firmware: str) -> None:
    async def main() -> tuple[str, str]:
        async with opened(f"sim:,firmware={firmware}") as client:
            text = await client.request(Echo("x"))
            return text, (await client.request(ReadImageState())).slots[0].version

    assert run(main()) == ("x", "1.0.0")
    assert f"{firmware}" in (SimTransport.__doc__ or "")


@pytest.mark.parametrize(
    ("mode", "slots"),
    [
        ("ram-load", ["1.0.0"]),
        ("single-slot", ["1.0.0"]),
        ("single-slot-ram-load", ["1.0.0"]),
        ("firmware-loader,app_list=yes", ["1.0.0", "0.1.0"]),
    ],
)
def test_modes_without_a_swap_run_their_first_image(mode: str, slots: list[str]) -> None:
    state = images(f"sim:,mode={mode}")
    assert [slot.version for slot in state.slots] == slots
    assert state.slots[0].active


def test_recovery_takes_an_image_that_then_runs(tmp_path: Path) -> None:
    """Asked for by one program, used by another, with the upload cut in the middle."""
    address = f"sim:desk,{SMALL},recovery=yes,state={tmp_path / 'x.json'}"

    async def enter() -> None:
        async with opened(address) as client:
            await client.request(Reset(boot_mode=1))

    async def send(start: int, end: int) -> int:
        async with opened(address) as client:
            assert (await client.request(ReadParams())).buf_count == 1
            offset = start
            while offset < end:
                chunk = UploadChunk(offset, NEW.data[offset : offset + 200], length=NEW.size)
                offset = (await client.request(chunk)).offset
            if offset == NEW.size:
                await client.request(Reset())
            return offset

    run(enter())
    assert run(send(0, 1000)) == 1000
    assert json.loads((tmp_path / "x.json").read_bytes())["power"] == "recovery"
    assert run(send(1000, NEW.size)) == NEW.size
    assert running(address) == "1.1.0"


# -- devices by name --------------------------------------------------------------------------------------------------


def test_a_new_device_runs_its_first_version_and_nothing_else() -> None:
    (slot,) = images("sim:").slots
    assert (slot.slot, slot.version, slot.active, slot.confirmed, slot.pending) == (0, "1.0.0", True, True, False)
    assert running("sim:,version=7.0.1") == "7.0.1"


def test_a_name_is_one_device_within_a_program() -> None:
    async def main() -> None:
        async with opened("sim:desk") as client, opened("sim:desk") as second, opened("sim:other") as other:
            await upload(client)
            assert len((await second.request(ReadImageState())).slots) == 2
            assert len((await other.request(ReadImageState())).slots) == 1
        # Closed and opened again; other options of the link are its own affair.
        async with opened("sim:desk,latency=0.1") as client:
            assert len((await client.request(ReadImageState())).slots) == 2

    run(main())
    # The next program has a new device.
    assert len(images("sim:desk").slots) == 1


def test_a_name_has_one_set_of_options(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened("sim:desk,buf_size=512"):
            pass
        async with opened("sim:desk") as client:
            assert (await client.request(ReadParams())).buf_size == 512
        for options in ("buf_size=400", f"state={tmp_path / 'x.json'}"):
            with pytest.raises(UsageError, match="exists already"):
                await opened(f"sim:desk,{options}").open()

    run(main())


def test_the_device_comes_back_after_a_reset() -> None:
    async def main() -> float:
        link = transport("sim:desk")
        async with Client(link) as client:
            await client.request(Reset())
            await client.wait_lost()
        async with Client(link) as client:
            await client.request(Echo("back"))
            return asyncio.get_running_loop().time()

    assert 0.7 < run(main()) < 1.0


# -- state files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "device.json"


def address_of(file: Path, *options: str) -> str:
    return ",".join([str(Address("sim", "desk", {"state": str(file)})), SMALL, *options])


def test_a_device_outlives_the_program(file: Path) -> None:
    async def update() -> None:
        async with opened(address_of(file)) as client:
            await upload(client)
            await client.request(WriteImageState(NEW.hash))
            await client.request(Reset())

    async def confirm() -> None:
        async with opened(address_of(file)) as client:
            await client.request(WriteImageState(None, True))

    run(update())
    # The reset was still to come when the program ended.
    state = images(address_of(file))
    assert [(slot.version, slot.active, slot.confirmed) for slot in state.slots] == [
        ("1.1.0", True, False),
        ("1.0.0", False, True),
    ]
    run(confirm())
    state = images(address_of(file))
    assert state.slots[0].confirmed
    assert os.listdir(file.parent) == [file.name], "no lock and no temporary file is left"


def test_files_and_settings_outlive_the_program(file: Path) -> None:
    async def ask(group: int, op: int, command: int, body: object) -> Any:
        link = transport(address_of(file))
        await link.open(1.0)
        await link.send([build_message(op, 1, 0, group, 9, command, cbor2.dumps(body))])
        reply = await link.receive()
        await link.close()
        return cbor2.loads(reply[8:])

    path = {"name": "/lfs1/kept.txt"}
    assert run(ask(8, 2, 0, {**path, "off": 0, "len": 4, "data": b"kept"})) == {"off": 4}
    assert run(ask(3, 2, 0, {"name": "user/colour", "val": b"red"})) == {}
    assert run(ask(8, 0, 0, {**path, "off": 0}))["data"] == b"kept"
    assert run(ask(3, 0, 0, {"name": "user/colour"})) == {"val": b"red"}


def test_a_big_file_is_there_and_takes_no_room(file: Path) -> None:
    size = 512 * 1024 * 1024

    async def ask(op: int, command: int, body: object) -> Any:
        link = transport(address_of(file, f"big_file={size}"))
        await link.open(1.0)
        await link.send([build_message(op, 1, 0, 8, 9, command, cbor2.dumps(body))])
        reply = await link.receive()
        await link.close()
        return cbor2.loads(reply[8:])

    name = {"name": "/big/file.bin"}
    for _ in range(2):  # the second time it is not in the state file, and there all the same
        assert run(ask(0, 1, name)) == {"len": size}
        assert run(ask(0, 0, {**name, "off": size - 10})) == {
            "off": size - 10,
            "data": GeneratedFile(size)[size - 10 :],
        }
        assert run(ask(2, 0, {**name, "off": 0, "len": 1, "data": b"x"})) == {"err": {"group": 8, "rc": 15}}
    assert file.stat().st_size < 1_000_000


def test_an_unhealthy_image_reverts_between_two_programs(file: Path) -> None:
    async def update() -> None:
        async with opened(address_of(file, "unhealthy=1.1.0")) as client:
            await upload(client)
            await client.request(WriteImageState(NEW.hash))
            await client.request(Reset())
            await client.wait_lost()

    run(update())
    assert running(address_of(file, "unhealthy=1.1.0")) == "1.0.0"


def test_an_upload_is_resumed_by_the_next_program(file: Path) -> None:
    async def first() -> None:
        async with opened(address_of(file)) as client:
            await upload(client, 1000)

    async def second() -> tuple[int, ImageState]:
        async with opened(address_of(file)) as client:
            resumed = await upload(client)
            return resumed, await client.request(ReadImageState())

    run(first())
    resumed, state = run(second())
    assert resumed == 1000
    assert state.slots[1].hash == NEW.hash
    # Every byte, also those that had not been written when the first program ended.
    device = SimulatedDevice(DeviceConfig(slot_size=65536))
    assert StateFile(file).load(device, 0.0)
    assert device.bootloader.secondary.read(0, NEW.size) == NEW.data


def test_what_the_client_was_told_is_kept_when_the_program_is_killed(file: Path) -> None:
    """What has been answered is in the file before the answer arrives."""

    async def main() -> None:
        async with opened(address_of(file)) as client:
            await upload(client)
            await client.request(WriteImageState(NEW.hash))
            device = SimulatedDevice(DeviceConfig(slot_size=65536))
            StateFile(file).load(device, 0.0)
            assert device.bootloader.swap_type().name == "TEST"
            await client.request(Reset())
            await client.wait_lost()
            StateFile(file).load(device, 0.0)
            assert device.power is Power.RUNNING
            assert device.bootloader.swap_type().name == "REVERT"

    run(main())


def test_a_long_upload_is_saved_now_and_then(file: Path) -> None:
    async def main() -> set[int]:
        seen = set()
        async with opened(address_of(file, "latency=0.1")) as client:
            offset = 0
            while offset < 2000:
                chunk = UploadChunk(offset, NEW.data[offset : offset + 100], length=NEW.size)
                offset = (await client.request(chunk)).offset
                seen.add(saved_offset(file))
        return seen

    seen = run(main())
    assert 3 <= len(seen) <= 8, "about once in a second"


def test_a_program_goes_on_where_it_was_and_sees_what_others_did(file: Path) -> None:
    async def main() -> list[int]:
        counts = []
        link = transport(address_of(file))
        async with Client(link) as client:
            await upload(client)
        async with Client(link) as client:
            counts.append(len((await client.request(ReadImageState())).slots))
        kill(file)
        with pytest.raises(DeviceNotFound, match="no image"):
            await Client(link).open(1.0)
        return counts

    assert run(main()) == [2]


def test_a_device_in_use_is_kept_from_others(file: Path) -> None:
    other = (
        "import sys; from pathlib import Path; from mcumgrx.sim.state import StateFile\n"
        "StateFile(Path(sys.argv[1])).lock(); print('locked', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", other, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"locked"
            with pytest.raises(UsageError, match="in use by another process"):
                images(address_of(file))
            assert not file.exists()
        finally:
            process.kill()
    # It left its lock file behind, which does no harm.
    assert running(address_of(file)) == "1.0.0"


def test_the_lock_is_held_while_a_link_is_open_and_no_longer(file: Path) -> None:
    async def main() -> None:
        async with opened(address_of(file)) as client, opened(address_of(file)) as second:
            await client.close()
            with pytest.raises(UsageError, match="in use"):
                StateFile(file).lock()
            await second.request(Echo("x"))
        lock = StateFile(file)
        lock.lock()
        lock.unlock()
        lock.unlock()

    run(main())


def saved_offset(file: Path) -> int:
    offset = json.loads(file.read_bytes())["upload"]["offset"]
    assert isinstance(offset, int)
    return offset


def kill(file: Path) -> None:
    """What another program does to the device: it leaves it without an image that runs."""
    file.write_bytes(file.read_bytes().replace(b'"power": "running"', b'"power": "dead"'))


def damage(file: Path, **changes: object) -> None:
    content = json.loads(file.read_bytes())
    for key, value in changes.items():
        content[key] = value(content[key]) if callable(value) else value
    file.write_text(json.dumps(content))


UPLOAD = {"slot": 1, "size": 5, "sha": "", "offset": 0, "erased": 0, "buffer": ""}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "a shopping list"}, "something else"),
        ({"version": 99}, "version 99"),
        ({"geometry": {}}, "built differently"),
        ({"flash": 7}, "damaged"),
        ({"flash": "*"}, "damaged"),
        ({"flash": "AAAA"}, "damaged"),
        ({"flash": "eJwDAAAAAAE="}, "wrong size"),
        ({"flash": lambda text: text[: len(text) // 2 // 4 * 4]}, "damaged"),
        ({"power": "sleepy"}, "damaged"),
        ({"power": None}, "damaged"),
        ({"running_slot": 2}, "running_slot"),
        ({"running_slot": True}, "running_slot"),
        ({"reset_pending": "no"}, "reset_pending"),
        ({"power": "recovery"}, "recovery"),
        ({"boot_mode": 256}, "boot_mode"),
        ({"groups": {"8": {"files": {"nowhere": "00"}}}}, "damaged"),
        ({"groups": 7}, "damaged"),
        ({"upload": 5}, "damaged"),
        ({"upload": {}}, "damaged"),
        ({"upload": {**UPLOAD, "slot": -1}}, "slot"),
        ({"upload": {**UPLOAD, "sha": "xy"}}, "damaged"),
        ({"upload": {**UPLOAD, "buffer": "00"}}, "buffer"),
        ({"upload": {**UPLOAD, "offset": 10**9}}, "offset"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(file: Path, changes: dict[str, object], message: str) -> None:
    images(address_of(file))
    damage(file, **changes)
    before = file.read_bytes()
    with pytest.raises(UsageError, match=message) as error:
        images(address_of(file))
    assert str(file) in str(error.value)
    assert error.value.hint
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_of_something_else_is_refused_and_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is not the state of a simulated device"):
        images(address_of(file))
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be kept"):
        images(address_of(tmp_path / "missing" / "device.json"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be kept"):
        images(address_of(tmp_path / "folder"))


def test_a_file_that_can_no_longer_be_written_ends_the_link(tmp_path: Path) -> None:
    folder = tmp_path / "soon gone"
    folder.mkdir()
    file = folder / "device.json"

    async def main() -> None:
        async with opened(address_of(file)) as client:
            for entry in folder.iterdir():
                entry.unlink()
            folder.rmdir()
            with pytest.raises(LinkLost, match="cannot be kept"):
                await upload(client)

    if sys.platform == "win32":
        pytest.skip("Windows does not remove a folder with an open file")
    run(main())


def test_addresses_are_pasted_as_they_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "my, device.json"
    assert running(address_of(file)) == "1.0.0"
    assert file.exists()


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("1.2.3+4", {"1.2.3+4"}),
        ("1.1.0+1.2.0", {"1.1.0", "1.2.0"}),
        ("1.1.0+7+1.2.0+8", {"1.1.0+7", "1.2.0+8"}),
        ("1.2.3.4+1.3.0", {"1.2.3+4", "1.3.0"}),
    ],
)
def test_a_number_without_a_dot_is_that_of_a_build(text: str, versions: set[str]) -> None:
    assert SimTransport(Address.parse(f"sim:,unhealthy={text}")).device.config.unhealthy == versions
