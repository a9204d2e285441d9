"""Uploads over the transport of thirty lines that the pages show, beside those over the built-in one.

::

    python benchmarks/own_link.py [--quick] [--rounds N] [--json]

`examples/radio_link.py` says of its link only that it is a network (`Flow.network`), and has neither `offer` nor
`deliver_to`; the transport of `udp:` has all that there is. Both upload the same image to the same `mcumgrx sim serve
--instant` over UDP, which holds every datagram for half of the delay, 20 ms and none; they take turns. *share* is the
median of the ratios within a round; with 20 ms it is to be 95 %.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.plugin_api import Transport
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.image.group import ImageGroup
from mcumgrx_plugins.udp.transport import UdpTransport
from tests.support.served import serving

ROOT = Path(__file__).resolve().parent.parent

BAR = 0.95
BYTES = {0.0: 2_000_000, 0.02: 600_000}


def own_transport() -> type[Transport]:
    spec = importlib.util.spec_from_file_location("radio_link", ROOT / "examples" / "radio_link.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind: type[Transport] = module.AcmeTransport
    return kind


async def upload(kind: type[Transport], target: str, image: Image) -> float:
    """Bytes per second, from the first request to the last answer."""
    async with Client(kind(Address("own", target))) as client:
        await client.params()
        begin = time.perf_counter()
        await client.group(ImageGroup).upload(image)
        return len(image.data) / (time.perf_counter() - begin)


def measure(delay_s: float, rounds: int) -> dict[str, Any]:
    kinds = {"udp": UdpTransport, "own": own_transport()}
    image = parse_image(build_image("1.1.0", payload_size=BYTES[delay_s]))
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    device = f"sim:,buf_size=2048,slot_size=4194304,latency={delay_s / 2:g}"
    for round in range(rounds):
        for name in sorted(kinds, reverse=bool(round % 2)):
            with serving(device, "--udp", "0", "--instant") as served:  # anew, so that nothing is resumed
                rates[name].append(asyncio.run(upload(kinds[name], served.target("udp"), image)))
    shares = [own / udp for own, udp in zip(rates["own"], rates["udp"], strict=True)]
    return {
        "delay_ms": delay_s * 1000,
        "udp": statistics.median(rates["udp"]),
        "own": statistics.median(rates["own"]),
        "share": statistics.median(shares),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 ms only, three rounds")
    parser.add_argument("--rounds", type=int, help="default: 9; with --quick 3")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds = given.rounds or (3 if given.quick else 9)
    rows = [measure(delay_s, rounds) for delay_s in ((0.02,) if given.quick else (0.02, 0.0))]
    if given.json:
        print(json.dumps({"rounds": rounds, "results": rows}))
        return
    for row in rows:
        of = "" if not row["delay_ms"] or row["share"] >= BAR else f", less than {BAR:.0%}"
        print(
            f"{row['delay_ms']:g} ms: udp {row['udp'] / 1000:.0f} KB/s, "
            f"thirty lines {row['own'] / 1000:.0f} KB/s: {row['share']:.1%}{of}"
        )


if __name__ == "__main__":
    main()
