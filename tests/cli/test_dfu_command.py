"""`mcumgrx dfu`, `mcumgrx image upload` and what they say, on simulated devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.cli.dfu import MODES, UNCONFIRMED
from mcumgrx.flows import Mode, Unconfirmed

Cli = Callable[..., Any]
ImageFile = Callable[..., str]


pytestmark = pytest.mark.usefixtures("virtual_time")


def test_modes_are_those_of_the_policy() -> None:
    assert tuple(mode.value for mode in Mode) == MODES


def test_an_update_and_the_same_again(cli: Cli, desk: str, image_file: ImageFile) -> None:
    file = image_file("1.1.0")
    first = cli("dfu", file, "-d", desk)
    assert first.exit == 0, first.err
    assert first.out.startswith("done: 1.1.0 is running and confirmed (")
    lines = first.err.splitlines()
    plan = lines.index("  running  1.0.0")
    assert lines[plan + 1].startswith("  new      1.1.0 (hash ")
    assert lines[plan + 2].startswith("  1. upload 1.1.0")
    assert plan < next(number for number, line in enumerate(lines) if line.startswith("upload: "))
    assert "upload: 100 %" in first.err

    again = cli("dfu", file, "-d", desk)
    assert (again.exit, again.out) == (0, "done: 1.1.0 is already running and confirmed, nothing to do\n")
    assert "upload" not in again.err

    state = cli("image", "list", "-d", desk, "--json").result["slots"]
    assert [(slot["version"], slot["active"], slot["confirmed"]) for slot in state] == [
        ("1.1.0", True, True),
        ("1.0.0", False, False),
    ]


def test_an_image_that_crashes_is_taken_back(cli: Cli, desk: str, image_file: ImageFile) -> None:
    ended = cli("dfu", image_file("1.2.0", "crash"), "-d", desk, "--json")
    assert ended.exit == 7
    assert ended.error["code"] == "reverted"
    assert ended.error["outcome"] == "reverted"
    assert ended.error["stage"] == "prove"
    assert ended.error["kind"] == "FlowError"
    assert cli("image", "list", "-d", desk, "--json").result["slots"][0]["version"] == "1.0.0"


def test_events_as_json(cli: Cli, desk: str, image_file: ImageFile) -> None:
    ended = cli("dfu", image_file("1.1.0"), "-d", desk, "--json")
    assert ended.err == ""
    *events, last = ended.records
    assert {event["event"] for event in events} == {"stage", "plan", "bytes"}
    order = [event["stage"] for event in events if event["event"] == "stage" and event["finished"]]
    assert order == ["inspect", "connect", "read", "plan", "upload", "mark", "reset", "return", "prove", "confirm"]
    plan = next(event["plan"] for event in events if event["event"] == "plan")
    assert [step["name"] for step in plan["steps"]] == ["upload", "mark", "reset", "prove", "confirm"]
    assert plan["address"] == desk
    moved = [event for event in events if event["event"] == "bytes"]
    assert moved[-1]["done"] == moved[-1]["total"]
    assert last["command"] == "dfu"
    assert last["result"]["ending"] == "confirmed"
    assert last["result"]["hash"] == plan["hash"]


def test_a_dry_run_changes_nothing(cli: Cli, desk: str, image_file: ImageFile) -> None:
    ended = cli("dfu", image_file("1.1.0"), "-d", desk, "--dry-run")
    assert ended.exit == 0
    *plan, last = ended.out.splitlines()
    assert last == "dry run: nothing was changed"
    assert plan[1] == "running  1.0.0"
    assert plan[3] == "1. upload 1.1.0 (4,656 bytes) to slot 1: no other slot holds it"
    assert plan[-1] == "5. confirm 1.1.0, so that it stays: unconfirmed, the next reset takes it back"
    assert len(cli("image", "list", "-d", desk, "--json").result["slots"]) == 1
    assert cli("dfu", image_file("1.0.0", payload_size=48 * 1024), "-d", desk, "--dry-run").exit == 0


def test_modes_end_where_they_say(cli: Cli, desk: str, image_file: ImageFile) -> None:
    file = image_file("1.1.0")
    staged = cli("dfu", file, "-d", desk, "--mode", "upload-only")
    assert staged.out.startswith("done: 1.1.0 is in slot 1 (")
    on_trial = cli("dfu", file, "-d", desk, "--mode", "test-only")
    assert on_trial.out.startswith("done: 1.1.0 is running on trial")
    assert "upload:" not in on_trial.err
    assert "1.1.0 is already in slot 1" in on_trial.err
    confirmed = cli("dfu", file, "-d", desk)
    assert confirmed.out.startswith("done: 1.1.0 is running and confirmed")


def test_a_refusal_by_the_plan(cli: Cli, desk: str, image_file: ImageFile) -> None:
    assert cli("dfu", image_file("1.1.0"), "-d", desk, "--mode", "test-only").exit == 0
    ended = cli("dfu", image_file("1.3.0"), "-d", desk)
    assert ended.exit == 11
    assert "not confirmed" in ended.err
    assert "mcumgrx image confirm" in ended.err


def test_files_that_are_no_images(cli: Cli, tmp_path: Path) -> None:
    missing = cli("dfu", str(tmp_path / "gone.bin"), "-d", "sim:", "--json")
    assert missing.exit == 6
    assert missing.error["kind"] == "ImageError"
    (tmp_path / "zephyr.elf").write_bytes(b"\x7fELF" + bytes(2000))
    ended = cli("dfu", str(tmp_path / "zephyr.elf"), "-d", "sim:")
    assert ended.exit == 6
    assert "ELF" in ended.err
    assert "hint: " in ended.err


def test_policy_mistakes_are_usage_errors(cli: Cli, image_file: ImageFile) -> None:
    assert cli("dfu", image_file("1.1.0"), "-d", "sim:", "--erase-timeout", "0").exit == 2
    assert cli("dfu", image_file("1.1.0"), "-d", "sim:", "--window", "0").exit == 2


def test_an_upload_outside_of_a_flow_shows_its_progress(cli: Cli, desk: str, image_file: ImageFile) -> None:
    ended = cli("image", "upload", image_file("1.1.0"), "-d", desk)
    assert ended.exit == 0, ended.err
    assert "upload: 100 %, 4.7 KB of 4.7 KB" in ended.err
    assert ended.out.startswith("uploaded 1.1.0")


def test_what_made_the_rate_is_told_with_v_and_to_scripts(cli: Cli, desk: str, image_file: ImageFile) -> None:
    file = image_file("1.1.0", payload_size=60_000)
    ended = cli("dfu", file, "-d", "sim:one,latency=0.02", "--mode", "upload-only", "-v")
    assert ended.exit == 0, ended.err
    assert "(window 3, 360 B each, " in ended.err
    assert " on average: window 3, 3" in ended.err
    assert (
        "note: limited by the buffers: more buffers in the device (CONFIG_MCUMGR_TRANSPORT_NETBUF_COUNT)" in ended.err
    )
    quiet = cli("dfu", file, "-d", "sim:two,latency=0.02", "--mode", "upload-only")
    assert "window" not in quiet.err
    assert "CONFIG" not in quiet.err

    for command in (("dfu", "--mode", "upload-only"), ("image", "upload")):
        ended = cli(*command, file, "-d", f"sim:{command[-1]},latency=0.02", "--json")
        speed = ended.result["speed"]
        assert (speed["window"], speed["limited_by"], speed["retransmissions"]) == (3, "buffers", 0)
        assert 300 < speed["chunk_bytes"] < 384
        assert 0.04 <= speed["round_trip_s"] <= speed["slow_round_trip_s"] < 0.1
        moved = [record["speed"] for record in ended.records[:-1] if record["event"] == "bytes"]
        assert moved[-1] == speed
        assert moved[1]["left_s"] > 0

    assert cli("dfu", file, "-d", desk, "--mode", "upload-only").exit == 0
    assert cli("dfu", file, "-d", desk, "--mode", "upload-only", "--json").result["speed"] is None


def test_one_at_a_time_for_long_is_worth_a_hint(cli: Cli, image_file: ImageFile) -> None:
    ended = cli("image", "upload", image_file("1.1.0", payload_size=60_000), "-d", "sim:slow,latency=0.1,params=no")
    assert ended.exit == 0, ended.err
    assert "note: limited by the buffers: the device does not tell them" in ended.err
    assert "CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS" in ended.err


def test_actions_are_those_of_the_policy() -> None:
    assert tuple(action.value for action in Unconfirmed) == UNCONFIRMED


def test_what_a_policy_forbids_is_refused_before_anything_is_touched(
    cli: Cli, desk: str, image_file: ImageFile
) -> None:
    file = image_file("1.1.0")
    for more in ((), ("--dry-run",)):
        ended = cli("dfu", file, "-d", desk, "--expect-board", "other", "--json", *more)
        assert (ended.exit, ended.error["code"], ended.error["kind"]) == (11, "plan-refused", "PlanRefused")
        assert ended.error["message"] == "the device's board is mcumgrx_sim, and not other"
        assert "--expect-board" in ended.error["hint"]
    assert cli("dfu", image_file("0.9.0"), "-d", desk, "--upgrade-only").exit == 11
    assert len(cli("image", "list", "-d", desk, "--json").result["slots"]) == 1
    ended = cli("dfu", file, "-d", desk, "--upgrade-only", "--allow-downgrade")
    assert (ended.exit, ended.err) == (2, "error: --allow-downgrade contradicts --upgrade-only\n")
    assert cli("dfu", file, "-d", desk, "--expect-board", "mcumgrx_sim").exit == 0
    assert "downgrade" not in cli("dfu", image_file("0.9.0"), "-d", desk, "--allow-downgrade", "--dry-run").out


def test_an_image_on_trial_is_given_up_as_asked(cli: Cli, desk: str, image_file: ImageFile) -> None:
    file = image_file("1.3.0")
    assert cli("dfu", image_file("1.1.0"), "-d", desk, "--mode", "test-only").exit == 0
    dry = cli("dfu", file, "-d", desk, "--if-unconfirmed", "revert", "--dry-run")
    assert dry.exit == 0
    assert "1. reset the device, so that 1.0.0 comes back in place of 1.1.0" in dry.out
    assert "note: 1.1.0 runs on trial, and --if-unconfirmed says revert" in dry.err
    ended = cli("dfu", file, "-d", desk, "--if-unconfirmed", "revert", "--json")
    assert (ended.exit, ended.result["ending"]) == (0, "confirmed"), ended.out
    assert [step["name"] for step in ended.result["plan"]["steps"]][:2] == ["go-back", "upload"]


def test_another_build_of_the_version_may_be_enough(cli: Cli, desk: str, image_file: ImageFile) -> None:
    ended = cli("dfu", image_file("1.0.0"), "-d", desk, "--ensure-version")
    text = "done: 1.0.0 is already running and confirmed, as another build of that version, nothing to do\n"
    assert (ended.exit, ended.out) == (0, text)


# -- several images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two(image_file: ImageFile) -> tuple[str, str]:
    """The application and another core's image, as the command line names them."""
    return f"0={image_file('1.1.0')}", f"1={image_file('2.1.0', payload_size=5000)}"


def test_two_images_in_one_update(cli: Cli, tmp_path: Path, two: tuple[str, str]) -> None:
    device = f"sim:two,images=2,state={tmp_path / 'two.json'}"
    first = cli("dfu", *two, "-d", device)
    assert first.exit == 0, first.err
    assert first.out.startswith("done: 1.1.0 of image 0 and 2.1.0 of image 1 are running and confirmed (")
    assert "mark: 2.1.0 of image 1 marked for a test boot; 1.1.0 of image 0 marked for a test boot" in first.err
    listed = cli("image", "list", "-d", device, "--json").result["slots"]
    assert [(slot["image"], slot["version"], slot["confirmed"]) for slot in listed if slot["active"]] == [
        (0, "1.1.0", True),
        (1, "2.1.0", True),
    ]
    again = cli("dfu", *two, "-d", device, "--json")
    assert again.result["ending"] == "nothing to do"
    assert [one["to_version"] for one in again.result["images"]] == ["1.1.0", "2.1.0"]
    assert [one["steps"] for one in again.result["plan"]["images"]] == [[], []]


def test_a_dry_run_of_two_images(cli: Cli, two: tuple[str, str]) -> None:
    ended = cli("dfu", *two, "-d", "sim:two,images=2", "--dry-run")
    *plan, last = ended.out.splitlines()
    assert last == "dry run: nothing was changed"
    assert len(plan) <= 12
    assert [line.split(" (")[0] for line in plan[1:3]] == ["image 0  1.0.0 -> 1.1.0", "image 1  1.0.0 -> 2.1.0"]
    told = cli("dfu", *two, "-d", "sim:two,images=2", "--dry-run", "--json").result["plan"]
    assert [(one["image"], [step["name"] for step in one["steps"]]) for one in told["images"]] == [
        (number, ["upload", "mark", "reset", "prove", "confirm"]) for number in (0, 1)
    ]
    assert [step["name"] for step in told["steps"]] == ["upload", "upload", "mark", "reset", "prove", "confirm"]


def test_a_terminal_of_a_few_lines_has_room_for_the_stages_of_two_images(cli: Cli, two: tuple[str, str]) -> None:
    records = cli("dfu", *two, "-d", "sim:two,images=2", "--json").records
    stages = [record["stage"] for record in records if record.get("event") == "stage" and record["finished"]]
    assert len(stages) <= 12
    assert stages.count("upload") == 2
    assert stages.count("mark") == 1


def test_files_by_their_numbers_that_make_no_sense(cli: Cli, two: tuple[str, str], image_file: ImageFile) -> None:
    for arguments, message in (
        ((two[0], two[0]), "there are two files for image 0"),
        ((image_file("1.1.0"), image_file("1.2.0")), "there are two files for image 0"),
        (("0=", two[1]), "the name of the file is empty"),
        ((*two, "--image", "1"), "--image is for a file without a number"),
        (("1=https://example.com/net.bin",), "is a web address"),
    ):
        ended = cli("dfu", *arguments, "-d", "sim:two,images=2")
        assert ended.exit == 2
        assert message in ended.err


@pytest.mark.parametrize(
    ("device", "options", "reason"),
    [
        ("mode=overwrite", [], "this bootloader overwrites the old image"),
        ("mode=direct-xip", [], "this bootloader knows no test boot"),
        ("", ["--mode", "confirm-only"], "it is marked to stay before it has run"),
    ],
)
def test_what_cannot_be_undone_is_agreed_to(
    cli: Cli, tmp_path: Path, image_file: ImageFile, device: str, options: list[str], reason: str
) -> None:
    address, file = f"sim:,{device},state={tmp_path / 'state.json'}".replace(",,", ","), image_file("1.1.0")
    planned = cli("dfu", file, "-d", address, *options, "--dry-run", "--json")
    assert planned.exit == 0
    assert [reason in text for text in planned.result["plan"]["no_way_back"]] == [True]
    before = cli("image", "list", "-d", address).out
    refused = cli("dfu", file, "-d", address, *options)
    assert refused.exit == 11
    assert f"warning: {reason}" in refused.err
    assert f"error: nothing was changed, because nobody has agreed: {reason}" in refused.err
    assert "hint: give --yes, or answer the question with y; --mode upload-only puts" in refused.err
    assert cli("image", "list", "-d", address).out == before
    told = cli("dfu", file, "-d", address, *options, "--json")
    assert (told.exit, told.error["kind"]) == (11, "PlanRefused")
    done = cli("dfu", file, "-d", address, *options, "--yes")
    assert done.exit == 0, done.err
    assert done.out.startswith("done: 1.1.0 is running and confirmed (")


def test_an_update_with_a_way_back_asks_nothing(cli: Cli, desk: str, image_file: ImageFile) -> None:
    assert cli("dfu", image_file("1.1.0"), "-d", desk, "--dry-run", "--json").result["plan"]["no_way_back"] == []


def test_images_in_an_order_of_ones_own(cli: Cli, tmp_path: Path, two: tuple[str, str]) -> None:
    device = f"sim:two,images=2,state={tmp_path / 'two.json'}"

    def planned(*options: str) -> Any:
        ended = cli("dfu", *two, "-d", device, *options, "--dry-run", "--json")
        return ended.result["plan"] if ended.exit == 0 else ended

    assert [step["text"].split()[1] for step in planned("--image-order", "1, 0")["steps"][:2]] == ["2.1.0", "1.1.0"]
    assert planned("--image-order", "0,1")["steps"][2]["text"].startswith("mark image 0, then image 1 for a test")
    refused = cli("dfu", *two, "-d", device, "--image-order", "0,1")
    assert refused.exit == 11
    assert "image 0 is marked before image 1" in refused.err
    assert "give --yes" in refused.err
    for order, code in (("1", 11), ("0,1,2", 11), ("1,1", 2), ("1;0", 2), ("", 2), ("-1,0", 2)):
        ended = planned("--image-order", order)
        assert (ended.exit, "--image-order" in ended.error["message"]) == (code, True), order
    done = cli("dfu", *two, "-d", device, "--image-order", "0,1", "--yes")
    assert done.exit == 0, done.err


@pytest.mark.parametrize("action", ["revert", "confirm"])
def test_two_other_images_on_trial(
    cli: Cli, tmp_path: Path, image_file: ImageFile, two: tuple[str, str], action: str
) -> None:
    device = f"sim:two,images=2,state={tmp_path / 'two.json'}"
    others = f"0={image_file('1.0.5')}", f"1={image_file('1.0.6')}"
    assert cli("dfu", *others, "-d", device, "--mode", "test-only").exit == 0
    refused = cli("dfu", *two, "-d", device)
    assert refused.exit == 11
    assert "image 0: the running image 1.0.5 is not confirmed" in refused.err
    ended = cli("dfu", *two, "-d", device, "--if-unconfirmed", action)
    if action == "revert":
        assert ended.exit == 0, ended.err
        assert "1. reset the device, so that 1.0.0 of image 0 and 1.0.0 of image 1 come back" in ended.err
    else:  # this device lets only its own application confirm the other core's image
        assert ended.exit == 5
        assert "upload" not in [line.partition(":")[0] for line in ended.err.splitlines()]
