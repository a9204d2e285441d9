"""Console or raw framing, found out with real servers of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.messages.standard import Echo, Params
from mcumgrx.registry import default_registry

from ..support.zephyr import find_server


@pytest.mark.parametrize(
    ("target", "config"),
    [
        ("native_sim", "serial"),
        ("native_sim", "serial_raw"),
        ("native_sim", "shell"),
        ("qemu_cortex_m0", "serial"),
        ("mps2_an385", "serial_recovery_raw"),
    ],
)
async def test_framing_is_found_out(target: str, config: str, tmp_path: Path) -> None:
    files = find_server(config, target)
    async with files.start(tmp_path) as server:
        address = Address.parse(server.address)
        auto = Address(address.scheme, address.target, {"framing": "auto"})
        async with Client(default_registry().transport(auto), timeout_s=2) as client:
            assert await client.request(Echo("hello"), repeats=0) == "hello"
            assert await client.params() == Params(files.buf_size, files.buf_count)
            raw = files.transport == "serial_raw"
            assert client.limits.message(384) == (384 if raw else 380)
            assert await client.request(Echo("and on"), repeats=0) == "and on"
