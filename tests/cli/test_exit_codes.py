"""Exception → exit code, message and hint."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx import errors
from mcumgrx.cli.command import failure_of
from mcumgrx.cli.exit_codes import Exit, Situation, exit_for, explain
from mcumgrx.errors import (
    ConnectFailed,
    DeviceError,
    DeviceNotFound,
    FlowError,
    FramingError,
    ImageError,
    LinkLost,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    NotDone,
    Outcome,
    PlanRefused,
    PluginError,
    RequestTimeout,
    TransferStuck,
    UploadMismatch,
    UsageError,
    WrongDevice,
)
from mcumgrx.protocol.codes import SmpError, error_table


def timeout(what: str = "echo", hint: str | None = None) -> RequestTimeout:
    return RequestTimeout(f"no answer to the {what}", what=what, timeout_s=5.0, attempts=3, hint=hint)


def refusal(group: int | None, rc: int, hint: str | None = None) -> DeviceError:
    table = SmpError if group is None else error_table(group)
    return DeviceError("the device refused it", group=group, rc=rc, code=table and table.find(rc), hint=hint)


EXITS: list[tuple[Exception, int]] = [
    (UsageError("x"), 2),
    (MessageTooLarge("x", size=2, limit=1), 2),
    (DeviceNotFound("x"), 3),
    (ConnectFailed("x"), 3),
    (LinkLost("x"), 3),
    (WrongDevice("x", expected="a", found="b", address=None), 3),
    (timeout(), 4),
    (MalformedReply("x"), 4),
    (FramingError("x"), 4),
    (TransferStuck("x", offset=1, size=2), 4),
    (refusal(0, 1), 5),
    (NotDone("x"), 5),
    (UploadMismatch("x", size=2), 5),
    (ImageError("x"), 6),
    (FlowError("x", stage="prove", outcome=Outcome.REVERTED), 7),
    (FlowError("x", stage="prove", outcome=Outcome.REJECTED), 7),
    (PluginError("x"), 8),
    (FlowError("x", stage="prove", outcome=Outcome.NEVER_SWAPPED), 9),
    (FlowError("x", stage="prove", outcome=Outcome.OTHER_IMAGE), 9),
    (FlowError("x", stage="prove", outcome=Outcome.MIXED), 9),
    (FlowError("x", stage="prove", outcome=Outcome.FROZEN), 9),
    (FlowError("x", stage="return", outcome=Outcome.NO_RETURN), 9),
    (FlowError("x", stage="confirm", outcome=Outcome.NOT_CONFIRMED), 9),
    (FlowError("x", stage="prove", outcome=Outcome.UNSEEN), 9),
    (FlowError("x", stage="upload"), 9),
    (FlowError("x", stage="prove", outcome=Outcome.UNHEALTHY), 10),
    (PlanRefused("x"), 11),
    (KeyError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), EXITS, ids=[f"{type(error).__name__}-{code}" for error, code in EXITS])
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_for(error) == code
    assert failure_of(error, Situation()).exit == code


class Own(McumgrError):
    """Of a plugin."""


@pytest.mark.parametrize(
    ("exit", "code"),
    [(70, 70), (Exit.BAD_FILE, 6), (64, 64), (113, 113), (0, 15), (1, 15), (200, 15), (True, 15), ("7", 15)],
)
def test_a_plugins_error_has_an_exit_code_of_its_own(exit: Any, code: int) -> None:
    error = Own("no")
    error.exit = exit
    assert exit_for(error) == code
    assert exit_for(Own("no")) == Exit.FAILED

    class Lost(LinkLost):
        exit = "gone"  # type: ignore[assignment]

    assert exit_for(Lost("no")) == Exit.NO_LINK
    assert "exit" not in explain(error, Situation()).fields


def test_every_exception_of_ours_has_a_code_of_its_own() -> None:
    covered = {type(error) for error, _ in EXITS}
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = {kind for kind in classes if issubclass(kind, McumgrError) and not kind.__subclasses__()}
    assert ours <= covered
    assert {error.outcome for error, _ in EXITS if isinstance(error, FlowError)} >= set(Outcome)


def test_labels() -> None:
    assert [Exit(number).label for number in (0, 3, 130)] == ["done", "no-link", "interrupted"]


IMAGE = Situation("image upload", "serial", answered=True)
DFU = Situation("dfu", "serial", answered=True)
SERIAL = Situation("os echo", "serial")

HINTS: list[tuple[Exception, Situation, str]] = [
    (refusal(None, 6), DFU, "on trial"),  # how servers of before SMP version 2 say it
    (refusal(1, 9), IMAGE, "'mcumgrx image list'"),
    (timeout("image upload"), Situation("dfu", "serial", answered=True, sent=0), "--erase-timeout"),
    (timeout("erase"), IMAGE, "--erase-timeout"),
    (TransferStuck("x", offset=0, size=9), DFU, "--chunk 64"),
    (FlowError("x", stage="upload"), DFU, "another bootloader"),
    (FlowError("x", stage="mark"), DFU, "another image number"),
    (timeout(), SERIAL, "CONFIG_MCUMGR_TRANSPORT_UART (before Zephyr 3.3: CONFIG_MCUMGR_SMP_UART)"),
    (timeout(), SERIAL, "CONFIG_MCUMGR_TRANSPORT_SHELL (before Zephyr 3.3: CONFIG_MCUMGR_SMP_SHELL)"),
    (timeout(), SERIAL, "baud="),
    (timeout(), Situation("os echo", "serial", heard=True), "is its speed right"),
    (timeout(), Situation("os echo", "ble"), "CONFIG_MCUMGR_TRANSPORT_BT (before Zephyr 3.3: CONFIG_MCUMGR_SMP_BT)"),
    (timeout(), Situation("os echo", "udp"), "CONFIG_MCUMGR_TRANSPORT_UDP (before Zephyr 3.3: CONFIG_MCUMGR_SMP_UDP)"),
    (ConnectFailed("no SMP service"), Situation("os echo", "ble"), "CONFIG_MCUMGR_TRANSPORT_BT (before"),
    (timeout(), Situation("os echo", "serial", answered=True), "--timeout"),
    (MessageTooLarge("x", size=2, limit=1), SERIAL, "send less"),
]


@pytest.mark.parametrize(("error", "where", "part"), HINTS)
def test_hints_that_only_the_situation_gives(error: Exception, where: Situation, part: str) -> None:
    hint = explain(error, where).hint
    assert hint is not None
    assert part in hint


def test_the_hint_of_an_exception_is_preferred() -> None:
    assert explain(timeout(hint="its own"), SERIAL).hint == "its own"


def test_code_six_means_something_else_outside_images() -> None:
    assert explain(refusal(None, 6), Situation("settings get", "serial", answered=True)).hint is None


def test_fields_are_kept_for_scripts() -> None:
    failure = explain(refusal(1, 30), IMAGE)
    assert failure.kind == "DeviceError"
    assert failure.fields == {"group": 1, "rc": 30, "name": "INVALID_IMAGE_TOO_LARGE", "rsn": None, "reply": {}}


def test_what_nobody_foresaw_is_called_a_bug() -> None:
    assert failure_of(ValueError("oh"), Situation()).message == "this is a bug: ValueError: oh"
    assert failure_of(RuntimeError(), Situation()).message == "this is a bug: RuntimeError"
