"""Whatever a request holds, the groups answer, and go on answering."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.groups.enumeration import EnumServer
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.settings import SettingsServer
from mcumgrx.sim.groups.shell import ShellServer
from mcumgrx.sim.groups.stat import StatServer
from mcumgrx.sim.groups.zephyr import ZephyrServer
from mcumgrx.sim.images import build_image

IMAGE = build_image("1.0.0")
GROUPS = (2, 3, 8, 9, 10, 63)

KEYS = ("name", "off", "len", "data", "type", "val", "max_size", "argv", "index", "groups", "other")
PATHS = st.sampled_from(
    ["/lfs1/x", "/lfs1/hello.txt", "/lfs1", "/", "x", "app/name", "user/new", "smp", "", "/lfs1/../x"]
)
SCALARS = st.one_of(
    st.integers(-5, 600),
    st.integers(-(1 << 64), (1 << 64) - 1),
    st.binary(max_size=80),
    st.text(max_size=40),
    PATHS,
    st.booleans(),
    st.none(),
    st.floats(),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=5), st.dictionaries(st.text(max_size=4), SCALARS, max_size=3))
WORDS = st.sampled_from(
    ["kernel", "sleep", "9" * 200, "100", "uptime", "help", "echo", '"', "'", "\\", "\0", "reboot", ""]
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6),
    st.fixed_dictionaries(
        {"name": PATHS, "off": st.integers(0, 300)},
        optional={
            "len": st.integers(0, 300),
            "data": st.binary(max_size=100),
            "type": st.sampled_from(["crc32", "md5"]),
        },
    ),
    st.fixed_dictionaries({"argv": st.lists(st.one_of(WORDS, st.text(max_size=20)), max_size=4)}),
)
PAYLOADS = st.one_of(BODIES.map(cbor2.dumps), st.binary(max_size=60))
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(GROUPS),
        st.integers(0, 4),
        st.sampled_from([0, 2]),
        st.sampled_from([0, 1]),
        PAYLOADS,
        st.tuples(st.integers(0, 70), st.booleans()),
        st.floats(0, 5),
    ),
    max_size=12,
)


def device_with_everything() -> tuple[SimulatedDevice, FsServer, SettingsServer]:
    device = SimulatedDevice(DeviceConfig(buf_size=512))
    device.install(IMAGE)
    files, settings = FsServer(FsConfig(mounts=(FsMount(blocks=4),))), SettingsServer()
    for server in (StatServer(), settings, files, ShellServer(), EnumServer(), ZephyrServer()):
        device.add_group(server)
    return device, files, settings


@given(requests=REQUESTS)
def test_garbage_is_answered(requests: list[Any]) -> None:
    device, files, settings = device_with_everything()
    now = 0.0
    for group, command, op, version, payload, (at, cut), pause_s in requests:
        now += pause_s
        sent = payload[: max(0, len(payload) - at)] if cut else payload
        answer = device.handle(Header(op, version, 0, len(sent), group, 1, command).pack() + sent, now)
        now += answer.busy_s
        assert answer.busy_s >= 0
        if not answer.replies:
            now += 30.0  # a reboot was asked for
            continue
        (reply,) = answer.replies
        assert len(reply) <= 512
        assert Header.unpack(reply)[:3] == (op | 1, version, 0)
        assert isinstance(cbor2.loads(reply[8:]), dict)
    again = device_with_everything()
    again[1].restore(files.snapshot())
    again[2].restore(settings.snapshot())
    assert again[1].snapshot() == files.snapshot()
    assert again[2].snapshot() == settings.snapshot()


@pytest.mark.parametrize("group", GROUPS)
@given(payload=st.binary(max_size=40))
def test_bytes_that_are_no_map(group: int, payload: bytes) -> None:
    device, _, _ = device_with_everything()
    for command in range(5):
        for op in (0, 2):
            header = Header(op, 1, 0, len(payload), group, 1, command)
            answer = device.handle(header.pack() + payload, 0.0)
            assert len(answer.replies) == 1


@given(
    chunks=st.lists(
        st.tuples(st.integers(0, 40), st.binary(max_size=20), st.sampled_from([0, 0, 0, 4.0, 2.0])), max_size=15
    ),
    close=st.booleans(),
)
def test_an_honest_upload_ends_with_its_content(chunks: list[tuple[int, bytes, float]], close: bool) -> None:
    """Whatever was there, and whoever wrote before: close, send each chunk once, close."""
    device, files, _ = device_with_everything()
    now = 0.0

    def write(command: int, body: dict[str, Any]) -> Any:
        payload = cbor2.dumps(body)
        (reply,) = device.handle(Header(2, 1, 0, len(payload), 8, 1, command).pack() + payload, now).replies
        return cbor2.loads(reply[8:])

    for offset, data, pause_s in chunks:
        write(0, {"name": "/lfs1/x", "off": offset, "data": data, "len": 40})
        now += pause_s
    write(4, {})
    content = bytes(range(100))
    for offset in range(0, 100, 30):
        part = content[offset : offset + 30]
        assert write(0, {"name": "/lfs1/x", "off": offset, "data": part, "len": 100}) == {"off": offset + len(part)}
    if close:
        write(4, {})
    assert files.files["/lfs1/x"] == content
