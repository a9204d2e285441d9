"""The program `mcumgr` and the class that stands for it, with real Zephyr: what harnesses and CI do with a device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.mcuboot import load_image

from ..support.drop_in import Harness, MCUmgr, mcumgr
from ..support.zephyr import READY, ZephyrServer, find_server
from .test_dfu import resigned

pytestmark = pytest.mark.timeout(300)


async def reset(device: Harness | MCUmgr, board: ZephyrServer) -> None:
    board.output.text = ""
    await asyncio.to_thread(device.reset_device)
    await board.output.until(READY)


@pytest.mark.parametrize("helper", [Harness, MCUmgr])
async def test_upgrade_with_confirm_and_with_revert(helper: Callable[[str], Harness | MCUmgr], tmp_path: Path) -> None:
    """Zephyr's `tests/boot/with_mcumgr`. The emulated board takes its first image anew from a file at each start."""
    async with find_server("serial", "qemu_cortex_m0").start(tmp_path) as board:
        device = helper(f"--conntype address --connstring={board.address}")

        async def versions() -> list[tuple[str, str]]:
            return [(one.version, one.flags) for one in await asyncio.to_thread(device.get_image_list)]

        async def tried(version: str) -> str:
            """Upload, test and boot this version; its hash."""
            image = resigned(board.files, version, tmp_path)
            await asyncio.to_thread(device.image_upload, image)
            second = await asyncio.to_thread(device.get_hash_to_test)
            assert second == load_image(image).hash.hex()
            await asyncio.to_thread(device.image_test, second)
            assert await versions() == [("0.0.0", "active confirmed"), (version, "pending")]
            await reset(device, board)
            assert (await versions())[0] == (version, "active")
            return second

        assert await versions() == [("0.0.0", "active confirmed")]
        await tried("3.0.0")
        await reset(device, board)
        assert (await versions())[0] == ("0.0.0", "active confirmed")
        second = await tried("2.0.0")
        await asyncio.to_thread(device.image_confirm, second)
        assert (await versions())[0] == ("2.0.0", "active confirmed")


@pytest.mark.parametrize("config", ["serial", "udp"])
async def test_credentials_statistics_and_tasks(config: str, tmp_path: Path) -> None:
    """What Golioth's CI asks (`fs upload` with `--tries` and `--timeout`), and what people ask."""
    content = bytes(range(256)) * 3
    key, back = tmp_path / "client.key.der", tmp_path / "back.der"
    key.write_bytes(content)
    async with find_server(config).start(tmp_path) as server:
        address = Address.parse(server.address)
        kind = "udp" if config == "udp" else "serial"
        connection = [f"--conntype={kind}", f"--connstring={address.target}"]

        async def ask(*words: str) -> list[str]:
            done = await asyncio.to_thread(mcumgr, *connection, *words)
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        assert await ask("echo", "hello") == ["hello"]
        uploaded = await ask("--tries=3", "--timeout=2", "fs", "upload", str(key), "/lfs1/key.der")
        assert uploaded[-1] == "Done", uploaded
        assert (await ask("fs", "download", "/lfs1/key.der", str(back)))[-1] == "Done"
        assert back.read_bytes() == content
        title, *groups = await ask("stat", "list")
        assert (title, groups[0]) == ("stat groups:", "    flash_sim_stats")
        assert await ask("stat", "flash_sim_stats") == ["Error: 7"]  # it does not fit the server's buffer
        assert (await ask("stat", groups[-1].strip()))[0] == f"stat group: {groups[-1].strip()}"
        assert await ask("stat", "nope") == ["Error: 5"]
        assert any(line.split("\t")[0].strip() == "idle" for line in await ask("taskstat"))
