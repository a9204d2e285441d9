"""What all tests share: both codecs, Hypothesis profiles, a clean environment, and no silent skips in CI."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# Fewer examples by default: the whole suite runs often. `python dev.py fuzz` takes the last one.
settings.register_profile("default", max_examples=60, deadline=None)
settings.register_profile(
    "ci", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")

ROOT = Path(__file__).parent.parent

# Switches of the tests and the build; every other MCUMGRX_… sets an option and would change what a command does.
_KEPT_VARIABLES = {"MCUMGRX_CI", "MCUMGRX_EXT", "MCUMGRX_PURE_PYTHON", "MCUMGRX_ZEPHYR_SERVERS"}

# A user may lack these, so their tests skip with a reason. CI has them: there such a skip is a failure.
_NOT_IN_CI = (
    *("codec is not built", "could not import", "imgtool", "smp is not installed", "no C compiler"),
    "dbus-daemon is not installed",
)

IN_CI = os.environ.get("MCUMGRX_CI", "") not in ("", "0")


def pytest_configure() -> None:
    for name in list(os.environ):
        if name.startswith("MCUMGRX_") and name not in _KEPT_VARIABLES:
            del os.environ[name]
    # No test depends on what another one, or who runs them, has done to a device. Those of the memory switch it on.
    os.environ["MCUMGRX_NO_CACHE"] = "1"
    # Hundreds of processes are started: compiling all modules anew takes each as long as what it is started for.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".cache" / "bytecode"))


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    if any(text in reason for text in _NOT_IN_CI):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: not allowed under MCUMGRX_CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():  # type: ignore[no-untyped-def]
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():  # type: ignore[no-untyped-def]
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(params=["compiled", "python"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two codecs in turn, whichever is in use."""
    if request.param == "python":
        return importlib.import_module("mcumgrx._pycodec")
    try:
        return importlib.import_module("mcumgrx._codec")
    except ImportError as error:
        pytest.skip(f"the compiled codec is not built ({error})")
