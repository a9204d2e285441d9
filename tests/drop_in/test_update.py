"""The update of Zephyr's `tests/boot/with_mcumgr`, in its order: by program and by class, over UDP and a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mcumgrx.sim.images import build_image

from ..support.drop_in import Harness, MCUmgr, MCUmgrException
from ..support.served import Served, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C and pseudo-terminals are different there")

QUICK = "sim:desk,slot_size=65536,erase=0.1,reset_delay=0.02,boot=0.05"

helpers = pytest.mark.parametrize("helper", [Harness, MCUmgr])


def connection(served: Served, link: str) -> str:
    if link == "udp":
        host, _, port = served.target("udp").partition(":")
        return f"--conntype udp --connstring=[{host}]:{port}"
    return f"--conntype serial --connstring={served.target('serial')}"


def runs(served: Served, version: str) -> None:
    """Read what the simulator tells until it runs this version."""
    assert served.process.stdout is not None
    for line in served.process.stdout:
        text = json.loads(line).get("text", "")
        if text.startswith("the device runs version"):
            assert text.split()[-1] == version
            return
    raise AssertionError("the simulator has ended")


def image(folder: Path, version: str) -> Path:
    path = folder / f"app-{version}.bin"
    path.write_bytes(build_image(version, payload_size=8000))
    return path


@helpers
@pytest.mark.parametrize(("link", "option"), [("udp", "--udp=0"), ("serial", "--pty")])
def test_upgrade_with_confirm_then_with_revert(
    helper: type[Harness | MCUmgr], link: str, option: str, tmp_path: Path
) -> None:
    with serving(QUICK, option, "--instant") as served:
        device = helper(connection(served, link))
        assert [one.flags for one in device.get_image_list()] == ["active confirmed"]

        device.image_upload(image(tmp_path, "1.1.0"))
        second = device.get_hash_to_test()
        device.image_test(second)
        assert [one.flags for one in device.get_image_list()] == ["active confirmed", "pending"]
        device.reset_device()
        runs(served, "1.1.0")
        assert [(one.version, one.flags) for one in device.get_image_list()] == [
            ("1.1.0", "active"),
            ("1.0.0", "confirmed"),
        ]
        device.image_confirm(second)
        device.reset_device()
        runs(served, "1.1.0")
        first = device.get_image_list()[0]
        assert (first.image, first.slot, first.version, first.flags) == (0, 0, "1.1.0", "active confirmed")
        assert first.hash == second

        device.image_upload(image(tmp_path, "1.2.0"), slot=0, timeout=20)
        device.image_test(device.get_hash_to_test())
        device.reset_device()
        runs(served, "1.2.0")
        assert device.get_image_list()[0].version == "1.2.0"
        device.reset_device()
        runs(served, "1.1.0")
        assert [(one.version, one.flags) for one in device.get_image_list()] == [
            ("1.1.0", "active confirmed"),
            ("1.2.0", ""),
        ]


def test_the_class_finds_the_hashes_by_itself_and_raises_what_is_refused(tmp_path: Path) -> None:
    with serving(QUICK, "--udp", "0", "--instant") as served:
        device = MCUmgr(connection(served, "udp"))
        assert MCUmgr.is_available()
        with pytest.raises(MCUmgrException, match="no image that is not active"):
            device.image_test()
        device.image_upload(image(tmp_path, "1.1.0"))
        with pytest.raises(
            MCUmgrException, match="image test: the device refused the image mark: no slot holds"
        ) as refused:
            device.image_test("00" * 32)
        assert refused.value.__cause__ is not None
        device.image_test()
        device.reset_device()
        runs(served, "1.1.0")
        device.image_confirm()  # the one that runs on trial
        assert device.get_image_list()[0].flags == "active confirmed"
        assert device.run_command("echo 'two words'") == "two words\n"
        with pytest.raises(MCUmgrException, match="unknown command"):
            device.run_command("sing")


def test_the_class_says_so_where_nothing_is() -> None:
    device = MCUmgr.create_for_serial("/dev/there-is none")
    with pytest.raises(MCUmgrException, match="there-is none"):
        device.get_image_list()
    with pytest.raises(MCUmgrException, match="there-is none"):
        device.run_command("echo x")
