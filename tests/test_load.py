"""How busy this program is, as far as the computer's own clocks tell."""

from __future__ import annotations

import os
import sys

import pytest

from mcumgrx.load import ComputerLoad

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no elapsed time there")


def test_work_and_waiting_for_a_processor_count() -> None:
    load = ComputerLoad()
    begin = os.times()
    while (now := os.times()).user - begin.user < 0.2:
        sum(range(10_000))
    share = load.share(now.elapsed - begin.elapsed)
    assert share is not None
    # Elsewhere than on Linux nobody tells how long others had the processor.
    assert 0.5 < share < 1.5 or not sys.platform.startswith("linux")


@pytest.mark.parametrize("elapsed_s", [0.0, 1000.0])
def test_another_clock_has_nothing_to_do_with_it(elapsed_s: float) -> None:
    assert ComputerLoad().share(elapsed_s) is None
