"""What the program takes and prints: its text is read by other programs."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.errors import DeviceError, UsageError
from mcumgrx.protocol.header import Op
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.groups import Call, GroupServer
from mcumgrx.sim.groups.fs import FsServer
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.groups.os import OsServer
from mcumgrx.sim.groups.shell import ShellServer
from mcumgrx.sim.groups.stat import StatServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport

from ..support.drop_in import address_of, commands, environment, first_version, main, mcumgr

HASH = "758750cc79e119a9a9bec5d099f342a05a4111af054f68a832cf398de7c997c8"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return Run(capsys, f"sim:desk,state={tmp_path / 'desk.json'},erase=0.1,slot_size=65536")


class Run:
    """Runs the program in this process; its exit code, and its lines on standard output."""

    def __init__(self, capsys: pytest.CaptureFixture[str], address: str) -> None:
        self._capsys = capsys
        self.options = ["--conntype", "address", "--connstring", address]
        self.errors = ""

    def __call__(self, *words: str) -> tuple[int, list[str]]:
        return self.bare(*self.options, *words)

    def bare(self, *words: str) -> tuple[int, list[str]]:
        code = main(words)
        output, self.errors = self._capsys.readouterr()
        return code, output.splitlines()


# -- which device -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conntype", "connstring", "address"),
    [
        ("serial", "dev=/dev/ttyACM0,baud=115200", "serial:/dev/ttyACM0,baud=115200"),
        ("serial", "/dev/ttyACM0", "serial:/dev/ttyACM0"),
        ("serial", "/dev/ttyACM0,baud=1000000,mtu=512", "serial:/dev/ttyACM0,baud=1000000"),
        ("serial", "COM3", "serial:COM3"),
        ("ble", "peer_name=Zephyr", "ble:Zephyr"),
        ("ble", "peer_name='My Zephyr'", "ble:My Zephyr"),
        ("ble", "ctlr_name=hci1,peer_name=Zephyr", "ble:Zephyr,adapter=hci1"),
        ("ble", "peer_id=AA:BB:CC:DD:EE:FF,own_addr_type=random,conn_timeout=5", "ble:AA:BB:CC:DD:EE:FF"),
        ("udp", "192.168.1.1:1337", "udp:192.168.1.1:1337"),
        ("udp", "[192.168.1.1]:1337", "udp:192.168.1.1:1337"),
        ("udp", "[2001:db8::1]:1337", "udp:[2001:db8::1]:1337"),
        ("udp", "[fe80::1%eth0]:1337", "udp:[fe80::1%25eth0]:1337"),
        ("udp", "[zero.local]:1337", "udp:zero.local:1337"),
        ("address", "usb:2fe3:0004,interface=2", "usb:2fe3:0004,interface=2"),
    ],
)
def test_forms_of_the_connstring(conntype: str, connstring: str, address: str) -> None:
    found = address_of(conntype, connstring)
    assert found == Address.parse(address)
    if conntype == "udp":
        assert found.endpoint()[1] == 1337


def test_options_say_more_of_a_bluetooth_device() -> None:
    assert address_of("ble", "ctlr_name=hci1", hci=2, name="Widget") == Address("ble", "Widget", {"adapter": "hci2"})
    assert address_of("ble", "", name="Widget") == Address("ble", "Widget")


@pytest.mark.parametrize(
    ("conntype", "connstring", "says"),
    [
        ("", "/dev/ttyACM0", "No connection type"),
        ("oic_ble", "peer_name=Zephyr", "Invalid connection type: oic_ble"),
        ("serial", "", "no serial port"),
        ("serial", "dev=/dev/ttyACM0,speed=9600", "Unrecognized key: speed"),
        ("ble", "Zephyr", "no '=' in: Zephyr"),
        ("ble", "ctlr_name=hci0", "names no device"),
        ("address", "nothing", "nothing"),
    ],
)
def test_a_connstring_that_cannot_mean_anything(conntype: str, connstring: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        address_of(conntype, connstring)


def test_profiles_are_kept_where_the_other_program_has_them(run: Run, tmp_path: Path) -> None:
    file = tmp_path / ".mcumgr.cp.json"
    assert run.bare("conn", "show") == (0, ["No connection profiles found!"])
    address = run.options[-1]
    added = run.bare("conn", "add", "desk", "type=address", f"connstring={address}")
    assert added == (0, ["Connection profile desk successfully added"])
    theirs = {"MyName": "acm0", "MyType": "oic_serial", "MyConnString": "dev=/dev/ttyACM0"}
    file.write_text(json.dumps([theirs, *json.loads(file.read_text())]))
    assert run.bare("conn", "show") == (
        0,
        [
            "Connection profiles: ",
            "  acm0: type=oic_serial, connstring='dev=/dev/ttyACM0'",
            f"  desk: type=address, connstring='{address}'",
        ],
    )
    assert run.bare("-c", "desk", "echo", "hello") == (0, ["hello"])
    assert run.bare("-c", "acm0", "echo", "hello")[0] == 1
    assert "oic_serial" in run.errors
    assert run.bare("echo", "hello", "-c", "acm0", "--conntype=address", f"--connstring={address}") == (0, ["hello"])
    assert run.bare("conn", "show", "nobody") == (0, ["No connection profiles found matching nobody"])
    assert run.bare("conn", "delete", "desk") == (0, ["Connection profile desk successfully deleted."])
    assert json.loads(file.read_text()) == [theirs]
    for words in (["conn", "delete", "desk"], ["-c", "desk", "echo", "x"]):
        assert run.bare(*words) == (1, [])
        assert run.errors == 'Error: connection profile "desk" doesn\'t exist\n'
    for words in (["type=radio"], ["type=serial", "color=red"], ["connstring=x"]):
        assert run.bare("conn", "add", "other", *words)[0] == 1
    file.write_text("{")
    assert run.bare("conn", "show") == (1, [])
    assert str(file) in run.errors


# -- what is printed --------------------------------------------------------------------------------------------------


def test_images(run: Run, tmp_path: Path) -> None:
    first = [
        *("Images:", " image=0 slot=0", "    version: 1.0.0", "    bootable: true", "    flags: active confirmed"),
        f"    hash: {HASH}",
    ]
    split = "Split status: N/A (0)"
    assert run("image", "list") == (0, [*first, split])
    image = tmp_path / "app.bin"
    image.write_bytes(build_image("1.1.0", payload_size=4000))
    new = mcumgrx.load_image(image).hash.hex()
    assert run("-t", "30", "image", "upload", str(image), "-e", "-n", "0", "-w", "1") == (0, ["Done"])
    second = [" image=0 slot=1", "    version: 1.1.0", "    bootable: true", "    flags: ", f"    hash: {new}"]
    assert run("image", "list") == (0, [*first, *second, split])
    second[3] = "    flags: pending"
    assert run("image", "test", new) == (0, [*first, *second, split])
    assert run("image", "erase") == (0, ["Done"])
    assert run("image", "upload", str(image)) == (0, ["Done"])
    second[3] = "    flags: pending permanent"
    assert run("image", "confirm", new) == (0, [*first, *second, split])
    assert run("image", "erase") == (0, ["Done"])
    assert run("image", "confirm") == (0, [*first, split])
    assert run("reset") == (0, ["Done"])


def test_an_image_without_a_hash_and_the_states_of_a_split_image() -> None:
    image = {"slot": 0, "version": "0.0.0"}
    for status, text in ((1, "non-matching (1)"), (2, "matching (2)"), (7, "Unknown! (7)")):
        lines = printed(commands.image_list, {(1, Op.READ, 0): {"images": [image], "splitStatus": status}})
        assert lines[3:] == ["    bootable: false", "    flags: ", "    hash: Unavailable", f"Split status: {text}"]


def test_echo_statistics_and_shell(run: Run) -> None:
    assert run("echo", "two words") == (0, ["two words"])
    assert run("--tries=3", "--timeout=2.5", "stat", "list") == (
        0,
        ["stat groups:", "    flash", "    smp", "    smp_svr_stats"],
    )
    code, lines = run("stat", "flash")
    assert (code, lines[0]) == (0, "stat group: flash")
    assert [re.fullmatch(r" {0,9}\d+ (\w+)", line)[1] for line in lines[1:]] == ["erases", "writes"]  # type: ignore[index]
    code, lines = run("shell", "exec", "echo", "a", "b")
    assert (code, lines[0], lines[-1]) == (0, "status=0", "a b")
    assert printed(commands.stat_list, {(2, Op.READ, 1): {"stat_list": []}}) == ["stat groups: none"]
    assert printed(commands.stat, {(2, Op.READ, 0): {"name": "x", "fields": {}}}, "x") == [
        "stat group: x",
        "    (empty)",
    ]


def test_files_both_ways(run: Run, tmp_path: Path) -> None:
    here, back = tmp_path / "here.der", tmp_path / "back.der"
    here.write_bytes(bytes(range(256)) * 10)
    code, lines = run("--tries=3", "--timeout=2", "fs", "upload", str(here), "/lfs1/client.der")
    assert (code, lines[-2:]) == (0, ["2560", "Done"])
    code, lines = run("fs", "download", "/lfs1/client.der", str(back))
    assert (code, lines[-2:]) == (0, ["2560", "Done"])
    assert back.read_bytes() == here.read_bytes()
    assert run("fs", "download", "/lfs1/client.der", str(tmp_path / "no" / "folder")) == (1, [])
    assert run.errors.startswith("Error: Cannot open file ")


def test_tasks_and_pools() -> None:
    tasks = {
        "main": {"prio": 0, "tid": 2, "state": 1, "stkuse": 100, "stksiz": 256, "cswcnt": 7, "runtime": 12},
        "idle": {"prio": 15, "tid": 1, "last_checkin": 3, "next_checkin": 4},
    }
    assert printed(commands.tasks, {(0, Op.READ, 2): {"tasks": tasks}}) == [
        "      task\tpri tid  runtime      csw    stksz   stkuse last_checkin next_checkin",
        "      idle\t 15   1        0        0        0        0        3        4",
        "      main\t  0   2       12        7      256      100        0        0",
    ]
    pools = {"msys": {"blksiz": 292, "nblks": 12, "nfree": 10, "min": 6}}
    assert printed(commands.pools, {(0, Op.READ, 3): {"mpools": pools}}) == [
        f"{'name':>32} blksz  cnt free  min",
        f"{'msys':>32}   292   12   10    6",
    ]


def test_the_clock() -> None:
    answers: Answers = {(0, Op.READ, 4): {"datetime": "2026-03-02T22:44:00"}, (0, Op.WRITE, 4): {}}
    assert printed(commands.clock, answers) == ["Datetime(RFC 3339 format): 2026-03-02T22:44:00"]
    assert printed(commands.clock, answers, "2026-03-02T22:44:00-08:00") == ["Done"]
    first, last = printed(commands.clock, answers, "now")
    assert re.fullmatch(r"Setting time to \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", first)
    assert last == "Done"
    with pytest.raises(UsageError, match="RFC 3339"):
        printed(commands.clock, answers, "tomorrow")


Answers = dict[tuple[int, Op, int], dict[str, object]]


class Fixed(GroupServer):
    """Answers to commands of one group, whatever is asked."""

    def __init__(self, group: int, answers: dict[tuple[Op, int], dict[str, object]]) -> None:
        self.group = group  # type: ignore[misc]  # of this object alone
        super().__init__({key: self._says(body) for key, body in answers.items()})

    @staticmethod
    def _says(body: dict[str, object]) -> Callable[[Call], dict[str, object]]:
        return lambda call: body


def printed(command: Callable[..., None], answers: Answers, *words: str) -> list[str]:
    """The lines of a command with a device that gives these answers."""
    device = SimulatedDevice()
    device.install(build_image("1.0.0", payload_size=2000))
    (group,) = {group for group, _, _ in answers}
    device.add_group(Fixed(group, {(op, number): body for (_, op, number), body in answers.items()}))
    output = io.StringIO()
    with redirect_stdout(output), mcumgrx.open(SimulatedTransport(device, LinkModel.datagram())) as opened:
        command(opened, list(words), commands.Settings())
    return output.getvalue().splitlines()


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_the_device_refuses_is_a_number_and_no_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("stat", "nope") == (0, ["Error: 5"])
    assert "there are no such statistics" in run.errors
    assert run("image", "test", "00" * 32) == (0, ["Error: 1"])
    assert run("datetime") == (0, ["Error: 8"])
    monkeypatch.setenv("MCUMGRX_MCUMGR_STRICT", "1")
    assert run("stat", "nope") == (1, ["Error: 5"])
    assert run("echo", "x") == (0, ["x"])


@pytest.mark.parametrize("server", [OsServer, ImageServer, StatServer, FsServer, ShellServer])
def test_the_number_is_that_of_the_first_version(server: type[GroupServer]) -> None:
    for rc in range(1, 60):
        error = DeviceError("no", group=server.group, rc=rc)
        assert first_version(error) == server.legacy_codes.get(rc, 1), rc
    assert first_version(DeviceError("no", group=None, rc=7)) == 7


@pytest.mark.parametrize("words", [("stat", "nope"), ("fs", "download", "/lfs1/none", os.devnull)])
def test_a_device_of_the_first_version_gets_the_same_said(run: Run, words: tuple[str, ...]) -> None:
    new = run(*words)
    run.options[-1] += ",smp=1"
    assert run(*words) == new == (0, ["Error: 5"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sing"], 'unknown command "sing" for "mcumgr"'),
        (["image", "sing"], 'unknown command "image sing" for "mcumgr"'),
        (["echo"], "echo takes other arguments"),
        (["echo", "two", "words"], "echo takes other arguments"),
        (["image", "test", "no-hash"], "'no-hash' is no hash in hexadecimal"),
        (["image", "list", "-n", "1"], "-n, -w, -u and -e belong to image upload"),
        (["image", "upload", "there-is-none.bin"], "there-is-none.bin is not there"),
        (["image", "upload", __file__], "not a"),
        (["-t", "soon", "echo", "x"], "'soon' is no number of seconds"),
        (["-r", "0", "echo", "x"], "'0' is no number from 1 on"),
        (["image", "upload", __file__, "-n", "-1"], "'-1' is no number from 0 on"),
        (["-l", "loud", "echo", "x"], "invalid choice: 'loud'"),
        (["--sing", "echo", "x"], "--sing"),
    ],
)
def test_mistakes_end_with_1_and_print_nothing(run: Run, words: list[str], says: str) -> None:
    assert run(*words) == (1, [])
    assert run.errors.startswith("Error: ")
    assert says in run.errors


@pytest.mark.parametrize("words", [[], ["image"], ["--help"], ["image", "upload", "--help"]])
def test_help(run: Run, words: list[str]) -> None:
    code, lines = run.bare(*words)
    assert code == 0
    assert any("image upload FILE" in line for line in lines)


def test_silence_has_the_words_that_scripts_look_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        done = mcumgr("--conntype", "udp", f"--connstring={where}", "-t", "0.2", "-r", "2", "echo", "x")
        asked = [silent.recv(2048) for _ in range(2)]
    assert all(b"x" in message for message in asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: NMP timeout")


def test_the_version_needs_no_device_and_imports_nothing_heavy() -> None:
    done = mcumgr("version", PYTHONPROFILEIMPORTTIME="1")
    assert (done.returncode, done.stdout) == (0, f"mcumgr {mcumgrx.__version__} (mcumgrx)\n")
    assert "mcumgrx.flows" not in done.stderr
    assert "asyncio" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are different there")
def test_an_output_that_nobody_reads_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "mcumgrx_mcumgr", "version"]
    with open(write, "wb") as closed:
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, env=environment(), text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_mistake_of_ours_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(mcumgrx.BlockingDevice, "run", broken)
    assert run("echo", "x") == (1, [])
    assert run.errors == "Error: ZeroDivisionError: division by zero\n"
