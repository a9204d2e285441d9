"""The distributions of the folder `examples`, which no test installs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def labgrid_driver() -> Any:
    """The class of the driver for labgrid. Skips the test where there is no labgrid.

    That brings a pyserial of its own into the place of the usual one, so it is not among what all tests need:
    `pip install --target build/labgrid labgrid`, and that folder in PYTHONPATH.
    """
    pytest.importorskip("labgrid", reason="labgrid is not installed: it brings a pyserial of its own")
    folder = str(EXAMPLES / "labgrid")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from mcumgrx_labgrid import McumgrxDriver

    return McumgrxDriver
