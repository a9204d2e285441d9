"""Group 0 of the simulated device: echo, task statistics, reset, parameters, information, bootloader information.

Source: Zephyr `subsys/mgmt/mcumgr/grp/os_mgmt/src/os_mgmt.c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any, ClassVar

from mcumgrx.protocol.codes import OsErrorCode, SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.config import DeviceConfig
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Refused

INFO_LETTERS = "snrvbmpio"
"""The order of the answer, whatever that of the request."""


class OsServer(GroupServer):
    """The OS group, without datetime (no clock)."""

    group: ClassVar[int] = GroupId.OS
    name = "os mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        OsErrorCode.INVALID_FORMAT: SmpError.INVALID,
        OsErrorCode.QUERY_YIELDS_NO_ANSWER: SmpError.NO_ENTRY,
        OsErrorCode.RTC_NOT_SET: SmpError.NO_ENTRY,
    }

    def __init__(self, config: DeviceConfig | None = None) -> None:
        super().__init__(
            {
                (Op.READ, 0): self.echo,
                (Op.WRITE, 0): self.echo,
                (Op.READ, 2): self.tasks,
                (Op.WRITE, 5): self.reset,
                (Op.READ, 6): self.params,
                (Op.READ, 7): self.info,
                (Op.READ, 8): self.bootloader,
            }
        )
        # What was not built in is not in the table, and does not count where the groups are described.
        if config is not None and config.console_echo:
            self.handlers[Op.WRITE, 1] = lambda call: {}
        if config is not None:
            there = {6: config.params, 7: config.os_info, 8: config.bootloader_info}
            for command in [command for command, is_there in there.items() if not is_there]:
                del self.handlers[Op.READ, command]

    def echo(self, call: Call) -> dict[str, Any]:
        return {"r": call.read(d="text").get("d", "")}

    def tasks(self, call: Call) -> dict[str, Any]:
        tasks = {}
        for task in call.device.config.tasks:
            entry = {"prio": task.prio, "tid": task.tid, "state": task.state}
            if task.stksiz is not None and task.stkuse is not None:
                entry |= {"stksiz": task.stksiz, "stkuse": task.stkuse}
            tasks[task.name] = entry
        return {"tasks": tasks}

    def reset(self, call: Call) -> dict[str, Any]:
        try:
            wanted = call.read(force="flag", boot_mode="uint")
        except Refused:
            wanted = {}  # what cannot be decoded is ignored: the reset happens
        boot_mode: int = wanted.get("boot_mode", 0)
        if boot_mode > 0xFF:
            raise Refused(SmpError.INVALID)
        call.device.request_reset(boot_mode)
        return {}

    def params(self, call: Call) -> dict[str, Any]:
        config = call.device.config
        return {"buf_size": config.buf_size, "buf_count": config.buf_count}

    def info(self, call: Call) -> dict[str, Any]:
        wanted = call.read(format="text").get("format") or "s"
        if set(wanted) - set(INFO_LETTERS + "a"):
            raise GroupError(OsErrorCode.INVALID_FORMAT)
        texts: tuple[str, ...] = astuple(call.device.config.info)
        shown = [text for letter, text in zip(INFO_LETTERS, texts, strict=True) if letter in wanted or "a" in wanted]
        return {"output": " ".join(shown)}

    def bootloader(self, call: Call) -> dict[str, Any]:
        query = call.read(query="text").get("query")
        if query is None:
            return {"bootloader": "MCUboot"}
        if query == "active_b0_slot" and call.device.config.b0:
            return {"active": call.device.b0_slot}
        if query != "mode":
            raise GroupError(OsErrorCode.QUERY_YIELDS_NO_ANSWER)
        answer: dict[str, Any] = {"mode": int(call.device.bootloader.mode)}
        if call.device.bootloader.policy.downgrade_prevention:
            answer["no-downgrade"] = True
        return answer
