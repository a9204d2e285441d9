"""How close uploads come to what a link and a device allow, over simulated links in virtual time.

::

    python benchmarks/links.py [--quick] [--all] [--json] [--docs]

`--quick` runs a part of the scenarios, with the same numbers. `--all` also runs every combination of link, buffers
and flash, and lists those that miss a bar. `--docs` writes the table and the plot of docs/speed/. Time is virtual, so
the rates are the same on every machine; only what the last lines say of cost is measured by the clock.

Each scenario is one image, uploaded to a fresh device by the engine with its defaults, and once more with
`UploadOptions(window=1)`: stop-and-wait, one chunk on its way at a time. The image has as many MB as the limit carries
in 10 seconds, at least one. The *rate* is what came after the answer to
the opening chunk, divided by the time from that answer to the last: connecting, the question for the buffers, the
probe of the message size and the erase before that answer are left out, the growth of the window is not. KB are 1000
bytes.

The *limit* is not measured. With `L` the one-way latency and `B` bytes/s of the link, a chunk costs ::

    data      = message - 26              header 8, CBOR of "off" (32 bits) and "data" (16 bits) 18
    message   = what the buffer takes     less 4 on a console; at most 1472 in a datagram
    up        = framed(message) / B       console: base64 of message + 4 in lines of 127 bytes
    down      = framed(19) / B            the answer {"off": n}
    work      = request_s + data × flash  of the device, which does one after the other
    alone     = up + L + work + down + L  stop-and-wait: nothing else happens meanwhile
    limit     = data × min(1 / up, 1 / work, window / alone)

where the window is one less than the device has buffers, which is all it takes without harm or loss, and on a
datagram link 128, half of the sequence numbers, because datagrams that arrive one by one need no more than one buffer
each. Where `window / alone` is not the smallest of the three, the window *covers* the delay, and the limit is the
slower one of link and flash.

`work` is a mean: the server writes blocks of 512 bytes, so chunks of 384 take it now one write, now none. A datagram
server with a single buffer for requests, where none can wait, does not come close to that limit: each request has to
leave the one before it the time of the longest work, which comes to 75, 98 and 94 % of the limit at most with messages
of 384, 1024 and 1472 bytes.

With loss, each request and each answer is lost with that probability, by a fixed random sequence; the limit is that of
the link without loss. A server takes chunks in order only, so a lost request costs all that is behind it, too. On a
serial link one request more than there is room for crashes Zephyr 4.4: with a single buffer for requests each loss
costs the whole time-out, after which the device can no longer be at work on what may have arrived.

*overruns* counts requests and console lines that found no buffer in the device, in the run of the engine, without those
that the link has lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.events import Bytes, Event
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT, FlashTiming
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx.transfer.window import MOST_IN_FLIGHT
from mcumgrx_plugins.image.group import ImageGroup

DOCS = Path(__file__).resolve().parent.parent / "docs" / "speed"

LEAST_S = 10
SECTOR_BYTES = 4096
SEED = 5

# CBOR around the data of a chunk: map, "off" with 32 bits, "data" with a length of 16 bits; the header before it.
CHUNK_OVERHEAD = 8 + (1 + 4 + 5 + 5 + 3)
# Header, and a map of indefinite length with "off" in 32 bits, as Zephyr writes it.
ANSWER_BYTES = 8 + (1 + 4 + 5 + 1)

# Seconds for a byte: none; the nRF52840's own; a slow one behind a bus.
FLASHES = {"none": INSTANT, "nRF52840": FlashTiming(), "slow": FlashTiming(write_s_per_byte=50e-6)}

COVERED_BAR = 0.95
LOSS_BAR = 0.85


@dataclass(frozen=True, slots=True)
class Scenario:
    """One link and one device. `delay` is one-way latency, or the connection interval of BLE, in seconds."""

    link: str
    rate: int  # baud of `uart`, ATT MTU of `ble`; nothing for `udp`
    delay: float
    buf_count: int
    buf_size: int
    flash: str = "nRF52840"
    loss: float = 0.0

    def __str__(self) -> str:
        delay = f"{self.delay * 1000:g} ms"
        where = {
            "uart": f"UART {self.rate:,} baud, {delay}",
            "ble": f"BLE MTU {self.rate}, every {delay}",
            "udp": f"UDP {delay}",
        }[self.link]
        loss = f", {self.loss:.0%} lost" if self.loss else ""
        return f"{where}, {self.buf_count} × {self.buf_size}, flash {self.flash}{loss}"

    @property
    def model(self) -> LinkModel:
        if self.link == "uart":
            return replace(LinkModel.uart(self.rate), latency_s=self.delay)
        return LinkModel.ble(self.rate, self.delay) if self.link == "ble" else LinkModel.datagram(self.delay)

    @property
    def config(self) -> DeviceConfig:
        """Without room for the image."""
        return DeviceConfig(
            buf_size=self.buf_size, buf_count=self.buf_count, timing=FLASHES[self.flash], sector_size=SECTOR_BYTES
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """Of a scenario, in bytes/s, and what sets it: `link`, `device` or `window`.

    `buffers`: the same with a window of what the device has buffers for, on datagram links too.
    """

    rate: float
    by: str
    stop_and_wait: float
    buffers: float


def limit_of(scenario: Scenario) -> Limit:
    """See the module."""
    model, config = scenario.model, scenario.config
    message = model.limits.message(config.buf_size)
    data = message - CHUNK_OVERHEAD
    framing = model.framing()
    up_s, down_s = (
        sum(map(len, framing.encode(bytes(size)))) / model.bytes_per_s if model.bytes_per_s is not None else 0.0
        for size in (message, ANSWER_BYTES)
    )
    work_s = config.request_s + data * config.timing.write_s_per_byte
    alone_s = up_s + work_s + down_s + 2 * model.latency_s
    window = MOST_IN_FLIGHT if model.flow.paced else scenario.buf_count - 1
    bounds = {"window": data * window / alone_s, "device": data / work_s}
    if up_s:
        bounds["link"] = data / up_s
    by = min(bounds, key=bounds.__getitem__)
    others = (rate for name, rate in bounds.items() if name != "window")
    buffers = min(data * (config.buf_count - 1) / alone_s, *others)
    return Limit(bounds[by], by, data / alone_s, buffers)


@dataclass(frozen=True, slots=True)
class Measured:
    """One upload: bytes/s, seconds of virtual time, and what went wrong."""

    rate: float
    seconds: float
    overruns: int
    crashes: int
    retransmissions: int


OLD = build_image("1.0.0", payload_size=1000, signed=False)


@cache
def image_of(megabytes: int) -> Image:
    return parse_image(build_image("1.1.0", payload_size=megabytes * 1_000_000, signed=False))


def image_for(scenario: Scenario) -> Image:
    """As large as the module says."""
    return image_of(max(1, round(limit_of(scenario).rate * LEAST_S / 1e6)))


def measure(scenario: Scenario, options: UploadOptions = UploadOptions(), image: Image | None = None) -> Measured:
    """Carry out the upload of a scenario, or of another image over the same link."""
    return run(_upload(scenario, options, image if image is not None else image_for(scenario)))


async def _upload(scenario: Scenario, options: UploadOptions, image: Image) -> Measured:
    loop = asyncio.get_running_loop()
    # One sector more is needed for the swap, and one for the trailer.
    device = SimulatedDevice(replace(scenario.config, slot_size=(image.size // SECTOR_BYTES + 3) * SECTOR_BYTES))
    device.install(OLD)
    transport = SimulatedTransport(device, scenario.model, faults=_faults(scenario.loss))
    seen: list[tuple[float, Bytes]] = []

    def note(event: Event) -> None:
        if isinstance(event, Bytes):
            seen.append((loop.time(), event))

    async with Client(transport) as client:
        done = await client.group(ImageGroup).upload(image, options, note)
        end = loop.time()
    if done.offset != image.size:
        raise SystemExit(f"error: {scenario}: {done.offset} of {image.size} bytes have arrived")
    begin, first = next((at, event) for at, event in seen if event.done)
    last = seen[-1][1]
    runner: Any = device.runner
    return Measured(
        rate=(image.size - first.done) / (end - begin),
        seconds=end - begin,
        overruns=runner.lost + runner.lost_lines,
        crashes=device.crashes,
        retransmissions=last.speed.retransmissions if last.speed is not None else 0,
    )


def _faults(loss: float) -> Faults:
    if not loss:
        return Faults()
    chance = random.Random(SEED).random
    return Faults(
        drop_requests=lambda number, message: chance() < loss, drop_replies=lambda number, message: chance() < loss
    )


# --- the scenarios --------------------------------------------------------------------------------------------------

BUFFERS = [(count, size) for size in (384, 1024, 2475) for count in (2, 4, 8)]
UART_DELAYS = (0.0, 0.005, 0.01, 0.02, 0.05)
BLE_INTERVALS = (0.0075, 0.015, 0.03, 0.05)
UDP_DELAYS = (0.0002, 0.001, 0.005, 0.02, 0.05)


def scenarios() -> list[Scenario]:
    """Those of the table: one property of a link or device after the other."""
    found = [Scenario("uart", 115200, delay, 4, 384) for delay in UART_DELAYS]
    found += [Scenario("uart", 115200, 0.01, count, size) for count, size in BUFFERS]
    found += [Scenario("uart", 1_000_000, delay, 4, 384) for delay in (0.0, 0.01)]
    found += [Scenario("uart", 1_000_000, 0.01, count, 2475) for count in (2, 4, 8)]
    found += [Scenario("uart", 1_000_000, 0.01, 4, 2475, flash) for flash in ("none", "slow")]
    found += [Scenario("ble", 247, interval, 4, 2475) for interval in BLE_INTERVALS]
    found += [Scenario("ble", mtu, 0.03, 4, 2475) for mtu in (65, 247, 498)]
    found += [Scenario("ble", 247, 0.03, count, size) for count, size in BUFFERS]
    found += [Scenario("ble", 247, 0.0075, 4, 2475, flash) for flash in ("none", "slow")]
    found += [Scenario("udp", 0, delay, 4, 2475) for delay in UDP_DELAYS]
    found += [Scenario("udp", 0, 0.02, count, size) for count, size in BUFFERS]
    found += [Scenario("udp", 0, 0.02, 4, 2475, flash) for flash in ("none", "slow")]
    found += [
        Scenario("uart", 115200, 0.01, 2, 384, loss=0.01),
        Scenario("uart", 115200, 0.01, 4, 384, loss=0.01),
        Scenario("uart", 1_000_000, 0.01, 4, 2475, loss=0.01),
        Scenario("ble", 247, 0.03, 4, 384, loss=0.01),
        Scenario("ble", 247, 0.03, 4, 2475, loss=0.01),
        Scenario("udp", 0, 0.001, 4, 2475, loss=0.01),
        Scenario("udp", 0, 0.005, 4, 2475, loss=0.01),
        Scenario("udp", 0, 0.02, 4, 2475, loss=0.01),
        Scenario("udp", 0, 0.05, 4, 2475, loss=0.01),
    ]
    return list(dict.fromkeys(found))


QUICK = (
    Scenario("uart", 115200, 0.01, 4, 384),
    Scenario("uart", 115200, 0.01, 2, 2475),
    Scenario("ble", 247, 0.03, 4, 2475),
    Scenario("udp", 0, 0.02, 4, 2475),
    Scenario("udp", 0, 0.005, 4, 2475, loss=0.01),
)


def every_scenario() -> Iterator[Scenario]:
    """All combinations."""
    links = [("uart", baud, delay) for baud, delay in product((115200, 1_000_000), (0.0, 0.01, 0.03))]
    links += [("ble", mtu, interval) for mtu, interval in product((65, 247, 498), (0.0075, 0.03, 0.05))]
    links += [("udp", 0, delay) for delay in (0.0002, 0.002, 0.01, 0.05)]
    for (link, rate, delay), (count, size), flash, loss in product(links, BUFFERS, FLASHES, (0.0, 0.01)):
        yield Scenario(link, rate, delay, count, size, flash, loss)


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What a scenario came to. Rates in bytes/s."""

    scenario: Scenario
    limit: Limit
    ours: Measured
    alone: Measured

    @property
    def share(self) -> float:
        """Of the limit, 1 is all of it."""
        return self.ours.rate / self.limit.rate

    @property
    def gain(self) -> float:
        return self.ours.rate / self.alone.rate

    @property
    def misses(self) -> list[str]:
        """The bars that do not hold."""
        found = []
        bar = LOSS_BAR if self.scenario.loss else COVERED_BAR
        if self.share < bar:
            found.append(f"{self.share:.1%} of the limit, not {bar:.0%}")
        # Rounding apart: where the window is 1 both are the same.
        if self.gain < 0.999:
            found.append(f"{self.gain:.3f} of stop-and-wait")
        if self.ours.crashes:
            found.append(f"{self.ours.crashes} crashes")
        return found

    @property
    def cells(self) -> list[str]:
        ours = self.ours
        overruns = f"{ours.overruns:,}" + (f", {ours.crashes} crashes" if ours.crashes else "")
        return [
            str(self.scenario),
            f"{self.limit.rate / 1000:,.1f}",
            self.limit.by,
            f"{ours.rate / 1000:,.1f}",
            f"{self.share:.1%}",
            f"{self.alone.rate / 1000:,.1f}",
            f"{self.gain:.2f}",
            overruns,
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": asdict(self.scenario),
            "title": str(self.scenario),
            "limit": asdict(self.limit),
            "ours": asdict(self.ours),
            "stop_and_wait": asdict(self.alone),
            "share": self.share,
            "gain": self.gain,
            "misses": self.misses,
            "line": markdown_row(self),
        }


COLUMNS = ("scenario", "limit, KB/s", "set by", "ours, KB/s", "ours / limit", "stop-and-wait, KB/s", "gain", "overruns")


def row_of(scenario: Scenario) -> Row:
    return Row(scenario, limit_of(scenario), measure(scenario), measure(scenario, UploadOptions(window=1)))


def verdicts(rows: Sequence[Row]) -> list[str]:
    """The bars, and whether they hold."""
    quiet = [row for row in rows if not row.scenario.loss]
    covered = [row for row in quiet if row.limit.by != "window"]
    narrow = [row for row in quiet if row.limit.by == "window"]
    lossy = [row for row in rows if row.scenario.loss]
    lines = []
    for what, bar, those in (
        ("where the window covers the delay, of the slower one of link and flash", COVERED_BAR, covered),
        ("where it does not, of window × stop-and-wait", COVERED_BAR, narrow),
        ("with 1 % loss, of the limit without", LOSS_BAR, lossy),
    ):
        if those:
            held = sum(row.share >= bar for row in those)
            least = min(those, key=lambda row: row.share)
            lines.append(
                f"{what}: at least {bar:.0%} in {held} of {len(those)} scenarios; "
                f"least {least.share:.1%} ({least.scenario})"
            )
    datagrams = [row for row in quiet if row.scenario.link == "udp"]
    if datagrams:
        least = min(datagrams, key=lambda row: row.ours.rate / row.limit.buffers)
        held = sum(row.ours.rate >= COVERED_BAR * row.limit.buffers for row in datagrams)
        lines.append(
            f"over UDP, of what is possible with no more on its way than the device has buffers for: at least "
            f"{COVERED_BAR:.0%} in {held} of {len(datagrams)} scenarios; "
            f"least {least.ours.rate / least.limit.buffers:.1%} ({least.scenario})"
        )
    slowest = min(rows, key=lambda row: row.gain)
    held = sum(row.gain >= 0.999 for row in rows)
    lines.append(
        f"not slower than stop-and-wait: {held} of {len(rows)}; least gain {slowest.gain:.2f} ({slowest.scenario})"
    )
    lines.append(f"crashes of a device: {sum(row.ours.crashes for row in rows)}")
    return lines


def cost(sizes: Sequence[int]) -> list[dict[str, float]]:
    """How long uploads of different sizes take this computer, the simulated device included."""
    scenario = Scenario("udp", 0, 0.001, 4, 2475, "none")
    found = []
    for size in sizes:
        image = parse_image(build_image("1.1.0", payload_size=size, signed=False))
        begin = time.process_time()
        measure(scenario, UploadOptions(), image)
        found.append({"bytes": size, "cpu_s_per_mb": (time.process_time() - begin) / size * 1e6})
    return found


# --- the documentation ----------------------------------------------------------------------------------------------


def markdown_row(row: Row) -> str:
    return f"| {' | '.join(row.cells)} |"


PAGE = """# How fast uploads are

Written by `python benchmarks/links.py --docs`: uploads to the simulated device, over simulated links in virtual time,
which is the same on every machine. What the columns mean, how the limit is computed, and what is left out of the time
is told at the top of `benchmarks/links.py`.

![Rate of uploads over delay: the limit, mcumgrx, and stop-and-wait](links.svg)

{table}

{verdicts}

`benchmarks/peers.py` measures whole clients by the clock, on real pseudo-terminals and sockets.
"""


def page(rows: Sequence[Row]) -> str:
    head = [f"| {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (len(COLUMNS) - 1)}"]
    return PAGE.format(
        table="\n".join([*head, *map(markdown_row, rows)]),
        verdicts="\n".join(f"* {line[0].upper()}{line[1:]}." for line in verdicts(rows)),
    )


# Title, the unit of the delays, and the scenarios of each panel of the plot.
PANELS = (
    ("UART 115,200 baud, 4 × 384", "one-way latency, ms", [Scenario("uart", 115200, x, 4, 384) for x in UART_DELAYS]),
    ("BLE MTU 247, 4 × 2475", "connection interval, ms", [Scenario("ble", 247, x, 4, 2475) for x in BLE_INTERVALS]),
    ("UDP, 4 × 2475", "one-way latency, ms", [Scenario("udp", 0, x, 4, 2475) for x in UDP_DELAYS]),
)
SERIES = (("limit", "#999999", "6 4"), ("mcumgrx", "#1f6fb4", ""), ("stop-and-wait", "#c8553d", ""))
PANEL_WIDTH, PANEL_HEIGHT, MARGIN, TOP = 230, 180, 62, 58


def plot(rows: Sequence[Row]) -> str:
    """The panels side by side, as SVG."""
    by_scenario = {row.scenario: row for row in rows}
    width, height = len(PANELS) * (PANEL_WIDTH + MARGIN) + 24, PANEL_HEIGHT + TOP + 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (name, colour, dashes) in enumerate(SERIES):
        x = MARGIN + 130 * number
        parts.append(_line([(x, 16), (x + 28, 16)], colour, dashes))
        parts.append(_text(x + 34, 20, name))
    for number, (title, unit, those) in enumerate(PANELS):
        left = MARGIN + number * (PANEL_WIDTH + MARGIN)
        found = [by_scenario[scenario] for scenario in those]
        parts += _panel(left, title, unit, found)
    return "\n".join([*parts, "</svg>", ""])


def _panel(left: int, title: str, unit: str, rows: Sequence[Row]) -> list[str]:
    bottom = TOP + PANEL_HEIGHT
    highest = _round_up(max(row.limit.rate for row in rows) / 1000)
    furthest = max(row.scenario.delay for row in rows)

    def at(delay: float, rate: float) -> tuple[float, float]:
        return left + PANEL_WIDTH * delay / furthest, bottom - PANEL_HEIGHT * rate / 1000 / highest

    parts = [_text(left, TOP - 12, title, bold=True), _text(left + PANEL_WIDTH / 2, bottom + 34, unit, "middle")]
    for step in range(5):
        rate = highest * step / 4
        y = at(0, rate * 1000)[1]
        parts.append(_line([(left, y), (left + PANEL_WIDTH, y)], "#e4e4e4", "", 1))
        parts.append(_text(left - 6, y + 4, f"{rate:g}" + (" KB/s" if step == 4 else ""), "end"))
    for row in rows:
        if row.scenario.delay == 0 or row.scenario.delay > 0.06 * furthest:
            x = at(row.scenario.delay, 0)[0]
            parts.append(_text(x, bottom + 16, f"{row.scenario.delay * 1000:g}", "middle"))
    values = (
        [row.limit.rate for row in rows],
        [row.ours.rate for row in rows],
        [row.alone.rate for row in rows],
    )
    for (_, colour, dashes), rates in zip(SERIES, values, strict=True):
        points = [at(row.scenario.delay, rate) for row, rate in zip(rows, rates, strict=True)]
        parts.append(_line(points, colour, dashes))
        if not dashes:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return parts


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str, thick: int = 2) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashed}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{text}</text>'


def _round_up(value: float) -> float:
    """To a number of which four quarters read well."""
    scale = 1.0
    while True:
        for step in (1, 2, 4, 8):
            if step * scale >= value:
                return step * scale
        scale *= 10


# --- the run --------------------------------------------------------------------------------------------------------


def show(rows: Sequence[Row]) -> None:
    widths = [max(len(cells[number]) for cells in (COLUMNS, *(row.cells for row in rows))) for number in range(8)]
    for cells in (COLUMNS, *(row.cells for row in rows)):
        first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure uploads over simulated links, in virtual time.")
    parser.add_argument("--quick", action="store_true", help="a part of the scenarios")
    parser.add_argument("--all", action="store_true", help="also every combination, and which of them miss a bar")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--docs", action="store_true", help="write docs/speed/links.md and links.svg")
    arguments = parser.parse_args()
    if arguments.docs and arguments.quick:
        parser.error("--docs takes all scenarios, --quick leaves some out")
    rows = [row_of(scenario) for scenario in (QUICK if arguments.quick else scenarios())]
    costs = cost((250_000, 500_000, 1_000_000) if arguments.quick else (1_000_000, 4_000_000, 16_000_000))
    every: list[Row] = []
    if arguments.all:
        for scenario in every_scenario():
            every.append(row_of(scenario))
            if every[-1].misses and not arguments.json:
                print(f"{scenario}: {'; '.join(every[-1].misses)}", file=sys.stderr, flush=True)
    if arguments.docs:
        DOCS.mkdir(parents=True, exist_ok=True)
        (DOCS / "links.md").write_text(page(rows), encoding="utf-8")
        (DOCS / "links.svg").write_text(plot(rows), encoding="utf-8")
    if arguments.json:
        found = {
            "benchmark": "links",
            "results": [row.as_json() for row in rows],
            "every": [row.as_json() for row in every],
            "cost": costs,
            "verdicts": verdicts(rows),
        }
        print(json.dumps(found, indent=2))
        return
    show(rows)
    print()
    for line in verdicts(rows):
        print(line)
    print("cost: " + ", ".join(f"{one['cpu_s_per_mb']:.2f} s/MB at {one['bytes'] / 1e6:g} MB" for one in costs))
    if every:
        print(f"\nof all {len(every)} combinations:")
        for line in verdicts(every):
            print(line)


if __name__ == "__main__":
    main()
