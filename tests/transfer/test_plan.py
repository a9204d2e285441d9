"""The upload plan against the rules of real servers: windows, losses, gaps, resumption, alignment, a stuck device."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import MalformedReply, McumgrError, MessageTooLarge, TransferStuck
from mcumgrx.messages.message import Body, Fields, Reply, SmpCommand, encode_body
from mcumgrx.messages.standard import UploadChunk, UploadProgress
from mcumgrx.protocol.header import Op
from mcumgrx.transfer.plan import Chunk, ImageUpload, Phase, UploadPlan, largest_data

pytestmark = pytest.mark.codec

IMAGE = random.Random(1).randbytes(3000)
SHA = bytes(range(32))


@dataclass
class Server:
    """How Zephyr takes an upload (`img_mgmt_upload`), or MCUboot (`resumes` false), with flash words of `unit`."""

    unit: int = 1
    resumes: bool = True
    data: bytearray = field(default_factory=bytearray)
    length: int | None = None
    sha: bytes | None = None
    erases: int = 0
    complete: bytes | None = None

    def take(self, chunk: Chunk) -> int:
        command = chunk.command
        assert isinstance(command, UploadChunk)
        assert encode_body(command.body()) == command.request().payload
        if command.offset == 0:
            assert command.length is not None
            assert len(command.data) >= min(32, command.length)
            if self.resumes and self.length is not None and command.sha and command.sha == self.sha:
                return len(self.data)
            self.data, self.length, self.sha = bytearray(), command.length, command.sha
            self.erases += 1
            self.complete = None
        if self.length is None or command.offset != len(self.data):
            return len(self.data)
        taken = len(command.data)
        if command.offset + taken < self.length:
            taken -= taken % self.unit
        self.data += command.data[:taken]
        offset = len(self.data)
        if offset == self.length:
            self.complete = bytes(self.data)
            self.reset()
            return offset
        return offset

    def reset(self) -> None:
        self.data, self.length, self.sha = bytearray(), None, None


def plan_for(data: bytes = IMAGE, **options: object) -> UploadPlan:
    options.setdefault("message_bytes", 300)
    return UploadPlan(data, ImageUpload(SHA, 0), **options)  # type: ignore[arg-type]


def run(plan: UploadPlan, server: Server, window: int = 1) -> None:
    """Until done, with nothing lost and every answer in order."""
    flight: deque[tuple[Chunk, int]] = deque()
    for _ in range(10_000):
        if plan.done:
            return
        while len(flight) < window and (chunk := plan.next()) is not None:
            flight.append((chunk, server.take(chunk)))
        plan.acknowledged(*flight.popleft())
    raise AssertionError("the plan does not end")


@pytest.mark.parametrize("window", [1, 2, 3, 8])
def test_an_undisturbed_upload(window: int) -> None:
    server, plan = Server(), plan_for()
    run(plan, server, window)
    assert server.complete == IMAGE
    assert (plan.retransmissions, plan.setbacks, server.erases) == (0, 0, 1)


def test_the_first_chunk_goes_alone() -> None:
    plan = plan_for()
    first = plan.next()
    assert first is not None
    assert (first.offset, first.slow) == (0, True)
    assert plan.next() is None
    plan.acknowledged(first, first.end)
    behind = [plan.next() for _ in range(5)]
    assert [chunk is not None and not chunk.slow for chunk in behind] == [True] * 5


@pytest.mark.parametrize("length", [1, 31, 32, 33, 200])
def test_images_of_a_chunk_or_two(length: int) -> None:
    server = Server()
    run(plan_for(IMAGE[:length]), server)
    assert server.complete == IMAGE[:length]


@pytest.mark.parametrize("message_bytes", [*range(75, 330), 380, 1020, 2044, 65_543])
def test_messages_are_filled_but_never_more(message_bytes: int) -> None:
    plan = UploadPlan(bytes(200_000), ImageUpload(SHA, 0), message_bytes=message_bytes)
    offset = 0
    for _ in range(3):
        chunk = plan.next()
        assert chunk is not None
        size = chunk.command.request().size
        # One byte stays free where one more would need a longer head for the byte string.
        assert message_bytes - 1 <= size <= message_bytes or chunk.end == 200_000
        offset = chunk.end
        plan.acknowledged(chunk, offset)


@pytest.mark.parametrize(
    ("room", "data"), [(0, 0), (1, 0), (24, 23), (25, 23), (26, 24), (257, 255), (258, 255), (259, 256)]
)
def test_the_head_of_a_byte_string_grows_with_it(room: int, data: int) -> None:
    assert largest_data(100 + room, 100) == data
    assert len(encode_body({"data": bytes(data)})) - len(encode_body({"data": b""})) + 1 <= max(1, room)


def test_a_small_link_gets_a_shorter_opening() -> None:
    # One console line, 89 bytes: image 0 is left out and the sha shortened, so that the image header fits.
    plan = plan_for(message_bytes=89)
    chunk = plan.next()
    assert chunk is not None
    assert isinstance(chunk.command, UploadChunk)
    assert chunk.command.image is None
    assert chunk.command.sha == SHA[:8]
    assert chunk.size >= 32
    assert chunk.command.request().size <= 89


def test_a_link_that_is_too_small_is_named() -> None:
    with pytest.raises(MessageTooLarge) as caught:
        plan_for(message_bytes=20)
    assert caught.value.limit == 20
    assert caught.value.size > 60
    assert "MTU" in str(caught.value.hint)


def test_the_devices_offset_is_the_truth_when_it_resumes() -> None:
    server = Server()
    half = plan_for()
    for _ in range(6):
        chunk = half.next()
        assert chunk is not None
        half.acknowledged(chunk, server.take(chunk))
    kept = half.done_bytes
    again = plan_for()
    run(again, server)
    assert (again.resumed_from, server.erases, server.complete) == (kept, 1, IMAGE)


def test_one_lost_request_in_a_window_is_one_step_back() -> None:
    server, plan = Server(), plan_for()
    first = plan.next()
    assert first is not None
    plan.acknowledged(first, server.take(first))
    chunks = [plan.next() for _ in range(4)]
    answers = [(chunk, server.take(chunk)) for index, chunk in enumerate(chunks) if chunk is not None and index != 1]
    for chunk, offset in answers:  # the second never arrived: two identical complaints, one reaction
        plan.acknowledged(chunk, offset)
    again = plan.next()
    assert again is not None
    assert chunks[1] is not None
    assert again.offset == chunks[1].offset
    plan.lost(chunks[1])  # its time-out comes later, and changes nothing any more
    assert plan.setbacks == 1
    run_rest(plan, server, again)
    assert server.complete == IMAGE


def run_rest(plan: UploadPlan, server: Server, pending: Chunk) -> None:
    plan.acknowledged(pending, server.take(pending))
    run(plan, server)


def test_a_lost_answer_is_covered_by_the_next() -> None:
    server, plan = Server(), plan_for()
    first = plan.next()
    assert first is not None
    plan.acknowledged(first, server.take(first))
    one, two = plan.next(), plan.next()
    assert one is not None
    assert two is not None
    server.take(one)
    plan.acknowledged(two, server.take(two))
    plan.lost(one)
    run(plan, server)
    assert (server.complete, plan.retransmissions) == (IMAGE, 0)


def test_messages_can_be_made_smaller_on_the_way() -> None:
    server, plan = Server(), plan_for(message_bytes=1020)
    for size in (1020, 510, plan.least_bytes, 700):
        plan.message_bytes = size
        chunk = plan.next()
        assert chunk is not None
        assert size - 1 <= chunk.command.request().size <= size
        plan.acknowledged(chunk, server.take(chunk))
    run(plan, server)
    assert server.complete == IMAGE


@pytest.mark.parametrize("message_bytes", [89, 300, 1020])
def test_the_least_size_opens_the_upload(message_bytes: int) -> None:
    least = plan_for(message_bytes=message_bytes).least_bytes
    assert least <= 89
    server, plan = Server(), plan_for(message_bytes=message_bytes)
    plan.message_bytes = least
    run(plan, server)
    assert server.complete == IMAGE
    with pytest.raises(MessageTooLarge):
        plan_for(message_bytes=least - 1)


@pytest.mark.parametrize("unit", [4, 8, 16])
@pytest.mark.parametrize("window", [1, 3])
def test_alignment_is_learned_from_the_first_cut(unit: int, window: int) -> None:
    server, plan = Server(unit=unit, resumes=False), plan_for(message_bytes=301)
    run(plan, server, window)
    assert server.complete == IMAGE
    assert plan.alignment % unit == 0
    assert plan.retransmissions <= window


def test_the_last_answer_lost_is_settled_by_asking() -> None:
    server, plan = Server(), plan_for()
    chunk = drive_to_last(plan, server)
    server.take(chunk)
    plan.lost(chunk)
    again = plan.next()
    assert again is not None
    assert again.offset == chunk.offset
    assert not plan.needs_settling
    plan.doubt()  # that is not answered either
    assert plan.needs_settling
    assert plan.next() is None
    plan.settled(complete=True)
    assert plan.done
    assert (server.complete, server.erases) == (IMAGE, 1)


@pytest.mark.parametrize("asked", [False, True])
def test_the_last_request_lost_is_sent_again(asked: bool) -> None:
    server, plan = Server(), plan_for()
    plan.lost(drive_to_last(plan, server))
    if asked:
        plan.doubt()
        plan.settled(complete=False)
    run(plan, server)
    assert (server.complete, server.erases) == (IMAGE, 1)


def test_a_late_answer_to_the_last_chunk_settles_it() -> None:
    server, plan = Server(), plan_for()
    chunk = drive_to_last(plan, server)
    offset = server.take(chunk)
    plan.lost(chunk)
    plan.acknowledged(chunk, offset)
    assert plan.done


def test_a_duplicate_of_the_last_chunk_never_starts_a_second_upload() -> None:
    # The answer to the last chunk is lost but that to its copy arrives: offset 0, since the session is closed.
    server, plan = Server(), plan_for()
    chunk = drive_to_last(plan, server)
    server.take(chunk)
    plan.acknowledged(chunk, server.take(chunk))
    assert plan.phase is Phase.FORGOTTEN
    assert plan.needs_settling
    plan.settled(complete=True)
    assert (plan.done, server.erases) == (True, 1)


def drive_to_last(plan: UploadPlan, server: Server) -> Chunk:
    while True:
        chunk = plan.next()
        assert chunk is not None
        if chunk.end == plan.size:
            return chunk
        plan.acknowledged(chunk, server.take(chunk))


def test_a_device_that_lost_its_session_is_given_the_opening_again() -> None:
    server, plan = Server(), plan_for()
    for _ in range(4):
        chunk = plan.next()
        assert chunk is not None
        plan.acknowledged(chunk, server.take(chunk))
    server.reset()
    run(plan, server)
    assert (server.complete, server.erases) == (IMAGE, 2)


def answer_always(plan: UploadPlan, first: int | None, then: int) -> None:
    """Up to 100 answers: `first` to the opening chunk, where given, and `then` to all others."""
    for _ in range(100):
        chunk = plan.next()
        assert chunk is not None
        plan.acknowledged(chunk, first if first is not None and chunk.offset == 0 else then)


def test_a_device_that_keeps_losing_its_session_is_stuck() -> None:
    with pytest.raises(TransferStuck, match="lost the upload"):
        answer_always(plan_for(), first=100, then=0)


@pytest.mark.parametrize("stand", [0, 215])
def test_a_device_that_never_advances_is_told_by_the_stalls(stand: int) -> None:
    plan = plan_for()
    answer_always(plan, first=None, then=stand)
    assert plan.stalls >= 98
    error = plan.stuck(60.0)
    assert (error.offset, error.size) == (stand, len(IMAGE))
    assert error.hint
    assert "erase" not in error.hint


def test_a_device_that_goes_on_has_stalled_no_longer() -> None:
    server, plan = Server(), plan_for()
    answer_always(plan, first=None, then=0)
    run(plan, server)
    assert (server.complete, plan.stalls) == (IMAGE, 0)


@pytest.mark.parametrize("offset", [len(IMAGE) + 1, 2**31])
def test_an_offset_beyond_the_end_is_malformed(offset: int) -> None:
    plan = plan_for()
    chunk = plan.next()
    assert chunk is not None
    with pytest.raises(MalformedReply):
        plan.acknowledged(chunk, offset)


def test_a_match_without_transfer_ends_it_at_once() -> None:
    plan = plan_for()
    chunk = plan.next()
    assert chunk is not None
    plan.acknowledged(chunk, len(IMAGE), match=True)
    assert (plan.done, plan.match, plan.resumed_from) == (True, True, len(IMAGE))


def test_only_at_the_end_does_a_match_say_anything() -> None:
    server, plan = Server(), plan_for()
    chunk = plan.next()
    assert chunk is not None
    plan.acknowledged(chunk, server.take(chunk), match=False)
    run(plan, server)
    assert (server.complete, plan.match) == (IMAGE, None)


@pytest.mark.parametrize("answered", [True, False])
def test_a_gap_counts_whether_or_not_its_answer_is_news(answered: bool) -> None:
    plan = plan_for()
    opening = plan.next()
    assert opening is not None
    plan.acknowledged(opening, opening.end)
    one, two, three = plan.next(), plan.next(), plan.next()
    assert one is not None
    assert three is not None
    assert two is not None
    if answered:
        plan.acknowledged(one, one.end)
    plan.acknowledged(three, one.end)  # two is missing
    assert plan.setbacks == 1
    again = plan.next()
    assert again is not None
    assert again.offset == one.end


@pytest.mark.parametrize("stands", range(4, 257, 4))
def test_an_upload_that_resumes_inside_the_first_chunk_teaches_no_unit(stands: int) -> None:
    server, plan = Server(unit=1), plan_for()
    server.data, server.length, server.sha = bytearray(IMAGE[:stands]), len(IMAGE), SHA
    run(plan, server, window=3)
    assert (server.complete, plan.alignment, server.erases) == (IMAGE, 1, 0)


def test_a_unit_that_does_not_exist_is_given_up() -> None:
    server, plan = Server(unit=1), plan_for(message_bytes=301, alignment=64)
    run(plan, server)
    assert server.complete == IMAGE
    assert plan.alignment < 64
    assert plan.retransmissions == 0


@pytest.mark.parametrize("image", [0, 1, 3])
def test_every_chunk_names_an_image_that_is_not_the_first(image: int) -> None:
    plan = UploadPlan(IMAGE, ImageUpload(SHA, image), message_bytes=300)
    numbers = []
    while not plan.done:
        chunk = plan.next()
        assert chunk is not None
        command = chunk.command
        assert isinstance(command, UploadChunk)
        assert 299 <= command.request().size <= 300 or chunk.end == len(IMAGE)
        numbers.append(command.image)
        plan.acknowledged(chunk, chunk.end)
    assert numbers[0] == image
    assert set(numbers[1:]) == {image or None}


def test_nothing_to_upload_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nothing"):
        plan_for(b"")


@given(
    seed=st.integers(0, 2**32),
    window=st.integers(1, 6),
    message_bytes=st.integers(89, 700),
    unit=st.sampled_from([1, 4, 8, 16]),
    loss=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    resumes=st.booleans(),
)
def test_any_losses_and_duplicates_end_in_the_right_bytes(
    seed: int, window: int, message_bytes: int, unit: int, loss: float, resumes: bool
) -> None:
    """Whatever is lost or doubled on the way, the device ends with exactly the image, or the plan gives up openly."""
    random_ = random.Random(seed)
    server = Server(unit=unit, resumes=resumes)
    plan = plan_for(message_bytes=message_bytes)
    answers: deque[tuple[Chunk, int]] = deque()
    outstanding: deque[Chunk] = deque()
    for _ in range(20_000):
        if plan.done:
            break
        if plan.needs_settling:
            plan.settled(server.complete == IMAGE)
            outstanding.clear()
            answers.clear()
            continue
        while len(outstanding) < window and (chunk := plan.next()) is not None:
            outstanding.append(chunk)
            for _ in range(2 if random_.random() < loss / 3 else 1):
                if random_.random() >= loss:
                    offset = server.take(chunk)
                    if random_.random() >= loss:
                        answers.append((chunk, offset))
        try:
            if answers:
                chunk, offset = answers.popleft()
                if chunk in outstanding:
                    outstanding.remove(chunk)
                    plan.acknowledged(chunk, offset)
            else:
                while outstanding:
                    plan.lost(outstanding.popleft())
        except TransferStuck:
            assert loss > 0
            return
    assert plan.done
    assert server.complete == IMAGE


# -- the messages ----------------------------------------------------------------------------------------------------

numbers = st.integers(0, 70_000) | st.integers(-1, 2**65)


@given(
    numbers,
    st.binary(max_size=300),
    st.none() | numbers,
    st.none() | numbers,
    st.none() | st.binary(max_size=64),
    st.booleans(),
)
def test_a_chunk_is_laid_as_cbor_lays_it(
    offset: int, data: bytes, length: int | None, image: int | None, sha: bytes | None, upgrade: bool
) -> None:
    chunk = UploadChunk(offset, data, length, image, sha, upgrade)
    assert chunk.request() == SmpCommand.request(chunk)


@pytest.mark.parametrize("size", [65_535, 65_536, 70_000])
def test_a_chunk_of_any_size_is_laid(size: int) -> None:
    chunk = UploadChunk(5, bytes(size))
    assert chunk.request() == SmpCommand.request(chunk)


def outcome(read: Callable[[UploadChunk, Reply], UploadProgress], reply: Reply) -> object:
    try:
        return read(UploadChunk(5, b""), reply)
    except McumgrError as error:
        return type(error), str(error), error.hint


answers = st.dictionaries(
    st.sampled_from(["off", "rc", "match", "rsn", "err", "vendor"]),
    st.integers(0, 70_000) | st.sampled_from([0, 0, 3, -1, 2**40, True, "text", {"group": 1, "rc": 8}]),
    max_size=3,
)


@given(answers.map(encode_body), st.booleans(), st.sampled_from([b"", b"", b"\0"]))
def test_an_answer_is_read_as_cbor_reads_it(payload: bytes, indefinite: bool, behind: bytes) -> None:
    if indefinite:
        payload = b"\xbf" + payload[1:] + b"\xff"
    reply = Reply(Op.WRITE_REPLY, 1, 0, 1, 7, 1, payload + behind)
    assert outcome(UploadChunk.result, reply) == outcome(SmpCommand.result, reply)


@pytest.mark.parametrize("message_bytes", [76, 89, 252, 300])
def test_every_message_is_full_wherever_its_offset_lies(message_bytes: int) -> None:
    plan = plan_for(bytes(70_000), message_bytes=message_bytes)
    while True:
        chunk = plan.next()
        assert chunk is not None
        if chunk.end == plan.size:
            return
        # A byte is left only where one more would need a longer head for the byte string.
        assert message_bytes - 1 <= chunk.command.request().size <= message_bytes
        plan.acknowledged(chunk, chunk.end)


class Counting:
    """Another kind of upload, not hashable, that counts what it is asked for; its chunks know nothing of templates."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.asked = 0

    def command(self, offset: int, data: bytes, length: int) -> SmpCommand[UploadProgress]:
        self.asked += 1
        return NamedChunk(offset, data, length)


@dataclass(frozen=True, slots=True)
class NamedChunk(SmpCommand[UploadProgress], group=8, number=0, op=Op.WRITE):
    offset: int
    data: bytes
    length: int

    def body(self) -> Body:
        return {"name": "/lfs/x", "off": self.offset, "data": self.data} | ({} if self.offset else {"len": self.length})

    def parse(self, fields: Fields) -> UploadProgress:
        return UploadProgress(fields.integer("off"))


def test_chunks_are_not_made_twice() -> None:
    messages = Counting()
    plan = UploadPlan(bytes(100_000), messages, message_bytes=100)
    chunks = 0
    while not plan.done:
        chunk = plan.next()
        assert chunk is not None
        assert 99 <= chunk.command.request().size <= 100 or chunk.end == plan.size
        plan.acknowledged(chunk, chunk.end)
        chunks += 1
    assert chunks > 1000
    assert messages.asked < chunks + 20
