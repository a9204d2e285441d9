"""Group 63 against the simulated device and recorded answers: what is erased, and that it is asked once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcumgrx.cli.main import main
from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MalformedReply, RequestTimeout
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups import zephyr as sim
from mcumgrx.sim.groups.settings import SettingsConfig, SettingsServer
from mcumgrx.sim.groups.zephyr import ZephyrConfig, ZephyrServer
from mcumgrx.sim.link import Faults
from mcumgrx_plugins.zephyr import commands
from mcumgrx_plugins.zephyr.group import ZephyrGroup
from mcumgrx_plugins.zephyr.messages import EraseStorage, ZephyrErrorCode

from ..support.recorded import Recorded, recorded, result_or_error
from ..support.simulated import CutAnswers, Desk


def desk(
    fault: sim.ZephyrErrorCode | None = None, *, original: bool = False, faults: Faults | None = None, **more: Any
) -> Desk:
    made = Desk(DeviceConfig(original_only=original), faults=faults)
    made.device.add_group(ZephyrServer(ZephyrConfig(fault=fault, **more)))
    made.device.add_group(SettingsServer(SettingsConfig(stored={"app/name": b"stored"})))
    return made


def erases(desk: Desk) -> int:
    server = desk.device.groups[63]
    assert isinstance(server, ZephyrServer)
    return server.erases


def stored(desk: Desk) -> dict[str, bytes]:
    server = desk.device.groups[3]
    assert isinstance(server, SettingsServer)
    return server.stored


@pytest.mark.parametrize("original", [False, True])
def test_erase(original: bool) -> None:
    made = desk(original=original)
    result = made.command(commands.erase_storage)
    assert (erases(made), stored(made)) == (1, {})
    assert "until the device restarts" in result.lines()[1]


def test_an_erase_that_takes_long() -> None:
    made = desk(storage_size=256 * 1024)
    made.command(commands.erase_storage)
    assert erases(made) == 1


def test_it_is_never_asked_twice() -> None:
    # The first answer is that to the harmless request in front of it.
    made = desk(faults=Faults(drop_replies=lambda number, message: number > 1))
    with pytest.raises(RequestTimeout) as raised:
        made.command(commands.erase_storage)
    assert erases(made) == 1
    assert raised.value.attempts == 1
    assert "not asked again" in str(raised.value.hint)


def test_an_answer_that_cannot_be_read_leaves_it_open() -> None:
    made = desk()
    made.transport = CutAnswers(made.device, (Op.WRITE, 63, 0))
    with pytest.raises(MalformedReply, match="may have carried it out") as raised:
        made.command(commands.erase_storage)
    assert erases(made) == 1
    assert "may be erased" in str(raised.value.hint)


def test_a_device_that_is_silent_altogether_gets_the_usual_hints() -> None:
    with pytest.raises(RequestTimeout) as raised:
        desk(faults=Faults(drop_requests=lambda number, message: True)).command(commands.erase_storage)
    assert raised.value.hint is None


@pytest.mark.parametrize("code", list(sim.ZephyrErrorCode))
def test_refusals(code: sim.ZephyrErrorCode) -> None:
    with pytest.raises(DeviceError) as raised:
        desk(code).command(commands.erase_storage)
    assert (raised.value.group, raised.value.rc, raised.value.name) == (63, code, code.name)


def test_a_refusal_of_version_1() -> None:
    with pytest.raises(DeviceError) as raised:
        desk(sim.ZephyrErrorCode.FLASH_OPEN_FAILED, original=True).command(commands.erase_storage)
    assert (raised.value.group, raised.value.rc) == (None, SmpError.NO_ENTRY)
    assert "storage_partition" in str(raised.value.hint)


@pytest.mark.parametrize("code", [3, 4])
def test_the_broken_answer_of_version_1(code: int) -> None:
    """Zephyr sends eight bytes that were never written, or nothing that arrives."""
    with pytest.raises(RequestTimeout) as raised:
        desk(sim.ZephyrErrorCode(code), original=True).command(commands.erase_storage)
    assert "version 1" in str(raised.value.hint)


def test_a_device_without_the_group() -> None:
    with pytest.raises(DeviceError) as raised:
        Desk(DeviceConfig(groups=(0, 1))).command(commands.erase_storage)
    assert raised.value.rc == SmpError.NOT_SUPPORTED
    assert "CONFIG_MCUMGR_GRP_ZBASIC_STORAGE_ERASE" in str(raised.value.hint)
    assert "CONFIG_BOOT_MGMT_CUSTOM_STORAGE_ERASE" in str(raised.value.hint)


def test_the_group_without_a_command_line() -> None:
    async def work(client: Client) -> None:
        await client.group(ZephyrGroup).erase_storage()

    made = desk()
    made.client(work)
    assert erases(made) == 1


def test_the_error_table() -> None:
    assert {int(code): code.name for code in ZephyrErrorCode} == {int(code): code.name for code in sim.ZephyrErrorCode}
    for code in ZephyrErrorCode:
        assert " " in code.sentence
        assert not code.sentence.endswith(".")


def test_the_request_on_the_wire() -> None:
    request = EraseStorage().request()
    assert request.encode(1, 9).hex() == "0a000001003f0900a0"
    assert not request.repeatable


RECORDED = recorded(63)


@pytest.mark.parametrize("row", RECORDED, ids=str)
def test_recorded_answers_become_typed_results(row: Recorded) -> None:
    result = result_or_error(row, EraseStorage())
    if row.name.endswith("zbasic erase storage"):
        assert result is None
        assert EraseStorage().body() == row.asked
    else:
        assert result.name == "NOT_SUPPORTED"  # a read, or a command that no server has


def test_the_recordings_have_the_command() -> None:
    assert len(RECORDED) >= 9


# -- the command line -------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["-d", "sim:", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_nothing_happens_without_consent(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "zephyr", "erase-storage")
    assert (code, said["error"]["exit"]) == (2, 2)
    assert said["error"]["message"] == "nothing was erased"
    assert "--yes" in said["error"]["hint"]


def test_with_consent(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "zephyr", "erase-storage", "--yes")
    assert (code, said["command"]) == (0, "zephyr erase-storage")


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zephyr", "erase-storage", "--help"]) == 0
    examples = capsys.readouterr().out.partition("\nExample")[2]
    assert "mcumgrx zephyr erase-storage --yes -d " in examples
