"""Errors with fields, as they go from one process to another."""

from __future__ import annotations

import pickle

import pytest

from mcumgrx.errors import (
    DeviceError,
    FlowError,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    Outcome,
    PlanRefused,
    RequestTimeout,
    TransferStuck,
    UsageError,
    WrongDevice,
)
from mcumgrx.flows.policy import InvalidPolicy
from mcumgrx.hints import Hint, Run
from mcumgrx.protocol.codes import SmpError

ERRORS: list[McumgrError] = [
    UsageError("no", hint="yes"),
    WrongDevice("another", expected="a", found="b", address="udp:x"),
    MalformedReply("odd", payload=b"\x01"),
    MessageTooLarge("large", size=3, limit=2),
    TransferStuck("stuck", offset=1, size=2),
    RequestTimeout("silent", what="echo", timeout_s=2.5, attempts=3),
    DeviceError("busy", group=1, rc=10, code=SmpError.BUSY, rsn="later", reply={"rc": 10}),
    FlowError("back", stage="prove", outcome=Outcome.REVERTED, slot=1, hint=Hint("see ", Run("image list"))),
    PlanRefused("small", slot=1),
    InvalidPolicy("window", "must be 1"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_pickled_with_its_fields(error: McumgrError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.hint, copy.exit, copy.args) == (str(error), error.hint, error.exit, error.args)
    kept, other = dict(vars(copy)), dict(vars(error))
    assert kept.keys() == other.keys()
    assert kept == other
    if isinstance(copy, DeviceError):
        assert copy.says(SmpError.BUSY)
