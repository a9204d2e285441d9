"""Fleets over a Dask cluster of real worker processes: every diagnosis, a worker that dies, a fleet that is ended."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from mcumgrx import gateway_work
from mcumgrx.cli.health import command_check
from mcumgrx.errors import ConnectFailed, DeviceError, Exit, Outcome, UsageError
from mcumgrx.events import Event, Note, Stage, StageName
from mcumgrx.flows import DfuPolicy
from mcumgrx.flows.fleet import DeviceEvent, FleetPolicy, Member, Task, Verdict, update_fleet
from mcumgrx.gateway_work import Order, carry_out
from mcumgrx.gateways import RemoteError, gateways
from mcumgrx.mcuboot import load_image, parse_image
from mcumgrx.sim.images import build_image

from ..cli.conftest import command_line, environment
from .conftest import Cluster

QUICK = "slot_size=65536,erase=0.05,boot=0.05,reset_delay=0.02,watchdog=0.2"
IMAGE = parse_image(build_image("1.1.0", payload_size=2000))

# Ten ways to fail, and two hostile ones.
BAD: dict[str, tuple[Exit | int, Outcome | None]] = {
    f"sim:crashes,{QUICK},unhealthy=1.1.0": (Exit.REVERTED, Outcome.REVERTED),
    "sim:small,slot_size=8192": (Exit.FAILED, None),
    "sim:single,mode=single-slot": (Exit.PLAN_REFUSED, None),
    "sim:newer,version=2.0.0": (Exit.PLAN_REFUSED, None),
    "sim:wrong,erase=soon": (Exit.USAGE, None),
    "nothing:knows this": (Exit.USAGE, None),
    "tcp:127.0.0.1:1": (Exit.NO_LINK, None),
    "serial:/dev/no-such-port": (Exit.NO_LINK, None),
    "odd:own": (64, None),
    "odd:exit": (Exit.PLUGIN, None),
    "odd:noise": (Exit.NO_ANSWER, None),
    "odd:chatter": (Exit.NO_ANSWER, None),
}


@pytest.mark.timeout(300)
async def test_of_a_hundred_devices_at_four_workers_one_worker_dies(cluster: Cluster, tmp_path: Path) -> None:
    for number in range(4):
        cluster.worker(f"gw-{number}")
    await cluster.ready(4)
    bad = list(BAD)
    members = [Member(bad[n], at=f"gw-{n % 3}") for n in range(12)]
    good = [f"sim:unit-{n},{QUICK},state={tmp_path / f'{n}.json'}" for n in range(88)]
    members += [Member(address, at="gw-3" if n < 25 else f"gw-{n % 3}") for n, address in enumerate(good)]
    policy, fleet = DfuPolicy(upgrade_only=True), FleetPolicy(jobs=32)
    killed = False

    def tell(event: Event) -> None:
        nonlocal killed
        uploads = isinstance(event, DeviceEvent) and isinstance(event.event, Stage)
        if not killed and uploads and event.event.name is StageName.UPLOAD and event.address.endswith("@gw-3"):
            killed = True
            cluster.kill("gw-3")

    async with gateways(cluster.address, timeout_s=2.0, remember=False) as executor:
        report = await update_fleet(members, IMAGE, policy, tell, fleet=fleet, executor=executor)
    for member, result in zip(members, report.results, strict=True):
        if member.address in BAD:
            assert (result.exit, getattr(result.error, "outcome", None)) == BAD[member.address], result
            assert result.verdict is Verdict.FAILED
        else:
            expected = Verdict.UNKNOWN if member.at == "gw-3" else Verdict.DONE
            assert result.verdict is expected, result
    own = next(one for one in report.results if one.address.startswith("odd:own"))
    assert isinstance(own.error, RemoteError)
    assert (own.reason, own.error.hint) == ("the odd device is odder than usual", "look away")
    assert "the worker gw-3 has gone: what has become of the device is not known" in report.reasons

    cluster.worker("gw-3")
    await cluster.ready(4)
    async with gateways(cluster.address, timeout_s=2.0, remember=False) as executor:
        again = await update_fleet(members[12:], IMAGE, policy, fleet=fleet, executor=executor)
    assert again.counts[Verdict.DONE] == 88, again.reasons


async def test_what_kills_its_worker_is_not_tried_at_the_next_one(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker("gw-0", "--nanny")
    cluster.worker("gw-1")
    await cluster.ready(2)
    noted = tmp_path / "opened"
    async with gateways(cluster.address, remember=False) as executor:
        report = await update_fleet([Member(f"odd:kill={noted}", at="gw-0")], IMAGE, executor=executor)
        assert [one.verdict for one in report.results] == [Verdict.UNKNOWN]
        await cluster.ready(2)  # its nanny has started it again
        late = await update_fleet([Member(f"sim:late,{QUICK}", at="gw-0")], IMAGE, executor=executor)
        assert late.counts[Verdict.UNKNOWN] == 1  # as this run knows it, it has gone
    async with gateways(cluster.address, remember=False) as executor:
        report = await update_fleet([Member(f"sim:a,{QUICK}", at="gw-0")], IMAGE, executor=executor)
        assert report.exit is Exit.DONE
    assert noted.read_text() == "opened\n"


def test_only_the_process_that_was_meant_carries_a_task_out(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    order = Order("key", "another", f"odd:hang={tmp_path / 'x'}", Task({}, DfuPolicy(), only_plan=False), None, False)
    assert carry_out(order, {0: IMAGE}) is None


async def test_a_cancelled_fleet_closes_the_links_at_the_workers(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker("gw-0", "--no-nanny", "--nthreads", "2")
    await cluster.ready(1)
    noted = [tmp_path / f"noted-{n}" for n in range(6)]
    at_work = asyncio.Event()

    def tell(event: Event) -> None:
        if isinstance(event, DeviceEvent) and sum(path.exists() for path in noted) == 2:  # as many as it has threads
            at_work.set()

    async with gateways(cluster.address, remember=False) as executor:
        fleet = [Member(f"odd:hang={path}", at="gw-0") for path in noted]
        updating = asyncio.create_task(update_fleet(fleet, IMAGE, progress=tell, executor=executor))
        await at_work.wait()
        updating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await updating
        begun = [path for path in noted if path.exists()]  # one more may have begun before the cancellation came
        assert {path.read_text() for path in begun} == {"opened\nclosed\n"}
        after = await update_fleet([Member(f"sim:b,{QUICK}", at="gw-0")], IMAGE, executor=executor)
        assert after.exit is Exit.DONE  # the worker is free
    assert [path for path in noted if path.exists()] == begun
    assert len(begun) < len(noted)


async def test_checks_run_at_the_worker_and_events_come_back(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker("gw-0")
    await cluster.ready(1)
    path = tmp_path / "app.bin"
    path.write_bytes(build_image("1.1.0", payload_size=2000))
    events: list[Event] = []
    policy = DfuPolicy(checks=(command_check("echo asked at $GATEWAY", 10.0),))
    async with gateways(cluster.address, remember=False) as executor:
        member = Member(f"sim:c,{QUICK}", at="gw-0")
        report = await update_fleet([member], load_image(path), policy, events.append, executor=executor)
        assert report.exit is Exit.DONE, report.reasons
        told = [event.event for event in events if isinstance(event, DeviceEvent) and event.address == member.name]
        assert Note("health check: asked at gw-0") in told
        stages = [event.name for event in told if isinstance(event, Stage) and event.finished]
        assert stages[-3:] == ["prove", "check", "confirm"]
        events.clear()
        policy = DfuPolicy(checks=(command_check("yes", 2.0),), check_timeout_s=2.0)
        flooding = await update_fleet(
            [Member(f"sim:d,{QUICK}", at="gw-0")], IMAGE, policy, events.append, executor=executor
        )
        assert flooding.results[0].exit == Exit.UNHEALTHY
        assert len(events) < 250


# -- what is refused -----------------------------------------------------------------------------------------------


async def test_a_cluster_that_is_not_there_or_has_no_worker(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await cluster.ready(0)
    with pytest.raises(ConnectFailed, match="has no worker"):
        async with gateways(cluster.address):
            pass
    monkeypatch.setattr("mcumgrx.gateways._CONNECT_S", 0.5)
    with pytest.raises(ConnectFailed, match="no Dask scheduler answers"):
        async with gateways("tcp://127.0.0.1:9"):
            pass


async def test_a_worker_of_another_version_or_without_a_name(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.worker("gw-0")
    await cluster.ready(1)
    async with gateways(cluster.address) as executor:
        report = await update_fleet([Member("sim:a", at="hall"), Member("sim:a")], IMAGE, executor=executor)
        assert {one.exit for one in report.results} == {Exit.USAGE}
        assert "no worker of the cluster is called 'hall'" in report.reasons
    monkeypatch.setattr("mcumgrx.gateways.__version__", "99")
    with pytest.raises(UsageError, match=r"gw-0 has mcumgrx .*, and here is 99"):
        async with gateways(cluster.address):
            pass


def test_dask_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)

    async def main() -> None:
        async with gateways("tcp://127.0.0.1:9"):
            pass

    with pytest.raises(UsageError, match="gateways need Dask"):
        asyncio.run(main())


# -- what is sent --------------------------------------------------------------------------------------------------


def test_an_error_that_cannot_be_pickled_is_told_all_the_same() -> None:
    error = DeviceError("no", group=1, rc=3, hint="ask again")
    error.reply = {"kept": lambda: None}
    answer: Any = pickle.loads(pickle.dumps(gateway_work.Answer.of(error)))
    assert (answer.error, answer.said, answer.hint, answer.exit) == (None, "no", "ask again", Exit.DEVICE_REFUSED)
    bug = gateway_work.Answer.of(SystemExit("gone"))
    assert (bug.error, bug.said, bug.exit) == (None, "SystemExit: gone", Exit.BUG)


# -- the command -------------------------------------------------------------------------------------------------------


async def test_the_command_updates_at_workers(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker("hall")
    cluster.worker("yard")
    await cluster.ready(2)
    (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=2000))
    (tmp_path / "shelf.txt").write_text(f"sim:desk,{QUICK} @hall  # the first\nsim:desk,{QUICK} @yard\n")
    words = [
        "dfu",
        "app.bin",
        "--dask",
        cluster.address,
        "--devices",
        "shelf.txt",
        "--health-check",
        "echo at $GATEWAY",
        "--ledger",
        "ledger.json",
    ]
    process = await asyncio.create_subprocess_exec(
        *command_line(*words, "--json"), cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    records = [json.loads(line) for line in out.splitlines()]
    assert records[-1]["result"]["done"] == 2
    entries = json.loads((tmp_path / "ledger.json").read_text())["devices"].values()
    assert {one["address"].rpartition(" ")[2] for one in entries} == {"@hall", "@yard"}
    notes = {
        (one["address"].rpartition(" @")[2], one["text"]) for one in records if "health check:" in one.get("text", "")
    }
    assert notes == {("hall", "health check: at hall"), ("yard", "health check: at yard")}


async def test_the_command_is_ended_by_ctrl_c(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker("hall")
    await cluster.ready(1)
    (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=2000))
    words = ["dfu", "app.bin", "--dask", cluster.address, "-d", f"odd:hang={tmp_path / 'noted'}"]
    process = await asyncio.create_subprocess_exec(
        *command_line(*words, "--json"), cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if json.loads(line).get("stage") == "read":
            break
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert b"interrupted: 1 left of 1 devices" in out
    assert (tmp_path / "noted").read_text() == "opened\nclosed\n"
