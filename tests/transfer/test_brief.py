"""Windows of short transfers over a network."""

from __future__ import annotations

import pytest

from mcumgrx.transfer.brief import BriefWindow


def test_a_brief_window_paces_what_is_beyond_the_room() -> None:
    window: BriefWindow[str] = BriefWindow(1, min_rtt_s=0.04)
    first = window.sent("a", 0.0)
    assert window.wait_s(0.02) is None, "nothing is known of the device so far"
    window.answered(first, 0.05)
    assert window.wait_s(0.05) == 0.0
    second = window.sent("b", 0.05)
    assert window.wait_s(0.05) == pytest.approx(0.05 / 3)
    window.sent("c", 0.07)
    window.sent("d", 0.09)
    window.sent("e", 0.11)
    assert window.wait_s(0.2) is None, "four are enough"
    # Something gets lost: then one at a time.
    window.answered(second, 0.2)
    window.lost(0.2)
    assert window.wait_s(0.3) is None
    window.clear()
    window.sent("f", 1.0)
    assert window.wait_s(2.0) is None


def test_a_brief_window_gives_a_slow_device_its_time() -> None:
    window: BriefWindow[str] = BriefWindow(1, min_rtt_s=0.02)
    window.answered(window.sent("a", 0.0), 0.12)
    window.sent("b", 0.12)
    assert window.wait_s(0.12) == pytest.approx(0.15), "it took 0.1 s, and half as much again is better"
    for options, trip_s in (
        ({"min_rtt_s": None}, 0.5),
        ({"min_rtt_s": 0.001}, 0.01),
        ({"min_rtt_s": 0.04, "most": 1}, 0.05),
    ):
        alone: BriefWindow[str] = BriefWindow(1, **options)
        alone.answered(alone.sent("a", 0.0), trip_s)
        alone.sent("b", trip_s)
        assert alone.wait_s(trip_s) is None, options
    # What it has room for goes out at once.
    roomy: BriefWindow[str] = BriefWindow(3, min_rtt_s=0.04)
    assert [roomy.sent(item, 0.0).depth for item in "abc" if roomy.wait_s(0.0) == 0.0] == [0, 1, 2]
    assert roomy.wait_s(0.0) is None
