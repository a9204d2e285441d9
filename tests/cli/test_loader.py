"""`mcumgrx dfu` on a simulated device with a firmware loader, whose state lasts from one command to the next."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.flows.loader import LOADER_NAME, loader_name
from mcumgrx.sim.images import build_image, build_installer

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"sim:desk,board=nrf54l15-bm,link=ble,state={tmp_path / 'desk.json'}"


@pytest.fixture
def app(tmp_path: Path) -> str:
    path = tmp_path / "app.bin"
    path.write_bytes(build_image("1.1.0", payload_size=9000))
    return str(path)


@pytest.fixture
def installer(tmp_path: Path) -> str:
    path = tmp_path / "installer.bin"
    path.write_bytes(build_installer("2.0.0", build_image("0.2.0", payload_size=3000)))
    return str(path)


def test_the_application_is_brought_through_the_loader(cli: Cli, device: str, app: str) -> None:
    refused = cli("dfu", app, "-d", device)
    assert refused.exit == 11
    assert "a firmware loader writes the file over the application: there is no way back" in refused.err
    ended = cli("dfu", app, "-d", device, "--yes")
    assert ended.exit == 0, ended.err
    name = loader_name(device)
    assert f"enter: the firmware loader is to be called {name}" in ended.err
    assert "enter: the firmware loader 0.1.0 answers; slot 0 holds 1.0.0" in ended.err
    assert ended.out.startswith(
        "done: 1.1.0 runs: the application answers, and its slot holds no other; it lists no images itself ("
    )
    assert cli("image", "list", "-d", device).exit == 5, "the application lists nothing"


def test_a_dry_run_tells_the_plan(cli: Cli, device: str, app: str, installer: str) -> None:
    ended = cli("dfu", app, installer, "-d", device, "--dry-run", "--json")
    assert ended.exit == 0
    plan = ended.result["plan"]
    assert [step["name"] for step in plan["steps"]] == [
        "name-loader",
        "enter-loader",
        "upload-installer",
        "install",
        "upload",
        "reset",
        "prove",
    ]
    assert len(plan["no_way_back"]) == 2
    assert (ended.result["ending"], plan["from_version"]) == ("not started", None)


@pytest.mark.parametrize("how", ["two files", "the other way round", "an archive"])
def test_an_installer_and_the_application(cli: Cli, device: str, app: str, installer: str, how: str) -> None:
    files = {"two files": [installer, app], "the other way round": [app, installer]}.get(how, [])
    if not files:
        files = [str(Path(app).with_name("both.zip"))]
        with zipfile.ZipFile(files[0], "w") as archive:
            archive.write(app, "zephyr.signed.bin")
            archive.write(installer, "installer_softdevice_firmware_loader.bin")
    ended = cli("dfu", *files, "-d", device, "--yes", "--json")
    assert ended.exit == 0, ended.err
    assert (ended.result["ending"], ended.result["resets"]) == ("answers", 3)
    assert "the firmware loader 0.2.0 answers (it was 0.1.0)" in json.dumps(ended.result["steps"])


def test_an_installer_alone_is_refused(cli: Cli, device: str, installer: str) -> None:
    ended = cli("dfu", installer, "-d", device, "--yes")
    assert ended.exit == 11
    assert "leaves the device without an application" in ended.err
    assert "mcumgrx dfu INSTALLER APP" in ended.err
    assert cli("dfu", installer, "-d", device, "--yes", "--mode", "upload-only").exit == 0


def test_an_installer_is_refused_where_nothing_takes_it(cli: Cli, app: str, installer: str) -> None:
    ended = cli("dfu", installer, app, "-d", "sim:", "--yes")
    assert ended.exit == 11
    assert "this bootloader has none" in ended.err
    assert cli("dfu", installer, installer, app, "-d", "sim:").exit == 2


def test_an_upload_by_hand_in_the_loader(cli: Cli, device: str, app: str) -> None:
    assert cli("os", "reset", "--boot-mode", "1", "-d", device).exit == 0
    lost = cli("image", "list", "-d", device, "--timeout", "1")
    assert lost.exit == 3
    assert f"{LOADER_NAME} (its firmware loader, offers SMP)" in lost.err
    loader = f"{device},loader={LOADER_NAME}"
    assert cli("image", "upload", app, "-d", loader).exit == 0
    listed = cli("image", "list", "-d", loader, "--json").result["slots"]
    assert [(slot["slot"], slot["version"], slot["active"]) for slot in listed] == [
        (0, "1.1.0", False),
        (1, "0.1.0", True),
    ]
    ended = cli("dfu", app, "-d", loader, "--json")
    assert (ended.exit, [step["name"] for step in ended.result["plan"]["steps"]]) == (0, ["reset", "prove"])
