"""The distribution as users get it: built, installed into environments of its own, and run from elsewhere.

The builds take place in a copy of the checkout and need no package index: the build tools and the dependencies are
those of the environment that runs the tests. CI does one installation the long way.
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from mcumgrx._version import __version__

# One worker: the builds share their results.
pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PLUGINS = {"sim", "uart", "udp", "ble", "os", "image", "stat", "settings", "fs", "shell", "enum", "zephyr", "raw"}
SHOW_CODEC = "from mcumgrx.protocol import codec; print(codec.IMPLEMENTATION, codec.__file__)"
SHOW_PLUGINS = """
from importlib.metadata import entry_points
for point in entry_points(group="mcumgrx"):
    print(point.name, point.load().__file__)
"""

no_compiler = {"CC": "false", "CXX": "false"}
needs_cc_variable = pytest.mark.skipif(os.name == "nt", reason="CC does not choose the compiler on Windows")


def run(*command: str | Path, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run without what would let the checkout in; fails with the output of the command."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "MCUMGRX_PURE_PYTHON", "MCUMGRX_EXT") and not name.startswith("COV_")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": ""} | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


class Environment:
    """A fresh environment that borrows all but mcumgrx from the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")
        self.site = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
        )
        # Last on the path. A .pth file found there is not followed, so an editable mcumgrx does not come in with it.
        (self.site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def install(self, *what: str | Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", "--quiet"]
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", *options, *what]
        return run(*command, cwd=self.folder, check=check, **variables)

    def show(self, code: str) -> str:
        return run(self.python, "-c", code, cwd=self.folder).stdout.strip()

    def version(self) -> str:
        return run(self.scripts / "mcumgrx", "--version", cwd=self.folder).stdout.strip()


@pytest.fixture(scope="module")
def compiles() -> bool:
    """Whether this machine compiles extensions: it did so for the environment that runs the tests."""
    return find_spec("mcumgrx._codec") is not None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as git would clone it: nothing built, no environment."""
    copy = tmp_path_factory.mktemp("checkout") / "mcumgrx"
    left_out = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "*.so", "*.pyd", "build", "dist", "_build", "golden"
    )
    shutil.copytree(ROOT, copy, ignore=left_out)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, target, cwd=checkout)
    (made,) = target.iterdir()
    return made


def unpack(sdist: Path, target: Path) -> Path:
    """The source distribution as a folder: what is not in it cannot be built from it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(target, filter="data")
    return target / f"mcumgrx-{__version__}"


@pytest.fixture
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked for one build only: a second one would find the extension of the first in its build folder."""
    return unpack(sdist, tmp_path_factory.mktemp("unpacked"))


def build_wheel(source: Path, target: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", target]
    return run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=target, check=check, **variables)


@pytest.fixture(scope="module")
def wheel(sdist: Path, compiles: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made from the source distribution, with the extension where that can be compiled."""
    target = tmp_path_factory.mktemp("wheel")
    source = unpack(sdist, tmp_path_factory.mktemp("unpacked"))
    build_wheel(source, target, MCUMGRX_EXT="require" if compiles else "auto")
    (made,) = target.iterdir()
    return made


def test_sdist_holds_the_sources_and_nothing_generated(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sdist.name == f"mcumgrx-{__version__}.tar.gz"
    assert {
        *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "dev.py", "Makefile"),
        *("ext/_codec.pyx", "mcumgrx/_pycodec.py", "mcumgrx/_cbor.pxd", "mcumgrx/py.typed"),
        *("plugins/mcumgrx_plugins/__init__.py", "tests/conftest.py", "tests/protocol/test_codec.py"),
        *("drop-in/pyproject.toml", "drop-in/mcumgrx_mcumgr/main.py"),
    } <= names
    assert not [name for name in names if name.endswith((".c", ".html", ".so", ".pyd", ".pyc"))]


def test_wheel_owns_two_names_and_no_sources_of_the_extension(wheel: Path, compiles: bool) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(f"mcumgrx-{__version__}.dist-info/METADATA"))
    assert {name.partition("/")[0] for name in names} == {
        *("mcumgrx", "mcumgrx_plugins"),
        f"mcumgrx-{__version__}.dist-info",
    }
    assert not [name for name in names if name.endswith((".pyx", ".pxd", ".c", ".pyc")) or "/tests/" in name]
    assert {"mcumgrx/py.typed", "mcumgrx_plugins/py.typed"} <= set(names)
    for plugin in PLUGINS:
        assert f"mcumgrx_plugins/{plugin}/__init__.py" in names
    for extension in ("mcumgrx/_codec.", "mcumgrx/_cbor."):
        assert any(name.startswith(extension) and name.endswith((".so", ".pyd")) for name in names) == compiles
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata["Requires-Python"] == ">=3.11"


def test_every_package_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    for root, package in ((ROOT, "mcumgrx"), (ROOT / "plugins", "mcumgrx_plugins")):
        assert {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")} <= packed


def test_install_of_the_wheel_runs(wheel: Path, compiles: bool, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    environment.install(wheel)
    implementation, _, place = environment.show(SHOW_CODEC).partition(" ")
    assert implementation == ("compiled" if compiles else "python")
    assert Path(place).is_relative_to(environment.site)
    assert __version__ in environment.version()
    found = dict(line.split(" ", 1) for line in environment.show(SHOW_PLUGINS).splitlines())
    assert set(found) == PLUGINS
    for place in found.values():
        assert Path(place).is_relative_to(environment.site)


def test_editable_install_uses_the_checkout(checkout: Path, compiles: bool, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    environment.install("--editable", checkout, MCUMGRX_EXT="require" if compiles else "auto")
    implementation, _, place = environment.show(SHOW_CODEC).partition(" ")
    assert implementation == ("compiled" if compiles else "python")
    assert Path(place) == checkout / "mcumgrx" / "protocol" / "codec.py"
    assert __version__ in environment.version()
    found = dict(line.split(" ", 1) for line in environment.show(SHOW_PLUGINS).splitlines())
    assert set(found) == PLUGINS
    for place in found.values():
        assert Path(place).is_relative_to(checkout / "plugins")


@needs_cc_variable
def test_without_a_compiler_the_reference_is_installed(unpacked: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    environment.install(unpacked, **no_compiler)
    assert environment.show(SHOW_CODEC).startswith("python ")
    assert __version__ in environment.version()


@needs_cc_variable
def test_without_a_compiler_a_required_extension_is_an_error(unpacked: Path, tmp_path: Path) -> None:
    done = build_wheel(unpacked, tmp_path, check=False, MCUMGRX_EXT="require", **no_compiler)
    assert done.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_switched_off_the_wheel_is_for_every_platform(unpacked: Path, tmp_path: Path) -> None:
    build_wheel(unpacked, tmp_path, MCUMGRX_EXT="off")
    assert [path.name for path in tmp_path.iterdir()] == [f"mcumgrx-{__version__}-py3-none-any.whl"]


def test_the_command_mcumgr_comes_with_a_wheel_of_its_own(unpacked: Path, tmp_path: Path) -> None:
    build_wheel(unpacked / "drop-in", tmp_path)
    (made,) = tmp_path.iterdir()
    assert made.name.startswith("mcumgrx_mcumgr-")
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        (points,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert points.split() == ["[console_scripts]", "mcumgr", "=", "mcumgrx_mcumgr.main:main"]
    assert "Requires-Dist: mcumgrx" in metadata
    packed = {name for name in names if name.startswith("mcumgrx_mcumgr/")}
    sources = {f"mcumgrx_mcumgr/{path.name}" for path in (ROOT / "drop-in" / "mcumgrx_mcumgr").glob("*.py")}
    assert packed == sources | {"mcumgrx_mcumgr/py.typed"}


@pytest.mark.parametrize(("folder", "needed"), [("labgrid", "labgrid"), ("robot", "robotframework")])
def test_what_other_tools_load_comes_with_a_wheel_of_its_own(
    unpacked: Path, tmp_path: Path, folder: str, needed: str
) -> None:
    build_wheel(unpacked / "examples" / folder, tmp_path)
    (made,) = tmp_path.iterdir()
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} == {f"mcumgrx_{folder}/__init__.py"}
    assert {"Requires-Dist: mcumgrx", f"Requires-Dist: {needed}"} <= {
        line.partition(">")[0] for line in metadata.split("\n")
    }


@pytest.mark.skipif(not os.environ.get("MCUMGRX_CI"), reason="needs the package index; runs in CI")
def test_install_as_a_user_does(sdist: Path, tmp_path: Path) -> None:
    """With isolation, with dependencies, with nothing borrowed."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", sdist, cwd=tmp_path, MCUMGRX_EXT="require")
    assert run(scripts / "python", "-c", SHOW_CODEC, cwd=tmp_path).stdout.startswith("compiled ")
    assert __version__ in run(scripts / "mcumgrx", "--version", cwd=tmp_path).stdout
    run(scripts / "python", "-m", "pip", "check", cwd=tmp_path)
