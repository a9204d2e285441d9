"""`mcumgrx dfu` of several devices: who they are, the table of plans, what is told, the ledger."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.cli.fleet import FleetOptions, FleetResult, PlansView
from mcumgrx.cli.fleet_devices import bound, look_here, matching
from mcumgrx.cli.scan import Found
from mcumgrx.errors import DeviceNotFound, Exit, PlanRefused, UsageError
from mcumgrx.flows.fleet import DeviceResult, FleetPlan, FleetReport, Verdict
from mcumgrx.flows.plan import Plan, Reset, Upload
from mcumgrx.plugin_api import Discovered
from mcumgrx.registry import default_registry

from .conftest import QUICK, Cli

ImageFile = Callable[..., str]

pytestmark = pytest.mark.usefixtures("virtual_time")


@pytest.fixture
def new(image_file: ImageFile) -> str:
    return image_file("1.1.0")


@pytest.fixture
def shelf(tmp_path: Path) -> list[str]:
    """The addresses of three devices that keep their state."""
    return [f"sim:unit-{n},{QUICK},state={tmp_path / f'{n}.json'}" for n in range(3)]


def runs(cli: Cli, address: str) -> str:
    (version,) = (
        slot["version"] for slot in cli("image", "list", "-d", address, "--json").result["slots"] if slot["active"]
    )
    return str(version)


def several(addresses: list[str]) -> list[str]:
    return [text for address in addresses for text in ("-d", address)]


def test_all_are_planned_then_updated_and_the_same_again_does_nothing(cli: Cli, new: str, shelf: list[str]) -> None:
    ended = cli("dfu", new, *several(shelf))
    assert ended.exit == Exit.DONE, ended.err
    before, _, after = ended.err.partition("3 of 3 devices to update")
    assert "1.0.0  1.1.0  5 steps" in before
    assert after.count(": 1.1.0 runs and is confirmed (was 1.0.0)\n") == 3
    assert ended.out.startswith("done: 3 done of 3 devices")
    assert [runs(cli, address) for address in shelf] == ["1.1.0"] * 3
    again = cli("dfu", new, *several(shelf))
    assert again.exit == Exit.DONE
    assert "0 of 3 devices to update" in again.err


def test_what_fails_is_told_with_its_reason_and_the_code_is_that_of_fleets(
    cli: Cli, new: str, shelf: list[str]
) -> None:
    shelf[1] += ",unhealthy=1.1.0"
    ended = cli("dfu", new, *several(shelf))
    assert ended.exit == Exit.FLEET
    assert "1 × failed: 1.1.0 did not stay: 1.0.0 runs again\n    hint: " in ended.out
    assert f"    {shelf[1]}\n" in ended.out
    assert "done: 2 done, 1 failed of 3 devices" in ended.out
    assert [runs(cli, address) for address in shelf] == ["1.1.0", "1.0.0", "1.1.0"]


def test_a_dry_run_changes_nothing(cli: Cli, new: str, shelf: list[str], image_file: ImageFile) -> None:
    ended = cli("dfu", new, *several(shelf), "--dry-run")
    assert (ended.exit, ended.out) == (Exit.DONE, "dry run: nothing was changed\n")
    assert [runs(cli, address) for address in shelf] == ["1.0.0"] * 3
    small = "sim:small,slot_size=12288"
    refused = cli("dfu", image_file("1.1.0", payload_size=9000), *several([*shelf, small]), "--dry-run")
    assert refused.exit == Exit.FLEET


def test_json_tells_of_each_device_by_its_address(cli: Cli, new: str, shelf: list[str]) -> None:
    ended = cli("dfu", new, *several(shelf), "--json")
    (plans,) = (record["plans"]["devices"] for record in ended.records if record.get("event") == "plans")
    assert [one["plan"]["to_version"] for one in plans] == ["1.1.0"] * 3
    stages = [record for record in ended.records if record.get("event") == "stage" and "address" in record]
    assert {record["address"] for record in stages} == set(shelf)
    assert {"upload", "prove", "confirm"} <= {record["stage"] for record in stages}
    ends = [record for record in ended.records if record.get("event") == "device_ends"]
    assert [one["verdict"] for one in ends] == ["done"] * 3
    assert ended.result["done"] == 3
    assert {one["report"]["ending"] for one in ended.result["devices"]} == {"confirmed"}


# -- which devices -----------------------------------------------------------------------------------------------------


def test_a_list_in_a_file(cli: Cli, new: str, shelf: list[str], tmp_path: Path) -> None:
    path = tmp_path / "shelf.txt"
    path.write_text(
        "\n".join(["\ufeff# the shelf", shelf[0], "", f"{shelf[1]} # left one", f"  {shelf[2]}  "]), "utf-8"
    )
    assert cli("dfu", new, "--devices", str(path), "-d", shelf[0], "--json").result["done"] == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("sim:a\nfoo\n", "line 2: 'foo' is not a device address"),
        ("# none\n", "names no device"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_is_wrong(cli: Cli, new: str, tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "shelf.txt"
    if content is not None:
        path.write_text(content)
    ended = cli("dfu", new, "--devices", str(path))
    assert ended.exit == Exit.USAGE
    assert told in ended.err


class Lab:
    """In place of what a transport finds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Discovered) -> None:
        async def look(timeout_s: float, report: Callable[[Discovered], None]) -> None:
            for one in found:
                report(one)

        monkeypatch.setattr(default_registry(), "resolve", lambda plugin, target: look)


class Context:
    """Listens, and tells which devices are named."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.progress = self.told.append
        self.renderer = self
        self.settings = self
        self.devices = ("sim:named",)
        self.id = None

    def tell(self, event: str, fields: Any) -> None:
        pass


def options(**given: Any) -> FleetOptions:
    none: dict[str, Any] = {"match": (), "devices": None, "jobs": (), "canary": 0, "max_failures": None, "stop_on": ()}
    return FleetOptions(**{**none, "ledger": None, "dask": None, **given})


PORTS = (
    Discovered("serial:/dev/ttyACM0", "Board", {"usb_address": "usb:2fe3:0004:A1"}),
    Discovered("serial:/dev/ttyACM1", "Board", {"usb_address": "usb:2fe3:0004:B2"}),
    Discovered("serial:/dev/ttyUSB0", "Adapter", {"usb_address": "usb:0403:6001"}),
)


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("usb:2fe3:*", ["usb:2fe3:0004:A1", "usb:2fe3:0004:B2"]),
        ("serial:/dev/ttyACM*", ["serial:/dev/ttyACM0", "serial:/dev/ttyACM1"]),
        ("serial:Board", ["serial:/dev/ttyACM0", "serial:/dev/ttyACM1"]),
    ],
)
async def test_what_fits_a_pattern(monkeypatch: pytest.MonkeyPatch, pattern: str, fitting: list[str]) -> None:
    Lab(monkeypatch, *PORTS)
    context = Context()
    found = await options(match=(pattern,)).addresses(context)  # type: ignore[arg-type]
    assert found == ["sim:named", *fitting]
    assert [note.text for note in context.told] == [f"{pattern} fits {len(fitting)} devices"]


async def test_a_pattern_that_fits_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Lab(monkeypatch, *PORTS)
    with pytest.raises(DeviceNotFound, match=r"no device fits serial:Widget-\*"):
        await matching(["serial:Widget-*"], Context())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is no pattern of addresses"):
        await matching(["Widget"], Context())  # type: ignore[arg-type]


# -- options -----------------------------------------------------------------------------------------------------------


def test_jobs_and_stops_are_taken_from_the_options() -> None:
    policy = options(jobs=("4", "ble=2"), stop_on=("reverted", "unproven"), canary=3, max_failures=0).policy
    assert (policy.jobs, policy.jobs_by_link["ble"], policy.canary, policy.max_failures) == (4, 2, 3, 0)
    assert policy.stop_on == {Exit.REVERTED, Exit.UNPROVEN}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--jobs", "many"], "--jobs many: 'many' is not a number"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--canary", "-1"], "--canary must not be negative"),
        (["--stop-on", "rain"], "--stop-on rain: there is no such ending"),
    ],
)
def test_options_that_make_no_sense(cli: Cli, new: str, shelf: list[str], wrong: list[str], told: str) -> None:
    ended = cli("dfu", new, *several(shelf), *wrong)
    assert ended.exit == Exit.USAGE
    assert told in ended.err


def test_other_commands_are_for_one_device(cli: Cli, shelf: list[str]) -> None:
    ended = cli("os", "echo", "hi", *several(shelf))
    assert ended.exit == Exit.USAGE
    assert "-d is given more than once" in ended.err


def test_what_has_no_way_back_is_asked_once_for_all(cli: Cli, new: str, shelf: list[str]) -> None:
    shelf[2] += ",mode=overwrite"
    ended = cli("dfu", new, *several(shelf))
    assert ended.exit == Exit.PLAN_REFUSED
    assert "there is no way back (1 of 3 devices)" in ended.err
    assert [runs(cli, address) for address in shelf] == ["1.0.0"] * 3
    assert cli("dfu", new, *several(shelf), "--yes").exit == Exit.DONE


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_the_ledger_tells_what_is_left_and_skips_nothing(cli: Cli, new: str, shelf: list[str], tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.json")
    first = cli("dfu", new, *several(shelf[:2]), "--ledger", ledger)
    assert "left by the ledger: 2 of 2 devices" in first.err
    entries = json.loads(Path(ledger).read_text())["devices"]
    assert {entry["verdict"] for entry in entries.values()} == {"done"}
    Path(tmp_path / "0.json").unlink()  # the device is exchanged: it runs the old image, whatever the ledger says
    second = cli("dfu", new, *several(shelf), "--ledger", ledger)
    assert "left by the ledger: 1 of 3 devices" in second.err
    assert "2 of 3 devices to update" in second.err
    assert len(json.loads(Path(ledger).read_text())["devices"]) == 3


def test_a_table_that_cannot_be_drawn_decides_nothing(
    cli: Cli, new: str, shelf: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("the terminal is gone")

    monkeypatch.setattr("mcumgrx.cli.fleet._Listener._table", broken)
    ended = cli("dfu", new, *several(shelf[:2]))
    assert (ended.exit, ended.out.startswith("done: 2 done of 2 devices")) == (Exit.DONE, True)


def test_a_ledger_that_cannot_be_read_or_written(cli: Cli, new: str, shelf: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    ended = cli("dfu", new, *several(shelf), "--ledger", str(broken))
    assert (ended.exit, "is no ledger that can be read" in ended.err) == (Exit.USAGE, True)
    nowhere = cli("dfu", new, *several(shelf), "--ledger", str(tmp_path / "no" / "ledger.json"))
    assert nowhere.exit == Exit.DONE
    assert nowhere.err.count("the ledger cannot be written") == 1


# -- how it looks ------------------------------------------------------------------------------------------------------


def planned(n: int) -> DeviceResult:
    plan = Plan((Upload(10, 1, "1.1.0"), Reset()), "1.0.0", "1.1.0", 1)
    return DeviceResult(f"udp:192.0.2.{n}", Verdict.LEFT, plan=plan)


def test_two_hundred_plans_fit_eighty_columns() -> None:
    refused = DeviceResult(
        "ble:A device with a name as long as some have, and longer",
        Verdict.FAILED,
        error=PlanRefused("the image needs 500,000 bytes, and slot 1 has 400,000 of them"),
    )
    lines = PlansView(FleetPlan((*(planned(n) for n in range(199)), refused))).lines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + 200 + 3 + 1  # the whole name of one takes two lines more, its reason one
    assert lines[-1] == "199 of 200 devices to update"


def test_the_report_names_some_and_counts_the_rest() -> None:
    failed = [
        DeviceResult(f"udp:192.0.2.{n}", Verdict.FAILED, error=DeviceNotFound("nothing answers", hint="plug it in"))
        for n in range(12)
    ]
    report = FleetReport((*failed, planned(99)), "12 devices have failed", 61.0)
    lines = FleetResult(report).lines()
    assert lines[0] == "12 × failed: nothing answers"
    assert lines[1] == "    hint: plug it in"
    assert lines[2].endswith("udp:192.0.2.7 and 4 more")
    assert lines[-2:] == ["stopped: 12 devices have failed", "done: 12 failed, 1 left of 13 devices (1 min 01 s)"]


# -- at which worker ---------------------------------------------------------------------------------------------------


class Workers:
    """In place of a cluster: what each worker sees, or why it cannot look."""

    def __init__(self, **seen: list[Found] | Exception) -> None:
        self.names = tuple(sorted(seen))
        self.seen = seen
        self.looked: list[str] = []

    async def everywhere(self, function: Any, scheme: str) -> dict[str, Any]:
        assert function is look_here
        self.looked.append(scheme)
        return self.seen


def near(address: str, name: str = "", **details: Any) -> Found:
    return Found(address.partition(":")[0], address, name, details)


async def bound_to(workers: Workers, *addresses: str, match: tuple[str, ...] = ()) -> list[str]:
    notes: list[Any] = []
    return [member.name for member in await bound(addresses, match, workers, notes.append)]  # type: ignore[arg-type]


async def test_a_device_is_at_the_worker_behind_its_address_or_at_the_only_one() -> None:
    two = Workers(hall=[], yard=[])
    assert await bound_to(two, "serial:/dev/ttyACM0 @hall", "udp:a @yard") == [
        "serial:/dev/ttyACM0 @hall",
        "udp:a @yard",
    ]
    assert await bound_to(Workers(hall=[]), "udp:192.0.2.7") == ["udp:192.0.2.7 @hall"]
    with pytest.raises(UsageError, match="udp:a @attic: no worker"):
        await bound_to(two, "udp:a @attic")


async def test_a_device_is_at_the_worker_that_sees_it_and_of_a_radio_at_the_nearest() -> None:
    radio = [near("ble:C0:01", "Sensor-1", signal_dbm=-80), near("ble:C0:02", "Sensor-2", signal_dbm=-50)]
    other = [near("ble:C0:01", "Sensor-1", signal_dbm=-60)]
    workers = Workers(hall=radio, yard=other)
    assert await bound_to(workers, "ble:Sensor-1", "ble:C0:02") == ["ble:Sensor-1 @yard", "ble:C0:02 @hall"]
    assert await bound_to(workers, match=("ble:Sensor-*",)) == ["ble:C0:01 @yard", "ble:C0:02 @hall"]
    with pytest.raises(DeviceNotFound, match="no device fits ble:Widget"):
        await bound_to(workers, match=("ble:Widget",))
    with pytest.raises(DeviceNotFound, match="no worker sees ble:Widget"):
        await bound_to(workers, "ble:Widget")


async def test_ports_of_one_name_are_different_devices() -> None:
    port = near("serial:/dev/ttyACM0", usb_address="usb:2fe3:0004:A1")
    workers = Workers(hall=[port], yard=[near("serial:/dev/ttyACM0", usb_address="usb:2fe3:0004:B2")])
    names = ["serial:/dev/ttyACM0 @hall", "serial:/dev/ttyACM0 @yard"]
    assert await bound_to(workers, match=("serial:*",)) == names
    assert await bound_to(workers, "usb:2fe3:0004:B2") == ["usb:2fe3:0004:B2 @yard"]
    assert workers.looked == ["serial", "usb"]
    with pytest.raises(UsageError, match="serial:/dev/ttyACM0 is at hall and at yard"):
        await bound_to(workers, "serial:/dev/ttyACM0")


async def test_workers_that_cannot_look() -> None:
    blind = DeviceNotFound("no adapter")
    workers = Workers(hall=blind, yard=[near("ble:C0:01", "Sensor-1", signal_dbm=-60)])
    assert await bound_to(workers, match=("ble:*",)) == ["ble:C0:01 @yard"]
    with pytest.raises(DeviceNotFound, match="no adapter"):
        await bound_to(Workers(hall=blind, yard=blind), match=("ble:*",))


async def test_a_worker_looks_as_this_computer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    Lab(monkeypatch, *PORTS)
    found = await look_here("usb")
    assert {one.address for one in found} == {one.address for one in PORTS}
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_device_at_a_worker_needs_the_cluster(cli: Cli, new: str, tmp_path: Path) -> None:
    path = tmp_path / "shelf.txt"
    path.write_text("sim:a\nsim:b @hall\n")
    ended = cli("dfu", new, "--devices", str(path))
    assert (ended.exit, "line 2: the device is at the worker hall" in ended.err) == (Exit.USAGE, True)
    named = cli("dfu", new, "-d", "sim:a", "-d", "sim:b", "--id", "unit")
    assert (named.exit, "--id is the name of one device" in named.err) == (Exit.USAGE, True)
