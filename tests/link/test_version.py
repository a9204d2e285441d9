"""Which version of SMP is spoken, as tables of what was answered and what was not."""

from __future__ import annotations

import pytest

from mcumgrx.link.version import VersionChoice
from mcumgrx.messages.message import Body, Reply, encode_body
from mcumgrx.protocol.header import Version

OLD, NEW = Version.V1, Version.V2


def reply(body: Body | bytes) -> Reply:
    return Reply(1, 0, 0, 0, 0, 6, body if isinstance(body, bytes) else encode_body(body))


def after(*events: tuple[Version, Body | bytes | None]) -> VersionChoice:
    """The choice after these requests: the version of each and its answer, None for silence."""
    choice = VersionChoice()
    for version, body in events:
        if body is None:
            choice.silent(version)
        else:
            choice.answered(version, reply(body))
    return choice


def test_nothing_is_known_at_first() -> None:
    choice = VersionChoice()
    assert (choice.current, choice.certain, choice.doubtful) == (NEW, False, False)
    assert [choice.for_attempt(number, 3) for number in range(3)] == [NEW, NEW, OLD]
    assert choice.for_attempt(0, 1) is NEW


@pytest.mark.parametrize("body", [{}, {"rc": 8}, {"rc": 12}, {"err": {"group": 1, "rc": 13}}, b"\xff"], ids=str)
def test_any_answer_to_version_2_settles_it(body: Body | bytes) -> None:
    choice = after((NEW, body))
    assert (choice.current, choice.certain) == (NEW, True)
    assert [choice.for_attempt(number, 3) for number in range(3)] == [NEW] * 3


@pytest.mark.parametrize("silences", [1, 2])
def test_one_or_two_silences_are_not_enough(silences: int) -> None:
    choice = after(*[(NEW, None)] * silences, (OLD, {}))
    assert (choice.current, choice.doubtful) == (NEW, True)
    assert choice.for_attempt(0, 1) is OLD  # what is sent once only


@pytest.mark.parametrize(
    "events",
    [
        [(NEW, None), (NEW, None), (NEW, None), (OLD, {})],
        [(NEW, None), (NEW, None), (OLD, {}), (NEW, None)],
        [(NEW, None), (OLD, {}), (NEW, None), (OLD, None), (NEW, None)],
    ],
)
def test_version_1_that_answers_while_version_2_does_not(events: list[tuple[Version, Body | None]]) -> None:
    choice = after(*events)
    assert (choice.current, choice.certain, choice.doubtful) == (OLD, False, False)
    assert [choice.for_attempt(number, 3) for number in range(3)] == [OLD, OLD, NEW]
    choice.answered(NEW, reply({}))  # late
    assert (choice.current, choice.certain) == (NEW, True)


def test_silence_without_any_answer_says_nothing() -> None:
    assert after(*[(NEW, None), (OLD, None)] * 5).current is NEW


def test_a_refusal_of_a_version_is_its_end() -> None:
    choice = after((NEW, {"rc": 13}))
    assert not choice.certain  # an answer, but not one in version 2
    choice.refused(NEW)
    assert (choice.current, choice.certain) == (OLD, True)
    choice.refused(OLD)
    assert (choice.current, choice.certain) == (NEW, True)


def test_a_refusal_of_version_1_is_no_answer_in_it() -> None:
    assert after(*[(NEW, None)] * 3, (OLD, {"rc": 12})).current is NEW
