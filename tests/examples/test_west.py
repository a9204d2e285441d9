"""The west command of `examples/west`, in a workspace, with the real west."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mcumgrx.sim.images import build_image

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(find_spec("west") is None, reason="could not import west"),
    pytest.mark.timeout(60),
]

MANIFEST = """
manifest:
  projects:
    - name: mcumgrx
      url: https://example.com/mcumgrx
      west-commands: examples/west/west-commands.yml
  self:
    path: app
"""


class Workspace:
    """One with an application, a build of it, and a simulated board."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.device = f"sim:board,state={folder / 'board.json'},erase=0.1,boot=0.05,reset_delay=0.02"
        (folder / "app").mkdir()
        (folder / "app" / "west.yml").write_text(MANIFEST, encoding="utf-8")
        shutil.copytree(ROOT / "examples" / "west", folder / "mcumgrx" / "examples" / "west")
        self.west("init", "-l", "app")

    def build(self, name: str, version: str) -> Path:
        made = self.folder / name / "zephyr"
        made.mkdir(parents=True)
        (made / ".config").write_text('CONFIG_KERNEL_BIN_NAME="zephyr"\n', encoding="utf-8")
        (made / "zephyr.signed.bin").write_bytes(build_image(version, payload_size=4000))
        return made.parent

    def west(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "west", *words],
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_it_is_one_of_the_commands_of_west(workspace: Workspace) -> None:
    assert "mcumgrx:" in workspace.west("help").stdout


def test_what_was_built_is_brought_onto_the_device(workspace: Workspace) -> None:
    workspace.build("build", "1.1.0")
    done = workspace.west("mcumgrx", "dfu", "-d", workspace.device, "--yes")
    assert done.returncode == 0, done.stderr
    assert "1.1.0 is running and confirmed" in done.stdout + done.stderr
    shown = workspace.west("mcumgrx", "image", "list", "-d", workspace.device)
    assert "slot 0  1.1.0  active, confirmed" in shown.stdout


def test_another_build_directory_is_named_or_the_present_one(workspace: Workspace) -> None:
    workspace.build("build", "1.1.0")
    other = workspace.build("debug", "1.2.0")
    (other / "CMakeCache.txt").touch()
    plan = ("-d", workspace.device, "--dry-run")
    assert "upload 1.2.0" in workspace.west("mcumgrx", "--build-dir", "debug", "dfu", *plan).stdout
    assert "upload 1.2.0" in workspace.west("mcumgrx", "dfu", "--build-dir", "debug", *plan).stdout
    assert "upload 1.2.0" in workspace.west("mcumgrx", "dfu", *plan, folder=other).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dfu", "-d", "sim:"), "there is no build directory build: run west build"),
        (("dfu", "--build-dir", "elsewhere", "-d", "sim:"), "there is no build directory elsewhere"),
        (("image", "--build-dir", "elsewhere", "list"), "--build-dir is for the command dfu"),
    ],
)
def test_what_makes_no_sense_is_refused(workspace: Workspace, words: tuple[str, ...], said: str) -> None:
    done = workspace.west("mcumgrx", *words)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_exit_code_is_that_of_mcumgrx(workspace: Workspace) -> None:
    assert workspace.west("mcumgrx", "image", "list", "-d", "nonsense:").returncode == 2
