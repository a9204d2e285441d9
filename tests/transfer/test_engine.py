"""The engine, told what happens and when: time is a number, and no device, link or event loop is there."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx.errors import DeviceError, MalformedReply, RequestTimeout, TransferStuck
from mcumgrx.events import StageName
from mcumgrx.link.profile import LinkProfile
from mcumgrx.messages.message import Reply, encode_body
from mcumgrx.transfer.engine import Engine
from mcumgrx.transfer.flight import Flight
from mcumgrx.transfer.plan import Chunk, ImageUpload, UploadPlan
from mcumgrx.transfer.window import PacedWindow, Window
from mcumgrx.transport import Flow, Limits

MESSAGE = 128
FIRST_S = 60.0  # for the opening chunk
USUAL_S = 5.0


class Bench:
    """An upload of `size` bytes to a device with so many receive buffers. What is sent leaves at once."""

    def __init__(self, size: int = 2000, buffers: int = 3, *, strict: bool = False, **more: Any) -> None:
        self.now = 0.0
        self.plan = UploadPlan(bytes(size), ImageUpload(), message_bytes=more.pop("message_bytes", MESSAGE))
        window: Window[Any] = more.pop("window", None) or Window(buffers, strict=strict)
        self.profile = more.pop("profile", None) or LinkProfile(min_rtt_s=0.01)
        self.engine: Engine[Chunk] = Engine(
            self.plan,
            window,
            self.profile,
            more.pop("limits", Limits(safe_message=MESSAGE)),
            Flow(strict=strict),
            stage=StageName.UPLOAD,
            timeout_s=USUAL_S,
            slow_s=lambda piece: FIRST_S,
            **more,
        )
        self.engine.begin(self.now)
        self.out: list[Flight[Any]] = []
        self.pauses: list[float] = []

    def send(self, queued_s: float = 0.0) -> list[int]:
        """All that may be sent now; returns the offsets, -1 for what is no chunk."""
        fresh: list[Flight[Any]] = []
        while (flight := self.engine.request(self.now)) is not None:
            self.engine.left(flight, self.now, queued_s)
            fresh.append(flight)
        self.out += fresh
        return [getattr(flight.item, "offset", -1) for flight in fresh]

    def take(self, index: int = 0) -> Flight[Any]:
        return self.out.pop(index)

    def answer(self, flight: Flight[Any], after_s: float = 0.01, body: dict[str, object] | None = None) -> None:
        """The device answers `flight`, by default that it has taken all of it."""
        self.now += after_s
        if body is None:
            body = {"off": flight.item.end} if isinstance(flight.item, Chunk) else {"r": ""}
        facts = flight.request.facts
        self.engine.reply(flight, Reply(facts.op | 1, 1, 0, facts.group, 0, facts.number, encode_body(body)), self.now)

    def opened(self) -> Bench:
        """With the opening chunk answered."""
        assert self.send() == [0]
        self.answer(self.take())
        return self

    def wide(self) -> Bench:
        """With the window as wide as the device has buffers, and nothing on its way."""
        self.opened()
        while self.engine.meter.read(self.now).speed.window < 3:  # type: ignore[union-attr]
            self.send()
            self.answer(self.take())
        while self.out:
            self.answer(self.take())
        return self

    def wait(self) -> float:
        """Let pass what it waits for; returns how long that was."""
        begin = self.now
        self.now = max(begin, self.engine.next_time())
        self.engine.tick(self.now)
        return self.now - begin

    def hear_nothing(self) -> list[int]:
        """Send and wait until that ends it. Returns what was sent."""
        sent: list[int] = []
        for _ in range(1000):
            sent += self.send()
            self.wait()
        return sent

    def hear_no_openings(self) -> None:
        """The device gets all but the opening chunks, until that ends it."""
        for _ in range(1000):
            self.send()
            self.out = [flight for flight in self.out if not flight.item.slow]
            if self.out:
                self.answer(self.take())
            else:
                self.wait()

    def say(self, body: dict[str, object], times: int = 10_000) -> None:
        """The device says this to all that it is sent, until that ends it."""
        for _ in range(times):
            self.send()
            while self.out:
                self.answer(self.take(), after_s=0.0, body=body)
            self.engine.request(self.now, room=False)
            if self.engine.send_at > self.now + 1000:
                continue  # it is not to wait
            self.pauses.append(self.engine.send_at - self.now)
            self.now = self.engine.send_at

    def to_the_end(self) -> None:
        while not self.engine.ended:
            self.send()
            self.answer(self.take())


def test_an_upload_without_trouble() -> None:
    bench = Bench().opened()
    bench.to_the_end()
    assert bench.plan.done
    assert bench.plan.retransmissions == 0
    assert bench.engine.request(bench.now) is None
    assert bench.engine.next_time() == float("inf")


def test_a_lost_chunk_shows_in_the_answer_to_the_next_one() -> None:
    bench = Bench().wide()
    lost, *behind = bench.send()
    bench.take()
    for _ in behind:
        bench.answer(bench.take(), body={"off": lost})  # all complain of the same gap
    assert bench.send()[:1] == [lost]  # a round trip later, and not after a time-out
    assert [flight.item.offset for flight in bench.engine.forgotten] == [lost]
    assert bench.plan.setbacks == 1


def test_when_nothing_is_answered_the_round_trips_tell_how_long_to_wait() -> None:
    bench = Bench().wide()
    lost, *_ = bench.send()
    assert bench.wait() == pytest.approx(0.06)  # twice the slowest, of three that were answered one after the other
    bench.out.clear()
    assert bench.send() == [lost]
    assert bench.wait() == pytest.approx(0.1)  # backed off
    assert bench.plan.retransmissions


def test_a_device_that_is_gone_is_given_up() -> None:
    bench = Bench().wide()
    begin = bench.now
    with pytest.raises(RequestTimeout, match="asked again and again") as raised:
        bench.hear_nothing()
    assert 5 * USUAL_S <= bench.now - begin < 6 * USUAL_S
    assert raised.value.hint is not None


def test_a_late_answer_is_as_good_as_any() -> None:
    bench = Bench().wide()
    bench.send()
    bench.wait()
    bench.answer(bench.take(), after_s=1.0)
    bench.out.clear()
    bench.to_the_end()
    assert bench.plan.done
    assert bench.plan.retransmissions < 3


def test_the_answer_to_the_last_chunk_is_lost() -> None:
    bench = Bench(300).opened()
    while bench.plan.done_bytes < 200:
        bench.send()
        bench.answer(bench.take())
    begin = bench.now
    while not bench.plan.needs_settling:
        bench.send()
        bench.wait()
    assert bench.engine.ended
    assert 40 <= bench.now - begin < 60  # the device may check the whole image before it says so
    bench.plan.settled(False)
    bench.engine.begin(bench.now)
    bench.out.clear()
    bench.to_the_end()
    assert bench.plan.done


# -- the opening chunk ------------------------------------------------------------------------------------------------


def test_an_opening_that_takes_long_is_said_so_and_waited_for() -> None:
    bench = Bench(strict=True, buffers=1)
    bench.send()
    while not bench.engine.notes:
        bench.wait()
    assert bench.now == pytest.approx(5.0)
    assert bench.engine.notes == [
        "no answer to the image upload so far: the device may be erasing its flash, waiting up to 55 s more"
    ]
    assert bench.send() == []
    bench.answer(bench.take(), after_s=40.0)
    assert bench.engine.meter.slowest_s == pytest.approx(45.0)
    bench.to_the_end()


def test_an_opening_that_is_never_answered() -> None:
    bench = Bench(strict=True, buffers=1)
    with pytest.raises(RequestTimeout, match="stuck at 0 %: no answer to its first chunk within 60 s") as raised:
        bench.hear_nothing()
    assert bench.now == pytest.approx(2 * FIRST_S)
    assert raised.value.attempts == 2


def test_a_short_request_behind_the_opening_tells_that_it_was_lost() -> None:
    bench = Bench()
    assert bench.send() == [0]
    assert bench.wait() == pytest.approx(0.3)
    assert bench.send() == [-1]
    bench.answer(bench.take(1))
    assert bench.send() == [0]
    assert bench.now < 0.4
    bench.answer(bench.take(1))
    bench.to_the_end()


def test_a_device_that_erases_answers_both_in_order() -> None:
    bench = Bench()
    bench.send()
    bench.wait()
    assert bench.send() == [-1]
    assert bench.wait() == pytest.approx(1.7)
    assert bench.send() == [-1]  # there is room for another one
    bench.answer(bench.take(), after_s=20.0)
    assert bench.plan.done_bytes
    bench.answer(bench.take(), after_s=0.0)
    bench.answer(bench.take(), after_s=0.0)
    bench.to_the_end()
    assert bench.plan.retransmissions == 0


def test_far_away_the_short_request_waits_for_round_trips() -> None:
    bench = Bench(profile=LinkProfile(min_rtt_s=0.5))
    bench.send()
    assert bench.wait() == pytest.approx(4.0)
    assert bench.send() == [-1]


def test_an_opening_that_was_quicker_before_is_sent_once_more() -> None:
    bench = Bench(buffers=1, again_s=8.0)
    sent = []
    while bench.now < 8.0:
        sent += bench.send()
        bench.wait()
    assert sent == [0, -1]  # and the short one finds no buffer, or is lost as well
    assert bench.send() == [0]
    bench.answer(bench.take(2))
    bench.out.clear()
    bench.to_the_end()
    assert bench.plan.done


def test_a_short_request_that_finds_no_buffer_holds_nothing_up() -> None:
    bench = Bench(buffers=1)
    bench.send()
    bench.wait()
    assert bench.send() == [-1]
    bench.answer(bench.take(), after_s=20.0)
    assert bench.send()[0] > 0
    bench.take(0)
    bench.to_the_end()
    assert bench.plan.retransmissions == 0


def test_where_one_request_more_does_harm_none_is_sent_behind() -> None:
    bench = Bench(buffers=1, strict=True)
    sent = []
    while bench.now < 50.0:
        sent += bench.send()
        bench.wait()
    assert sent == [0]


def test_of_an_opening_and_its_copy_one_answer_is_waited_for() -> None:
    bench = Bench(buffers=1, again_s=8.0)
    bench.send()
    while bench.now < 8.0:
        bench.wait()
    bench.send()
    bench.answer(bench.take())
    assert bench.send()[0] > 0


def test_a_device_that_answers_all_but_the_opening_is_given_up() -> None:
    bench = Bench()
    with pytest.raises(RequestTimeout, match="stuck at 0 %") as raised:
        bench.hear_no_openings()
    assert raised.value.attempts == 5
    assert bench.now < 10


def test_without_room_on_the_link_nothing_is_sent_behind() -> None:
    bench = Bench()
    bench.send()
    bench.wait()
    assert bench.engine.request(bench.now, room=False) is None
    assert bench.engine.next_time() > bench.now  # and nothing is tried again and again
    bench.answer(bench.take())
    assert bench.send()[0] > 0


def test_what_was_given_up_may_still_arrive() -> None:
    bench = Bench(strict=True, buffers=1)
    bench.send()
    while not bench.plan.stray and bench.now < FIRST_S:
        bench.wait()
    while bench.send() == []:
        bench.wait()
    assert bench.engine.strays_until == pytest.approx(USUAL_S)  # from when the first one left


# -- a device that does not go on -------------------------------------------------------------------------------------


def test_a_busy_device_is_asked_again_in_growing_pauses() -> None:
    bench = Bench().wide()
    begin = bench.now
    with pytest.raises(DeviceError, match="busy"):
        bench.say({"rc": 10})
    assert bench.pauses[:3] == pytest.approx([0.1, 0.2, 0.4])
    assert max(bench.pauses) == pytest.approx(2.0)
    assert 30 <= bench.now - begin <= 33
    assert bench.engine.notes == ["the device is busy: asking it for up to 28 s more"]


def test_a_busy_device_that_goes_on_has_all_the_time_again() -> None:
    bench = Bench(buffers=1).opened()
    bench.say({"rc": 10}, times=4)
    bench.send()
    bench.answer(bench.take())
    bench.say({"rc": 10}, times=1)
    assert bench.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.1])


def test_a_device_that_wants_what_it_has_just_got_is_stuck_after_a_minute() -> None:
    bench = Bench(buffers=1).opened()
    begin = bench.now
    with pytest.raises(TransferStuck, match="has kept asking for offset"):
        bench.say({"off": bench.plan.done_bytes})
    assert 60 <= bench.now - begin <= 65


def test_an_answer_that_says_nothing_is_asked_for_again_but_not_when_it_is_meant() -> None:
    bench = Bench(buffers=1).opened()
    bench.send()
    bench.answer(bench.take(), body={"x": 1})
    assert bench.send()
    bench.answer(bench.take())
    with pytest.raises(MalformedReply, match="image upload"):
        bench.say({"x": 1}, times=4)


def test_a_refusal_ends_it() -> None:
    bench = Bench().opened()
    bench.send()
    with pytest.raises(DeviceError):
        bench.answer(bench.take(), body={"rc": 1})


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_messages_that_get_lost_become_smaller_and_stay_so() -> None:
    profile = LinkProfile(min_rtt_s=0.01, proven_bytes=512)
    bench = Bench(6000, buffers=1, message_bytes=2048, profile=profile)
    assert bench.plan.message_bytes == 512  # what has arrived before
    bench.opened()
    bench.send()
    bench.wait()
    assert bench.plan.message_bytes == 512  # one loss says nothing
    while bench.plan.message_bytes == 512:
        bench.out.clear()
        bench.send()
        bench.wait()
    assert bench.plan.message_bytes == MESSAGE
    assert profile.proven_bytes == MESSAGE
    assert profile.learned.refused_bytes is None  # it had arrived: then it is a device that pauses


def test_larger_messages_are_tried_after_32_answers() -> None:
    profile = LinkProfile(min_rtt_s=0.01)
    bench = Bench(20_000, buffers=1, message_bytes=512, profile=profile).opened()
    for _ in range(31):
        bench.send()
        bench.answer(bench.take())
    bench.send()
    assert bench.plan.message_bytes == 2 * MESSAGE
    bench.answer(bench.take())
    assert profile.proven_bytes == 2 * MESSAGE
    while bench.plan.message_bytes == 2 * MESSAGE:
        bench.send()
        bench.answer(bench.take())
    bench.send()
    bench.wait()  # the first one of the next size is lost
    assert bench.plan.message_bytes == 2 * MESSAGE
    assert profile.learned.refused_bytes == 4 * MESSAGE


def test_a_chunk_that_was_cut_is_sent_smaller() -> None:
    profile = LinkProfile(min_rtt_s=0.01, proven_bytes=512)
    bench = Bench(6000, message_bytes=512, profile=profile)
    bench.send()
    bench.answer(bench.take(), body={"rc": 9})
    assert bench.plan.message_bytes == MESSAGE
    bench.to_the_end()


# -- the link ---------------------------------------------------------------------------------------------------------


def test_time_outs_count_from_when_a_request_has_left() -> None:
    bench = Bench().wide()
    bench.send(queued_s=3.0)
    assert bench.wait() > 3.0


def test_an_answer_that_is_quicker_than_the_link_refutes_its_word() -> None:
    bench = Bench().wide()
    bench.send(queued_s=10.0)
    while bench.out:
        bench.answer(bench.take(), after_s=0.01)
    bench.send(queued_s=10.0)
    assert bench.wait() < 1.0  # the queue is not believed any more


def test_an_answer_before_the_links_word_measures_nothing() -> None:
    bench = Bench(buffers=1).opened()
    flight = bench.engine.request(bench.now)
    assert flight is not None
    bench.answer(flight, after_s=2.0)
    speed = bench.engine.meter.read(bench.now).speed
    assert speed is not None
    assert speed.round_trip_s is None  # nor did the opening
    assert bench.plan.done_bytes == flight.item.end


def test_what_the_link_has_not_taken_waits_as_on_the_slowest_one() -> None:
    bench = Bench(buffers=1).opened()
    flight = bench.engine.request(bench.now)
    assert flight is not None
    assert bench.engine.next_time() - bench.now > flight.size / 20
    bench.engine.left(flight, bench.now + 0.1, 0.0)
    assert bench.engine.next_time() - bench.now < 1.2


def test_damaged_answers_are_not_waited_for() -> None:
    bench = Bench().wide()
    lost, *behind = bench.send()
    assert not bench.engine.garbled(len(behind), bench.now)  # others are on their way, and will tell
    assert bench.engine.garbled(1, bench.now)
    bench.out.clear()
    bench.engine.tick(bench.now)
    assert bench.send()[:1] == [lost]


def test_a_pause_of_the_pace_is_told() -> None:
    window: PacedWindow[Any] = PacedWindow(1, min_rtt_s=0.04)
    bench = Bench(100_000, window=window, profile=LinkProfile(min_rtt_s=0.04)).opened()
    for _ in range(20):
        bench.send()
        if not bench.out:
            break
        bench.answer(bench.take(), after_s=0.05)
    assert window.pacing.gap_s is not None
    bench.send()
    assert bench.now < bench.engine.send_at <= bench.now + window.pacing.gap_s


# -- held -------------------------------------------------------------------------------------------------------------


def test_what_is_held_sends_nothing_and_takes_answers() -> None:
    bench = Bench().wide()
    bench.send()
    bench.engine.hold(True, bench.now)
    done = bench.plan.done_bytes
    bench.answer(bench.take())
    assert bench.plan.done_bytes > done
    assert bench.send() == []
    bench.engine.hold(False, bench.now)
    assert bench.send()


def test_the_time_in_which_it_was_held_counts_for_nothing() -> None:
    bench = Bench().wide()
    bench.send()
    bench.engine.hold(True, bench.now)
    bench.now += 1000
    bench.engine.hold(False, bench.now)
    bench.wait()  # a loss, and not the end
    bench.out.clear()
    bench.to_the_end()
    assert bench.engine.meter.read(bench.now).elapsed_s < 10


def test_it_may_begin_held() -> None:
    bench = Bench()
    bench.engine.begin(0.0, held=True)
    assert bench.send() == []
    bench.engine.hold(False, 5.0)
    assert bench.send() == [0]


def test_a_plan_that_hangs_is_a_mistake() -> None:
    class Hanging(UploadPlan):
        def next(self) -> None:
            return None

    bench = Bench()
    bench.plan.__class__ = Hanging
    with pytest.raises(RuntimeError, match="has nothing to send"):
        bench.send()
