"""How fast the codec is, beside `smp` and `smpclient`, which do the same work with pydantic models and crcmod.

::

    python benchmarks/codec.py [--quick] [--json]

Needs the compiled codec, and the peers: ``pip install 'mcumgrx[bench]'``.

What is compared does the same work from the same input, which is checked before the clock runs. All of a row's
contestants run in turn, a batch each, in every round, so that whatever else the machine does meets all of them. The
time is the CPU time of the thread, the median of the batches. The ratio is the median of the ratios within a round:
only ratios of one run mean something, because microseconds differ from machine to machine and from hour to hour.

Rows:

* *upload message*: lay the next chunk of an image as one message of 512 bytes, and read the device's answer. The peer
  is what `smpclient` 7 does in `upload()` for each chunk, without its input and output: one model to measure, a second
  one with the data, and header and model of the answer. *codec* stops at what the codec functions give, *typed* goes
  through the library's `Command`, `Request`, `Reply` and typed result; both include finding the size that fits.
* *console frame*: 4 KB to lines of at most 127 bytes, and back. The peer is `smp.packet`; it is given its lines one at
  a time, ours has to find them.
* *reassembly*: 2.4 KB in 10 fragments to a decoded header with its payload. The peer is the codec's Python twin.
* *CBOR*: the image list of two slots to Python values. The peer is `cbor2`.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

CLOCK = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison: `works["peer"]` against the others. `bar` is what the ratio of the first of them should reach."""

    name: str
    peer: str
    works: dict[str, Work]
    bar: float | None = None


# --- what is measured -----------------------------------------------------------------------------------------------

MESSAGE_BYTES = 512
OFFSET = 100_000
IMAGE = random.Random(1).randbytes(200_000)
ANSWER = bytes.fromhex("bf 62 72 63 00 63 6f 66 66 1a 00 01 88 97 ff")  # {"rc": 0, "off": 100503}, as Zephyr sends it


def upload_rows(codecs: dict[str, ModuleType]) -> list[Row]:
    from smp import header as smp_header
    from smpclient import SMPClient
    from smpclient.requests.image_management import ImageUploadWrite

    from mcumgrx.messages.message import Reply
    from mcumgrx.messages.standard import UploadProgress
    from mcumgrx.protocol.framing import DatagramFraming
    from mcumgrx.transfer.plan import ImageUpload, largest_data

    class Link:
        max_unencoded_size = MESSAGE_BYTES

    messages = ImageUpload()
    framing = DatagramFraming()
    asked = messages.command(OFFSET, b"", len(IMAGE))
    fixed = asked.request().size - 1  # the plan measures this once for thousands of chunks
    client = SMPClient(Link(), "nobody")  # type: ignore[arg-type]
    write = 2

    def peer_build() -> bytes:
        request = ImageUploadWrite(off=OFFSET, data=b"", len=None, image=None, upgrade=None)
        return client._maximize_upload_packet(request, IMAGE).BYTES

    response_model = ImageUploadWrite(off=0, data=b"")._Response

    def peer_parse(frame: bytes) -> int | None:
        header = smp_header.Header.loads(frame[: smp_header.Header.SIZE])
        response = response_model.loads(frame)
        assert header.sequence == 7
        return response.off

    def codec_build(codec: ModuleType) -> bytes:
        size = largest_data(MESSAGE_BYTES, fixed)
        payload = codec.build_upload(OFFSET, IMAGE[OFFSET : OFFSET + size])
        message: bytes = codec.build_message(write, 1, 0, 1, 7, 1, payload)
        return message

    def codec_parse(codec: ModuleType, frame: bytes) -> int | None:
        [(_op, _version, _flags, _group, sequence, _command, payload)], _left = codec.split_messages(frame, 1 << 3)
        assert sequence == 7
        offset: int | None = codec.read_upload_offset(payload)
        return offset

    def typed_build() -> bytes:
        size = largest_data(MESSAGE_BYTES, fixed)
        command = messages.command(OFFSET, IMAGE[OFFSET : OFFSET + size], len(IMAGE))
        return command.request().encode(1, 7)

    def typed_parse() -> UploadProgress:
        [message] = framing.feed(frame)
        reply = Reply(*message)
        assert reply.sequence == 7
        return asked.result(reply)

    frame = codecs["compiled"].build_message(3, 1, 0, 1, 7, 1, ANSWER)

    theirs = peer_build()
    assert len(theirs) == MESSAGE_BYTES
    for ours in (typed_build(), *map(codec_build, codecs.values())):
        assert ours[:6] + ours[7:] == theirs[:6] + theirs[7:]  # smp counts its sequence numbers itself
    assert peer_parse(frame) == typed_parse().offset == 100_503
    assert all(codec_parse(codec, frame) == 100_503 for codec in codecs.values())

    compiled, python = codecs["compiled"], codecs["python"]
    return [
        Row(
            "upload message, build and parse",
            "smpclient",
            {
                "smpclient": lambda: (peer_build(), peer_parse(frame)),
                "codec": lambda: (codec_build(compiled), codec_parse(compiled, frame)),
                "codec, Python twin": lambda: (codec_build(python), codec_parse(python, frame)),
                "typed": lambda: (typed_build(), typed_parse()),
            },
            bar=25,
        ),
        Row(
            "upload message, build",
            "smpclient",
            {
                "smpclient": peer_build,
                "codec": lambda: codec_build(compiled),
                "codec, Python twin": lambda: codec_build(python),
                "typed": typed_build,
            },
        ),
        Row(
            "upload message, parse",
            "smpclient",
            {
                "smpclient": lambda: peer_parse(frame),
                "codec": lambda: codec_parse(compiled, frame),
                "codec, Python twin": lambda: codec_parse(python, frame),
                "typed": typed_parse,
            },
        ),
    ]


def console_rows(codecs: dict[str, ModuleType]) -> list[Row]:
    from smp import packet

    message = codecs["compiled"].build_message(3, 1, 0, 1, 7, 1, random.Random(2).randbytes(4096 - 8))
    lines = list(packet.encode(message, 127))
    frame = codecs["compiled"].build_console_frame(message, 124)

    def peer_decode() -> bytes:
        decoder = packet.decode()
        next(decoder)
        try:
            for line in lines:
                decoder.send(line)
        except StopIteration as done:
            found: bytes = done.value
            return found
        raise AssertionError("no whole frame")

    decoders = {name: codec.ConsoleDecoder(0xFFFF, 1 << 3, 4096) for name, codec in codecs.items()}
    parsed = [(3, 1, 0, 1, 7, 1, message[8:])]
    assert peer_decode() == message
    for codec, decoder in zip(codecs.values(), decoders.values(), strict=True):
        assert codec.build_console_frame(message, 124) == frame
        assert decoder.feed(frame) == decoder.feed(b"".join(lines)) == parsed
    assert max(len(line) for line in frame.splitlines(keepends=True)) == 127

    compiled, python = codecs["compiled"], codecs["python"]
    return [
        Row(
            "console frame of 4 KB, encode",
            "smp.packet",
            {
                "smp.packet": lambda: list(packet.encode(message, 127)),
                "codec": lambda: compiled.build_console_frame(message, 124),
                "codec, Python twin": lambda: python.build_console_frame(message, 124),
            },
            bar=10,
        ),
        Row(
            "console frame of 4 KB, decode",
            "smp.packet",
            {
                "smp.packet": peer_decode,
                "codec": lambda: decoders["compiled"].feed(frame),
                "codec, Python twin": lambda: decoders["python"].feed(frame),
            },
            bar=10,
        ),
    ]


def reassembly_row(codecs: dict[str, ModuleType]) -> Row:
    message = codecs["compiled"].build_message(1, 1, 0, 1, 7, 0, random.Random(3).randbytes(2400))
    size = -(-len(message) // 10)
    fragments = [message[start : start + size] for start in range(0, len(message), size)]
    assert len(fragments) == 10
    feeds = {name: codec.Reassembler(4096, 1 << 1).feed for name, codec in codecs.items()}

    def reassemble(feed: Callable[[bytes], list[Any]]) -> list[Any]:
        for fragment in fragments:
            found = feed(fragment)
        return found

    assert reassemble(feeds["compiled"]) == reassemble(feeds["python"]) == [(1, 1, 0, 1, 7, 0, message[8:])]
    return Row(
        "reassembly of 2.4 KB in 10 fragments",
        "Python twin",
        {
            "Python twin": lambda: reassemble(feeds["python"]),
            "codec": lambda: reassemble(feeds["compiled"]),
        },
        bar=4,
    )


def cbor_row(codecs: dict[str, ModuleType]) -> Row:
    import cbor2

    flags = {"bootable": True, "pending": False, "confirmed": True, "active": True, "permanent": False}
    slots = [{"slot": number, "version": "1.2.3", "hash": bytes(range(32)), **flags} for number in range(2)]
    payload = cbor2.dumps({"images": slots, "splitStatus": 0})
    assert all(codec.decode_item(payload, 32) == cbor2.loads(payload) for codec in codecs.values())
    compiled, python = codecs["compiled"], codecs["python"]
    return Row(
        "CBOR of an image list, decode",
        "cbor2",
        {
            "cbor2": lambda: cbor2.loads(payload),
            "codec": lambda: compiled.decode_item(payload, 32),
            "codec, in Python": lambda: python.decode_item(payload, 32),
        },
    )


# --- measuring ------------------------------------------------------------------------------------------------------


def batch(work: Work, times: int) -> float:
    """Seconds for each of `times` runs."""
    repeat = range(times)
    begin = CLOCK()
    for _ in repeat:
        work()
    return (CLOCK() - begin) / times


def measure(row: Row, rounds: int, batch_s: float) -> dict[str, list[float]]:
    """Seconds per run, by contestant, one for each round."""
    times = {}
    for name, work in row.works.items():
        once = max(batch(work, 20), 1e-8)  # warms up, too
        times[name] = max(1, int(batch_s / once))
    found: dict[str, list[float]] = {name: [] for name in row.works}
    order = list(row.works)
    shuffle = random.Random(4).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            found[name].append(batch(row.works[name], times[name]))
    return found


def summary(rows: list[Row], rounds: int, batch_s: float) -> dict[str, Any]:
    results = []
    for row in rows:
        seconds = measure(row, rounds, batch_s)
        first = next(name for name in row.works if name != row.peer)
        for name, own in seconds.items():
            ratio = statistics.median(peer / mine for peer, mine in zip(seconds[row.peer], own, strict=True))
            low, _, high = statistics.quantiles(own, n=4, method="inclusive")
            bar = row.bar if name == first else None
            results.append(
                {
                    "row": row.name,
                    "of": name,
                    "median_us": round(1e6 * statistics.median(own), 3),
                    "quartiles_us": [round(1e6 * low, 3), round(1e6 * high, 3)],
                    "ratio": round(ratio, 2),
                    "bar": bar,
                    "met": None if bar is None else ratio >= bar,
                }
            )
    return {
        "benchmark": "codec",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("smp", "smpclient", "pydantic", "cbor2")},
        "rounds": rounds,
        "results": results,
    }


def show(found: dict[str, Any]) -> None:
    peers = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    print(f"Python {found['python']} on {found['platform']}; {peers}; {found['rounds']} interleaved rounds")
    last = None
    for result in found["results"]:
        if result["row"] != last:
            last = result["row"]
            print(f"\n{last:<38} {'median':>10} {'quartiles':>19} {'ratio':>8}")
        low, high = result["quartiles_us"]
        bar = ""
        if result["bar"] is not None:
            bar = f"  (bar {result['bar']:g}: {'met' if result['met'] else 'MISSED'})"
        times = f"{result['median_us']:>7.2f} us {f'{low:.2f}–{high:.2f}':>16} us"
        print(f"  {result['of']:<36} {times} {result['ratio']:>7.1f}x{bar}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the codec beside smp and smpclient.")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        import smpclient  # noqa: F401
    except ImportError as error:
        sys.exit(f"error: the peers to compare with are missing ({error})\nhint: pip install 'mcumgrx[bench]'")
    try:
        from mcumgrx import _codec
    except ImportError as error:
        sys.exit(f"error: the codec is not compiled ({error})\nhint: python dev.py bench builds it, given a C compiler")
    from mcumgrx import _pycodec
    from mcumgrx.protocol import codec

    if codec.IMPLEMENTATION != "compiled":
        sys.exit(f"error: the compiled codec is not in use: {codec.FALLBACK_REASON}")
    codecs: dict[str, ModuleType] = {"compiled": _codec, "python": _pycodec}
    rows = [*upload_rows(codecs), *console_rows(codecs), reassembly_row(codecs), cbor_row(codecs)]
    gc.collect()
    gc.disable()
    found = summary(rows, *((7, 0.002) if arguments.quick else (41, 0.01)))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
